"""Static decode metadata: the buffers that a decode step reads, filled in place every step.

Allocated once at their largest. A step is one pinned block of integers a lane, copied to the device
as it is (token id, position, slot, page of that position), and the op decode_metadata, which
computes everything else there: so a captured step reads fresh values at addresses that never
change. Page numbers stay on the device from step to step; only a sequence that is new to its slot
has its whole line copied, before the step.

Takes steps in which every sequence has one token; any other is laid out by model/batch.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from isobath.cache.pool import PAGE_TOKENS, CachePool, ring_rows
from isobath.cache.view import Pages
from isobath.config import ModelConfig
from isobath.model.batch import RATIOS, Batch, Chunk, CompressPlan, IntArray
from isobath.model.rope import frequencies
from isobath.ops.decode_metadata import DecodeRows, EntryRows
from isobath.ops.placement import tensors
from isobath.ops.table import OpTable

LINES = 4
"""Of the block that describe lanes: token id, position, slot, page. The lanes due follow."""
_PADDING = np.array([[-1], [0], [-1], [0]])


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a decode step does not change when it is replayed.

    lanes: of the batch, padding included. due: for each ratio, for how many lanes it is asked
    whether an entry comes due: all lanes, or exactly those whose does. context: a bound on the
    tokens of a sequence, this step's included.
    """

    lanes: int
    due: tuple[int, ...]
    context: int


