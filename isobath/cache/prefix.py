"""The prefix cache: finished blocks of tokens, found again by what they hold.

A block is BLOCK_TOKENS consecutive tokens beginning at a multiple of it; its key is a hash of the
model, the cache layout, the dialect and every token from the start of the sequence through the
block's end, so equal keys mean equal bytes. A block owns one page. To go on from a block's end a
sequence also needs what is not in pages: its window rows and compressor rings. They lie in a
snapshot slot, taken when a sequence stood exactly there. A hit is therefore the longest run of
known blocks whose last one has a snapshot. Under pressure the least recently used go first:
snapshots by themselves, pages from the leaves.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isobath.cache.pages import PageAllocator, SlotAllocator
from isobath.cache.pool import PAGE_TOKENS

BLOCK_TOKENS = PAGE_TOKENS


@dataclass(slots=True)
class Block:
    """One cached block. children: cached blocks that continue it. snapshot: a slot, or None."""

    parent: bytes
    page: int
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
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._blocks)

    def extend(self, keys: list[bytes], tokens: Sequence[int], blocks: int) -> None:
        """Append keys of further whole blocks of `tokens` until there are `blocks` of them."""
        for start in range(len(keys) * BLOCK_TOKENS, blocks * BLOCK_TOKENS, BLOCK_TOKENS):
            block = np.asarray(tokens[start : start + BLOCK_TOKENS], dtype=np.int64)
            parent = keys[-1] if keys else self._root
            keys.append(hashlib.sha256(parent + block.tobytes()).digest())

    def match(self, keys: list[bytes], tokens: Sequence[int]) -> Hit | None:
        """The longest usable prefix of `tokens` that leaves at least one to compute, or None.
        keys: those of `tokens` known so far; completed here."""
        blocks = (len(tokens) - 1) // BLOCK_TOKENS
        self.extend(keys, tokens, blocks)
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
            self._blocks.move_to_end(key)
            self._pages.share(block.page)
        snapshot = known[-1][1].snapshot
        assert snapshot is not None
        return Hit(len(known) * BLOCK_TOKENS, [block.page for _, block in known], snapshot)

    def insert(self, keys: Sequence[bytes], pages: Sequence[int]) -> None:
        """Remember the blocks `keys` (from the first on) in `pages`; known ones keep their page."""
        parent = self._root
        for key, page in zip(keys, pages, strict=True):
            if key in self._blocks:
                self._blocks.move_to_end(key)
            else:
                self._pages.share(page)
                self._blocks[key] = Block(parent, page)
                if parent in self._blocks:
                    self._blocks[parent].children += 1
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
        block.snapshot = slot
        return slot

    def evict(self, count: int) -> int:
        """Free up to `count` pages that nobody else holds, oldest leaves first; says how many."""
        freed = 0
        while freed < count:
            leaf = next((k for k, b in self._blocks.items() if self._evictable(b)), None)
            if leaf is None:
                break
            block = self._blocks.pop(leaf)
            if block.snapshot is not None:
                self._snapshots.give(block.snapshot)
            if block.parent in self._blocks:
                self._blocks[block.parent].children -= 1
            self._pages.release(block.page)
            freed += 1
        return freed

    def held_pages(self) -> list[int]:
        """Pages on which the cache holds its one reference."""
        return [block.page for block in self._blocks.values()]

    def held_snapshots(self) -> list[int]:
        """Snapshot slots in use."""
        return [b.snapshot for b in self._blocks.values() if b.snapshot is not None]

    def _evictable(self, block: Block) -> bool:
        return not block.children and self._pages.references(block.page) == 1

    def _drop_oldest_snapshot(self) -> bool:
        for block in self._blocks.values():
            if block.snapshot is not None:
                self._snapshots.give(block.snapshot)
                block.snapshot = None
                return True
        return False
