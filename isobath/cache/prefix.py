"""The prefix cache: finished blocks of tokens, found again by what they hold.

A block is BLOCK_TOKENS consecutive tokens beginning at a multiple of it; its key is a hash of the
model, the cache layout, the dialect, the salt and every token from the sequence's start through the
block's end, so equal keys mean equal bytes. A salt keeps those apart who must not learn, by the
time an answer takes, what others have sent. A block owns one page. To go on from a block's end a
sequence also needs what is not in pages: its window rows and compressor rings. They lie in a
snapshot slot, taken when a sequence stood exactly there. A hit is therefore the longest run of
known blocks whose last one has a snapshot. Under pressure the least recently used go first:
snapshots by themselves, pages from the leaves.

Leaves wait in a heap by their last use. An entry is not removed when its block is used again or
continued; a newer one is added and the old one passed over when it comes up.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

from isobath.cache.pages import PageAllocator, SlotAllocator
from isobath.cache.pool import PAGE_TOKENS

BLOCK_TOKENS = PAGE_TOKENS


@dataclass(slots=True)
class Block:
    """One cached block. used: when it last was, in ticks of the cache. children: cached blocks that
    continue it. snapshot: a slot, or None."""

    parent: bytes
    page: int
    used: int
    children: int = 0
    snapshot: int | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """What a new sequence may start from. tokens: how many are already computed. pages: theirs, on
    which the caller has been given a reference. snapshot: the slot to copy its rings from."""

    tokens: int
    pages: list[int]
    snapshot: int


class PrefixCache:
    """Owner of cached blocks and snapshots. identity: everything besides tokens that a cached byte
    depends on (model revision, layout version, dialect)."""

    def __init__(self, identity: str, pages: PageAllocator, snapshots: SlotAllocator) -> None:
        self._root = hashlib.sha256(identity.encode()).digest()
        self._pages, self._snapshots = pages, snapshots
        self._blocks: dict[bytes, Block] = {}
        self._leaves: list[tuple[int, bytes]] = []  # heap of (used, key), some of them outdated
        self._kept: OrderedDict[bytes, Block] = OrderedDict()  # with snapshot, oldest first
        self._tick = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def extend(self, keys: list[bytes], tokens: Sequence[int], blocks: int, salt: str = "") -> None:
        """Append keys of further whole blocks of `tokens` until there are `blocks` of them."""
        for start in range(len(keys) * BLOCK_TOKENS, blocks * BLOCK_TOKENS, BLOCK_TOKENS):
            block = np.asarray(tokens[start : start + BLOCK_TOKENS], dtype=np.int64)
            parent = keys[-1] if keys else self._salted(salt)
            keys.append(hashlib.sha256(parent + block.tobytes()).digest())

    def match(self, keys: list[bytes], tokens: Sequence[int], salt: str = "") -> Hit | None:
        """The longest usable prefix of `tokens` that leaves at least one to compute, or None.
        keys: those of `tokens` known so far; completed here."""
        blocks = (len(tokens) - 1) // BLOCK_TOKENS
        self.extend(keys, tokens, blocks, salt)
        known: list[tuple[bytes, Block]] = []
        for key in keys[:blocks]:
            block = self._blocks.get(key)
            if block is None:
                break
            known.append((key, block))
        while known and known[-1][1].snapshot is None:
            known.pop()
        if not known:
            return None
        for key, block in known:
            self._use(key, block)
            self._pages.share(block.page)
        snapshot = known[-1][1].snapshot
        assert snapshot is not None
        return Hit(len(known) * BLOCK_TOKENS, [block.page for _, block in known], snapshot)

    def insert(self, keys: Sequence[bytes], pages: Sequence[int]) -> None:
        """Remember the blocks `keys` (from the first on) in `pages`; known ones keep their page."""
        parent = self._root
        for key, page in zip(keys, pages, strict=True):
            block = self._blocks.get(key)
            if block is None:
                self._pages.share(page)
                block = self._blocks[key] = Block(parent, page, 0)
                if parent in self._blocks:
                    self._blocks[parent].children += 1
            self._use(key, block)
            parent = key

    def snapshot_for(self, key: bytes) -> int | None:
        """A slot to copy the state at the end of block `key` into; None when the block is unknown,
        has a snapshot already, or no slot can be had. The caller fills it at once."""
        block = self._blocks.get(key)
        if block is None or block.snapshot is not None:
            return None
        slot = self._snapshots.take()
        if slot is None and self._drop_oldest_snapshot():
            slot = self._snapshots.take()
        if slot is not None:
            block.snapshot, self._kept[key] = slot, block
        return slot

    def evict(self, count: int) -> int:
        """Free up to `count` pages that nobody else holds, oldest leaves first; says how many.

        A leaf that somebody holds counts as used now.
        """
        freed, now = 0, self._tick
        while freed < count and self._leaves and self._leaves[0][0] <= now:
            used, key = heappop(self._leaves)
            block = self._blocks.get(key)
            if block is None or block.children or block.used != used:
                continue
            if self._pages.references(block.page) > 1:
                self._use(key, block)
            else:
                self._forget(key, block)
                freed += 1
        return freed

    def held_pages(self) -> list[int]:
        """Pages on which the cache holds its one reference."""
        return [block.page for block in self._blocks.values()]

    def held_snapshots(self) -> list[int]:
        """Snapshot slots in use."""
        return [b.snapshot for b in self._kept.values() if b.snapshot is not None]

    def _salted(self, salt: str) -> bytes:
        """The parent of first blocks. What is hashed is shorter than any block, so never one's."""
        own = hashlib.sha256(salt.encode("utf-8", "surrogatepass")).digest()
        return hashlib.sha256(self._root + own).digest() if salt else self._root

    def _use(self, key: bytes, block: Block) -> None:
        self._tick += 1
        block.used = self._tick
        if block.snapshot is not None:
            self._kept.move_to_end(key)
        if not block.children:
            self._wait(key, block)

    def _wait(self, key: bytes, block: Block) -> None:
        """Put a leaf into the heap; rebuild the heap when most of it is outdated."""
        heappush(self._leaves, (block.used, key))
        if len(self._leaves) > 2 * len(self._blocks) + 64:
            self._leaves = [(b.used, k) for k, b in self._blocks.items() if not b.children]
            heapify(self._leaves)

    def _forget(self, key: bytes, block: Block) -> None:
        """Drop a leaf with its page and snapshot; its parent may be a leaf now."""
        del self._blocks[key]
        if block.snapshot is not None:
            self._snapshots.give(block.snapshot)
            del self._kept[key]
        parent = self._blocks.get(block.parent)
        if parent is not None:
            parent.children -= 1
            if not parent.children:
                self._wait(block.parent, parent)
        self._pages.release(block.page)

    def _drop_oldest_snapshot(self) -> bool:
        if not self._kept:
            return False
        _, block = self._kept.popitem(last=False)
        assert block.snapshot is not None
        self._snapshots.give(block.snapshot)
        block.snapshot = None
        return True