class DecodeMetadata:
    """The static buffers of one engine, for up to `max_lanes` sequences of `max_context` tokens."""

    def __init__(
        self,
        config: ModelConfig,
        pool: CachePool,
        ops: OpTable,
        device: torch.device,
        *,
        max_lanes: int,
        max_context: int,
    ) -> None:
        self.ops, self.max_lanes, self.max_context = ops, max_lanes, max_context
        self.ratios = tuple(r for r in RATIOS if r in config.compress_ratios)
        rope = config.qk_rope_head_dim
        self._window, self._compressed = (
            frequencies(config.rope, rope, compressed=c).to(device) for c in (False, True)
        )
        lines, pages = LINES + len(self.ratios), -(-max_context // PAGE_TOKENS)
        self._host = torch.zeros(lines, max_lanes, dtype=torch.int64, pin_memory=_is_gpu(device))
        self._lines: IntArray = self._host.numpy()
        self._block = torch.zeros(lines, max_lanes, dtype=torch.int64, device=device)
        self._table = torch.zeros(pool.slots, pages, dtype=torch.int64, device=device)
        self._all = _allocate(max_lanes, self.ratios, pool.window, rope, device)
        self._each = tensors(self._all)
        self._none = torch.empty(0, dtype=torch.int64, device=device)
        # Whose page numbers a line of the table holds, as the list itself, and how many of them.
        self._owners: list[Sequence[int] | None] = [None] * pool.slots
        self._known = np.zeros(pool.slots, dtype=np.int64)

    def shape_of(self, chunks: Sequence[Chunk]) -> Shape:
        """The shape that fits exactly."""
        positions = np.array([c.start for c in chunks])
        due = tuple(int(((positions + 1) % r == 0).sum()) for r in self.ratios)
        return Shape(len(chunks), due, int(positions.max()) + 1)

    def fill(self, chunks: Sequence[Chunk], shape: Shape) -> None:
        """Copy a step to the device: one chunk of one token a sequence, slots distinct. The host
        block is free again once the device has gone past the copy, as it has when the step's tokens
        were read."""
        count, lines = len(chunks), self._lines
        assert count <= shape.lanes <= self.max_lanes, (count, shape, self.max_lanes)
        positions = np.array([c.start for c in chunks])
        slots = np.array([c.slot for c in chunks])
        places = positions // PAGE_TOKENS
        lines[0, :count] = [c.token_ids[0] for c in chunks]
        lines[1, :count], lines[2, :count] = positions, slots
        lines[3, :count] = [c.pages[p] for c, p in zip(chunks, places.tolist(), strict=True)]
        lines[:LINES, count : shape.lanes] = _PADDING
        assert positions.max() < shape.context <= self.max_context, (positions.max(), shape)
        for line, ratio, due in zip(lines[LINES:], self.ratios, shape.due, strict=True):
            if due == shape.lanes:
                line[:due] = np.arange(due)
            else:
                line[:due] = np.flatnonzero((positions + 1) % ratio == 0)
        self._copy_pages(chunks, slots, places)
        self._block.copy_(self._host, non_blocking=True)

    def compute(self, shape: Shape) -> Batch:
        """Fill the static tensors from the block, on the device, and return the views of them that
        make up a batch of this shape. Capturable; the views' addresses are always the same."""
        self.ops.decode_metadata(
            self._block[:LINES, : shape.lanes],
            tuple(self._block[LINES + i, :due] for i, due in enumerate(shape.due)),
            self._table,
            self._window,
            self._compressed,
            out=self._rows(shape),
        )
        return self.batch(shape)

    def copy(self, source: Batch, shape: Shape) -> None:
        """Fill the static tensors from a decode step that was laid out on the host, as it would be
        without decode_metadata: a copy for each tensor. Lines of the table are lanes' here."""
        lanes, rows, table = shape.lanes, self._rows(shape), self._table
        _put(self._block[0, :lanes], source.token_ids, -1)
        _put(self._block[1, :lanes], source.positions, 0)
        _put(rows.sequence, source.sequence, 0)
        _put(rows.window_slots, source.window_slots, -1)
        _put(rows.window_rows, source.window_rows, -1)
        _put(rows.cos_sin_window, source.cos_sin_window, 0)
        _put(rows.cos_sin_compressed, source.cos_sin_compressed, 0)
        for one in rows.entries:
            plan = source.plans[one.ratio]
            pages = plan.pages.table
            table[: len(pages), : pages.shape[1]].copy_(pages)
            _put(rows.keep_tokens, plan.keep_tokens, -1)
            _put(one.visible, plan.visible, 0)
            _put(one.keep_rows, plan.keep_rows, -1)
            _put(one.pool_rows, plan.pool_rows, -1)
            _put(one.entry_rows, plan.entry_rows, -1)
            _put(one.cos_sin, plan.cos_sin, 0)

    def addresses(self) -> list[int]:
        """Where every buffer is; a captured graph relies on them."""
        own = (self._block, self._table, self._window, self._compressed)
        return [t.data_ptr() for t in (*own, *self._each)]

    def named_buffers(self) -> dict[str, torch.Tensor]:
        """Every static tensor on the device, whole."""
        seen = {"block": self._block, "table": self._table}
        seen |= {"freqs_window": self._window, "freqs_compressed": self._compressed}
        for field in fields(DecodeRows):
            if field.name != "entries":
                seen[field.name] = getattr(self._all, field.name)
        for one in self._all.entries:
            names = [f.name for f in fields(EntryRows) if f.name != "ratio"]
            seen |= {f"{name}, ratio {one.ratio}": getattr(one, name) for name in names}
        return seen

    def _copy_pages(self, chunks: Sequence[Chunk], slots: IntArray, places: IntArray) -> None:
        """Bring lines of the table up to date that a single new page does not."""
        owners, known = self._owners, self._known
        stale = {lane for lane, c in enumerate(chunks) if owners[c.slot] is not c.pages}
        stale.update(np.flatnonzero(known[slots] < places).tolist())
        known[slots] = np.maximum(known[slots], places + 1)
        if not stale:
            return
        lanes = sorted(stale)
        extent = [max(len(chunks[i].pages), known[slots[i]]) for i in lanes]
        numbers = np.zeros((len(lanes), min(max(extent), self._table.shape[1])), dtype=np.int64)
        for line, lane in zip(numbers, lanes, strict=True):
            pages = chunks[lane].pages[: len(line)]
            line[: len(pages)] = pages
            owners[slots[lane]], known[slots[lane]] = chunks[lane].pages, len(pages)
        index, device = torch.from_numpy(slots[lanes]), self._table.device
        part = self._table[:, : numbers.shape[1]]
        part.index_copy_(0, index.to(device), torch.from_numpy(numbers).to(device))

    def _rows(self, shape: Shape) -> DecodeRows:
        lanes, rows = shape.lanes, self._all
        entries = tuple(
            EntryRows(
                one.ratio,
                one.visible[:lanes],
                one.keep_rows[:lanes],
                one.pool_rows[:due],
                one.entry_rows[:due],
                one.cos_sin[:due],
            )
            for one, due in zip(rows.entries, shape.due, strict=True)
        )
        return DecodeRows(
            rows.sequence[:lanes],
            rows.window_slots[:lanes],
            rows.keep_tokens[:lanes],
            rows.window_rows[:lanes],
            rows.cos_sin_window[:lanes],
            rows.cos_sin_compressed[:lanes],
            entries,
        )

    def batch(self, shape: Shape) -> Batch:
        """The views of the static tensors that make up a batch of this shape, as they are."""
        rows = self._rows(shape)
        token_ids, positions = self._block[0, : shape.lanes], self._block[1, : shape.lanes]
        table = self._table[:, : -(-shape.context // PAGE_TOKENS)]
        plans = {
            one.ratio: CompressPlan(
                pages=Pages(table, PAGE_TOKENS // one.ratio),
                visible=one.visible,
                max_visible=shape.context // one.ratio,
                pool_rows=one.pool_rows,
                entry_rows=one.entry_rows,
                keep_tokens=rows.keep_tokens,
                keep_rows=one.keep_rows,
                cos_sin=one.cos_sin,
            )
            for one in rows.entries
        }
        return Batch(
            token_ids=token_ids,
            positions=positions,
            sequence=rows.sequence,
            window_slots=rows.window_slots,
            window_rows=rows.window_rows,
            commit_from=self._none,
            commit_to=self._none,
            cos_sin_window=rows.cos_sin_window,
            cos_sin_compressed=rows.cos_sin_compressed,
            plans=plans,
            logits_rows=None,
            single=True,
        )


def _allocate(
    lanes: int, ratios: tuple[int, ...], window: int, rope: int, device: torch.device
) -> DecodeRows:
    def index(*shape: int) -> torch.Tensor:
        return torch.full(shape, -1, dtype=torch.int64, device=device)

    def turn() -> torch.Tensor:
        return torch.zeros(lanes, rope, device=device)

    entries = tuple(
        EntryRows(r, index(lanes), index(lanes), index(lanes, ring_rows(r)), index(lanes), turn())
        for r in ratios
    )
    lines = (index(lanes), index(lanes), index(lanes), index(lanes, window))
    return DecodeRows(*lines, turn(), turn(), entries)


def _put(static: torch.Tensor, values: torch.Tensor, padding: float) -> None:
    """Copy values over the first lines, and padding over the rest."""
    static[: len(values)].copy_(values)
    static[len(values) :].fill_(padding)


def _is_gpu(device: torch.device) -> bool:
    return device.type == "cuda"
