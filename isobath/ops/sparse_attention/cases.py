"""Inputs for sparse_attention: rings, staging rows and pages of caches that are NaN elsewhere.

A step is a list of (start, tokens) a sequence. Its window rows lie scattered, as do its pages.
"""

from dataclasses import dataclass

import torch

from isobath.cache.layout import kv_row
from isobath.cache.view import CacheView, Pages, allocate, write_rows
from isobath.numerics.dialect import FNUZ, OCP, Dialect
from isobath.ops.contract import Arguments, Case
from isobath.ops.operands import lines_apart

Steps = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Inputs:
    """Makes one case. ratio 0: window only. topk: selected entries a token (0: all visible ones).
    padded: tokens without window, entries or sequence of their own that are added. other: the
    compressed cache speaks the other dialect."""

    steps: Steps
    ratio: int = 4
    topk: int = 0
    heads: int = 4
    width: int = 512
    rope: int = 64
    window: int = 128
    page_rows: int = 8
    plain: bool = False
    padded: int = 0
    other: bool = False
    hostile: str = ""

    def __call__(
        self, dialect: Dialect, device: torch.device, generator: torch.Generator
    ) -> Arguments:
        lengths = [n for _, n in self.steps] + [1] * self.padded
        positions = [p for start, n in self.steps for p in range(start, start + n)]
        positions += [-1] * self.padded
        sequence = [s for s, n in enumerate(lengths) for _ in range(n)]
        angle = torch.tensor(positions).view(-1, 1) * 10.0 ** (-torch.arange(self.rope // 2) / 8)
        q = torch.randn(len(positions), self.heads, self.width, generator=generator)
        if self.hostile == "nan_query":
            q[0, 0, 0] = torch.nan
        window, window_rows = self._window(dialect, generator, positions, sequence)
        args: Arguments = {
            "q": q.to(device, torch.float32 if self.plain else torch.bfloat16),
            "window": CacheView(window.bytes.to(device), window.layout, dialect),
            "compressed": None,
            "sink": torch.randn(self.heads, generator=generator).to(device),
            "cos_sin": torch.cat((angle.cos(), angle.sin()), 1).float().to(device),
            "window_rows": window_rows.to(device),
            "pages": None,
            "sequence": torch.tensor(sequence, dtype=torch.int64, device=device),
            "visible": None,
            "selected": None,
            "scale": self.width**-0.5,
            "single": all(n == 1 for n in lengths),
        }
        if self.ratio:
            args |= self._compressed(dialect, device, generator, positions)
        return args

    def _window(
        self,
        dialect: Dialect,
        generator: torch.Generator,
        positions: list[int],
        sequence: list[int],
    ) -> tuple[CacheView, torch.Tensor]:
        """A row for every position that some token sees, in random order; the null row is NaN."""
        seen = [
            [(s, p) if p >= 0 else None for p in range(last - self.window + 1, last + 1)]
            for s, last in zip(sequence, positions, strict=True)
        ]
        keys = sorted({key for line in seen for key in line if key is not None})
        order = (torch.randperm(len(keys), generator=generator) + 1).tolist()
        row = dict(zip(keys, order, strict=True))
        layout = kv_row(self.width, self.rope, plain=self.plain)
        cache = allocate(len(keys) + 2, layout, dialect, torch.device("cpu"))
        values = torch.randn(len(keys), self.width, generator=generator)
        if self.hostile == "nan_window" and keys:
            values[0, 3] = torch.nan
        elif self.hostile == "zero_keys":
            values[:] = 0
        elif self.hostile == "edge":
            values.clamp_(-1, 1)
            values[:, 0] = OCP.quant_max * 2.0**-8
            values[::2, 0] = torch.nextafter(
                torch.tensor(OCP.quant_max * 2.0**-8), torch.tensor(2.0)
            )
        write_rows(cache, torch.tensor(order, dtype=torch.int64), values)
        rows = [[-1 if key is None else row[key] for key in line] for line in seen]
        return cache, torch.tensor(rows, dtype=torch.int64).view(len(rows), self.window)

    def _compressed(
        self,
        dialect: Dialect,
        device: torch.device,
        generator: torch.Generator,
        positions: list[int],
    ) -> Arguments:
        """Entries up to each sequence's last token, in random pages."""
        counts = [(start + n) // self.ratio for start, n in self.steps] + [0] * self.padded
        pages_each = max((-(-c // self.page_rows) for c in counts), default=0)
        num_pages = len(counts) * pages_each + 2
        free = torch.randperm(num_pages - 1, generator=generator) + 1
        table = torch.zeros(len(counts), pages_each, dtype=torch.int64)
        layout = kv_row(self.width, self.rope, plain=self.plain)
        spoken = {OCP: FNUZ, FNUZ: OCP}[dialect] if self.other else dialect
        cache = allocate(num_pages * self.page_rows, layout, spoken, torch.device("cpu"))
        pages = Pages(table, self.page_rows)
        for s, count in enumerate(counts):
            used = -(-count // self.page_rows)
            table[s, :used] = free[s * pages_each : s * pages_each + used]
            values = torch.randn(count, self.width, generator=generator)
            if self.hostile == "nan_entry" and count:
                values[-1, 70] = torch.nan
            rows = pages.rows(torch.tensor(s), torch.arange(count))
            write_rows(cache, rows, values)
        visible = torch.tensor([(p + 1) // self.ratio for p in positions], dtype=torch.int64)
        return {
            "compressed": CacheView(cache.bytes.to(device), layout, spoken),
            "pages": Pages(lines_apart(table, device), self.page_rows),
            "visible": visible.to(device),
            "selected": self._selected(visible, generator, device) if self.topk else None,
        }

    def _selected(
        self, visible: torch.Tensor, generator: torch.Generator, device: torch.device
    ) -> torch.Tensor:
        """Random visible entries in ascending order, then -1."""
        chosen = torch.full((len(visible), self.topk), -1, dtype=torch.int64)
        for t, count in enumerate(visible.tolist()):
            some = torch.randperm(count, generator=generator)[: self.topk].sort().values
            chosen[t, : len(some)] = some
        return chosen.to(device)


DECODE: Steps = ((0, 1), (5, 1), (127, 1), (300, 1))
MIXED: Steps = ((9, 1), (3, 21), (200, 1), (0, 3), (130, 70))
CASES = (
    Case("empty", Inputs(())),
    Case("first_token", Inputs(((0, 1),))),
    Case("one", Inputs(((200, 1),))),
    Case("window_only", Inputs(DECODE, ratio=0)),
    Case("window_only_prefill", Inputs(((0, 9), (120, 70)), ratio=0)),
    Case("decode", Inputs(DECODE)),
    Case("decode_selected", Inputs(DECODE, topk=16)),
    Case("decode_ratio_128", Inputs(((126, 1), (127, 1), (700, 1)), ratio=128, page_rows=2)),
    Case("decode_padded", Inputs(DECODE, padded=2)),
    Case("decode_selected_padded", Inputs(DECODE, topk=16, padded=1)),
    Case("prefill", Inputs(((0, 150),))),
    Case("prefill_selected", Inputs(((0, 150),), topk=16)),
    Case("prefill_residue_1", Inputs(((1, 10),), topk=2)),
    Case("prefill_residue_2", Inputs(((2, 10),), topk=2)),
    Case("prefill_residue_3", Inputs(((3, 10),), topk=2)),
    Case("mixed", Inputs(MIXED)),
    Case("mixed_selected", Inputs(MIXED, topk=8)),
    Case("mixed_padded", Inputs(MIXED, topk=8, padded=1)),
    Case("mixed_ratio_128", Inputs(((127, 2), (250, 20)), ratio=128, page_rows=2)),
    Case("real_heads", Inputs(((200, 1),), heads=64, topk=32)),
    Case("small", Inputs(MIXED, width=64, rope=16, window=16, heads=2, topk=4)),
    Case("plain", Inputs(DECODE, plain=True)),
    Case("plain_mixed", Inputs(MIXED, plain=True, topk=8)),
    Case("other_dialect", Inputs(DECODE, other=True)),
    Case("other_dialect_mixed", Inputs(MIXED, other=True, topk=8)),
    Case("zero_keys", Inputs(DECODE, hostile="zero_keys")),
    Case("amax_edge", Inputs(((40, 1), (0, 9)), hostile="edge")),
    Case("nan_query", Inputs(DECODE, hostile="nan_query")),
    Case("nan_window", Inputs(((200, 1), (20, 1)), hostile="nan_window")),
    Case("nan_window_prefill", Inputs(((0, 140),), hostile="nan_window")),
    Case("nan_entry_selected", Inputs(((30, 12),), topk=2, hostile="nan_entry")),
    Case("nan_entry_prefill", Inputs(((0, 16),), hostile="nan_entry")),
)
