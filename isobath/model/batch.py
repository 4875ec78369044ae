"""Batch: everything a forward pass needs to know besides weights, caches and numbers.

Built once a step from integers the host already knows (slots, positions, pages), then shared by all
layers. Nothing in it is read back: the forward pass is a function of these tensors. Here is what
lays out any step, on the host; decode steps are laid out on the device by engine/metadata.py. Row
numbers follow cache/pool.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from isobath.cache.pool import PAGE_TOKENS, CachePool, ring_rows
from isobath.cache.view import Pages
from isobath.config import ModelConfig
from isobath.model.rope import cos_sin, frequencies

RATIOS = (4, 128)
IntArray = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tokens of one sequence. start: position of the first. slot: its ring in the pool.
    pages: its page numbers, enough for start + len(token_ids) tokens. logits: "all", "last" or
    "none": the positions whose logits are wanted."""

    token_ids: Sequence[int]
    start: int
    slot: int
    pages: Sequence[int]
    logits: str = "last"


@dataclass(frozen=True, slots=True)
class CompressPlan:
    """What the compressors of one ratio do in this step; see ops/compress_insert for the fields.

    visible: int64 [T], entries each token may attend. max_visible: the largest of them.
    cos_sin: float32 [E, R] at the first token of each window that comes due.
    """

    pages: Pages
    visible: torch.Tensor
    max_visible: int
    pool_rows: torch.Tensor
    entry_rows: torch.Tensor
    keep_tokens: torch.Tensor
    keep_rows: torch.Tensor
    cos_sin: torch.Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """One step. All index tensors are int64; T tokens, neighbours of one sequence in order. A
    padding lane has token id, slots and rows -1, sequence 0 and nothing visible.

    token_ids, positions, sequence: [T]. window_slots: [T], cache row each token's key is written
    to. window_rows: [T, window], rows it attends, oldest first, -1 absent. commit_from, commit_to:
    staging rows to copy into rings afterwards. cos_sin_window: float32 [T, R] for ratio-0 layers,
    cos_sin_compressed for the others. plans: by ratio. logits_rows: [L] tokens whose logits are
    wanted, None for all. single: every sequence has one token in this step (decode).
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    sequence: torch.Tensor
    window_slots: torch.Tensor
    window_rows: torch.Tensor
    commit_from: torch.Tensor
    commit_to: torch.Tensor
    cos_sin_window: torch.Tensor
    cos_sin_compressed: torch.Tensor
    plans: dict[int, CompressPlan]
    logits_rows: torch.Tensor | None
    single: bool


class BatchBuilder:
    """Turns chunks into a Batch for one model and pool."""

    def __init__(self, config: ModelConfig, pool: CachePool, device: torch.device) -> None:
        self.config, self.pool, self.device = config, pool, device
        rope = config.qk_rope_head_dim
        self.freqs_window = frequencies(config.rope, rope, compressed=False).to(device)
        self.freqs_compressed = frequencies(config.rope, rope, compressed=True).to(device)
        self.ratios = tuple(r for r in RATIOS if r in config.compress_ratios)

    def build(self, chunks: Sequence[Chunk]) -> Batch:
        """Lay out one step. Chunks belong to different sequences and are not empty."""
        lengths = [len(c.token_ids) for c in chunks]
        assert all(lengths) and sum(lengths) <= self.pool.staging, (lengths, self.pool.staging)
        offsets = np.cumsum([0, *lengths])
        positions = np.concatenate(
            [np.arange(c.start, c.start + n) for c, n in zip(chunks, lengths, strict=True)]
        )
        sequence = np.repeat(np.arange(len(chunks)), lengths)
        window = [self._window(c, int(o)) for c, o in zip(chunks, offsets, strict=False)]
        commits = [w[2] for w in window]
        index = self._tensor
        position_tensor = index(positions)
        return Batch(
            token_ids=index(np.concatenate([np.asarray(c.token_ids) for c in chunks])),
            positions=position_tensor,
            sequence=index(sequence),
            window_slots=index(np.concatenate([w[0] for w in window])),
            window_rows=index(np.concatenate([w[1] for w in window])),
            commit_from=index(np.concatenate([c[0] for c in commits])),
            commit_to=index(np.concatenate([c[1] for c in commits])),
            cos_sin_window=cos_sin(position_tensor, self.freqs_window),
            cos_sin_compressed=cos_sin(position_tensor, self.freqs_compressed),
            plans={r: self._plan(r, chunks, offsets, positions) for r in self.ratios},
            logits_rows=index(_logits_rows(chunks, offsets)),
            single=all(n == 1 for n in lengths),
        )

    def _tensor(self, values: IntArray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(self.device)

    def _window(self, chunk: Chunk, offset: int) -> tuple[IntArray, IntArray, tuple[IntArray, ...]]:
        """(rows written [n], rows attended [n, window], (commit source, destination))."""
        size, n, base = self.pool.window, len(chunk.token_ids), chunk.slot * self.pool.window
        positions = np.arange(chunk.start, chunk.start + n)
        attended = positions[:, None] + np.arange(1 - size, 1)
        ring = np.where(attended >= 0, base + attended % size, -1)
        nothing = np.empty(0, dtype=np.int64)
        if n == 1:
            return ring[:, -1], ring, (nothing, nothing)
        staging = self.pool.staging_row + offset
        fresh = staging + attended - chunk.start
        kept = positions[-size:]
        commit = (staging + kept - chunk.start, base + kept % size)
        rows = np.where(attended >= chunk.start, fresh, ring)
        return staging + np.arange(n), rows, commit

    def _plan(
        self, ratio: int, chunks: Sequence[Chunk], offsets: IntArray, positions: IntArray
    ) -> CompressPlan:
        ring, page_rows = ring_rows(ratio), PAGE_TOKENS // ratio
        pool_rows, entry_rows, keep_tokens, keep_rows, firsts = [], [], [], [], []
        for chunk, offset in zip(chunks, offsets, strict=False):
            end, base = chunk.start + len(chunk.token_ids), chunk.slot * ring
            entries = np.arange(chunk.start // ratio, end // ratio)
            pooled = (entries[:, None] + 1) * ratio + np.arange(-ring, 0)
            fresh = offset + pooled - chunk.start
            state = -2 - (base + pooled % ring)
            rows = np.where(pooled >= chunk.start, fresh, state)
            pool_rows.append(np.where(pooled >= 0, rows, -1))
            page = np.asarray(chunk.pages, dtype=np.int64)[entries // page_rows]
            entry_rows.append(page * page_rows + entries % page_rows)
            kept = np.arange(max(chunk.start, end - ring), end)
            keep_tokens.append(offset + kept - chunk.start)
            keep_rows.append(base + kept % ring)
            firsts.append(entries * ratio)
        visible = (positions + 1) // ratio
        return CompressPlan(
            pages=Pages(self._page_table(chunks), page_rows),
            visible=self._tensor(visible),
            max_visible=int(visible.max()),
            pool_rows=self._tensor(np.concatenate(pool_rows)),
            entry_rows=self._tensor(np.concatenate(entry_rows)),
            keep_tokens=self._tensor(np.concatenate(keep_tokens)),
            keep_rows=self._tensor(np.concatenate(keep_rows)),
            cos_sin=cos_sin(self._tensor(np.concatenate(firsts)), self.freqs_compressed),
        )

    def _page_table(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        """int64 [S, P], only as wide as this step's longest sequence; unused places name page 0."""
        used = [-(-(c.start + len(c.token_ids)) // PAGE_TOKENS) for c in chunks]
        table = np.zeros((len(chunks), max(used)), dtype=np.int64)
        for row, (chunk, count) in enumerate(zip(chunks, used, strict=True)):
            table[row, :count] = chunk.pages[:count]
        return self._tensor(table)


def _logits_rows(chunks: Sequence[Chunk], offsets: IntArray) -> IntArray:
    rows = []
    for chunk, begin, end in zip(chunks, offsets[:-1], offsets[1:], strict=True):
        first = {"all": begin, "last": end - 1, "none": end}[chunk.logits]
        rows.append(np.arange(first, end))
    return np.concatenate(rows)
