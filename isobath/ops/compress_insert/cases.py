"""Inputs for compress_insert: chunks that start at every residue, several sequences in one step.

A step is a list of (start, tokens) a sequence. What the ring must already hold is there, the rest
of ring and cache is NaN.
"""

import torch

from isobath.cache.layout import RowLayout, index_row, kv_row
from isobath.cache.view import allocate
from isobath.numerics.dialect import OCP, Dialect
from isobath.ops.contract import Arguments, Case, Make

Steps = tuple[tuple[int, int], ...]


def make(
    steps: Steps,
    ratio: int,
    *,
    layout: RowLayout | None = None,
    rope: int = 64,
    dtype: torch.dtype = torch.bfloat16,
    padded: bool = False,
    hostile: str = "",
) -> Make:
    """padded: one entry that is stored nowhere and one kept token that is none are added."""
    row = layout or kv_row(512, 64)

    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        plan = Plan(steps, ratio, padded)
        channels = 2 * row.width if ratio == 4 else row.width
        fresh = torch.randn(len(plan.positions), 2, channels, generator=generator)
        old = torch.randn((len(steps) + 1) * plan.ring, 2, channels, generator=generator)
        norm_weight = 1 + 0.1 * torch.randn(row.width, generator=generator)
        if hostile == "nan":
            fresh[0, 0, 3] = torch.nan
        elif hostile == "zero":
            fresh[:, 0] = 0
        elif hostile == "edge":  # equal values are their own norm: amax is the weight's
            fresh[:, 0] = 1
            norm_weight[:] = 1
            norm_weight[0] = OCP.quant_max * 2.0**-6
            norm_weight[64] = torch.nextafter(
                torch.tensor(OCP.quant_max * 2.0**-6), torch.tensor(8.0)
            )
        state = torch.full_like(old, torch.nan)
        state[plan.held] = old[plan.held]
        stored = [e >= 0 for e in plan.entries]
        entry_rows = torch.randperm(len(stored) + 3, generator=generator)[: len(stored)] + 1
        entry_rows[~torch.tensor(stored, dtype=torch.bool)] = -1
        firsts = torch.tensor(plan.entries).clamp_min(0).view(-1, 1) * float(ratio)
        angle = firsts * 10.0 ** (-torch.arange(rope // 2) / 8)

        def index(values: list[int]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.int64, device=device)

        return {
            "fresh": fresh.to(device),
            "ape": torch.randn(ratio, channels, generator=generator).to(device),
            "norm_weight": norm_weight.to(device),
            "cos_sin": torch.cat((angle.cos(), angle.sin()), 1).to(device),
            "state": state.to(device),
            "cache": allocate(len(stored) + 5, row, dialect, device),
            "positions": index(plan.positions),
            "pool_rows": index(plan.sources).view(-1, plan.ring),
            "entry_rows": entry_rows.to(device),
            "keep_tokens": index(plan.keep_tokens),
            "keep_rows": index(plan.keep_rows),
            "dtype": dtype,
            "eps": 1e-6,
            "single": all(tokens == 1 for _, tokens in steps),
        }

    return build


class Plan:
    """The index arguments of a step, as lists, and `held`: the state rows that hold older tokens.

    Sequence s has state rows (s + 1) * ring and on. entries: number of each entry, -1 for padding.
    """

    def __init__(self, steps: Steps, ratio: int, padded: bool) -> None:
        self.ring = 8 if ratio == 4 else ratio
        self.positions: list[int] = []
        self.sources: list[int] = [-1] * self.ring if padded else []
        self.entries: list[int] = [-1] if padded else []
        self.keep_tokens: list[int] = [-1] if padded else []
        self.keep_rows: list[int] = [-1] if padded else []
        self.held: list[int] = []
        for s, (start, tokens) in enumerate(steps):
            self._add((s + 1) * self.ring, start, start + tokens, ratio)
        if padded:
            self.keep_tokens.append(-1)
            self.keep_rows.append(-1)

    def _add(self, base: int, start: int, end: int, ratio: int) -> None:
        ring, offset = self.ring, len(self.positions)

        def source(position: int) -> int:
            if position < 0:
                return -1
            if position < start:
                return -2 - (base + position % ring)
            return offset + position - start

        for entry in range(start // ratio, end // ratio):
            last = (entry + 1) * ratio
            self.entries.append(entry)
            self.sources += [source(p) for p in range(last - ring, last)]
        self.held += [base + p % ring for p in range(max(0, start - ring), start)]
        for position in range(max(start, end - ring), end):
            self.keep_tokens.append(offset + position - start)
            self.keep_rows.append(base + position % ring)
        self.positions += range(start, end)


SMALL = kv_row(64, 16)
MIXED: Steps = ((7, 1), (4, 9), (3, 1), (0, 5), (12, 1))
LONG_DECODE: Steps = ((127, 1), (130, 1), (255, 1))
CASES = (
    Case("empty", make((), 4)),
    Case("one_without_entry", make(((5, 1),), 4)),
    Case("one_with_entry", make(((7, 1),), 4)),
    Case("first_window", make(((0, 4),), 4)),
    Case("start_residue_0", make(((8, 11),), 4)),
    Case("start_residue_1", make(((9, 11),), 4)),
    Case("start_residue_2", make(((10, 11),), 4)),
    Case("start_residue_3", make(((11, 11),), 4)),
    Case("mixed", make(MIXED, 4)),
    Case("mixed_padded", make(MIXED, 4, padded=True)),
    Case("only_padding", make(((4, 1),), 4, padded=True)),
    Case("ratio_128_decode", make(LONG_DECODE, 128)),
    Case("ratio_128_decode_padded", make(LONG_DECODE, 128, padded=True)),
    Case("ratio_128_prefill", make(((100, 300),), 128)),
    Case("ratio_128_mixed", make(((126, 3), (0, 128), (383, 1)), 128)),
    Case("index_row", make(MIXED, 4, layout=index_row(128))),
    Case("small", make(MIXED, 4, layout=SMALL, rope=16)),
    Case("small_ratio_128", make(((120, 9), (5, 2)), 128, layout=SMALL, rope=16)),
    Case("small_ratio_128_decode", make(LONG_DECODE, 128, layout=SMALL, rope=16, padded=True)),
    Case("many_due", make(LONG_DECODE * 44, 128, layout=SMALL, rope=16), small=False),
    Case("plain", make(MIXED, 4, layout=kv_row(512, 64, plain=True), dtype=torch.float32)),
    Case("plain_index_row", make(MIXED, 4, layout=index_row(128, plain=True), dtype=torch.float32)),
    Case("zero_values", make(((0, 8),), 4, hostile="zero")),
    Case("amax_edge", make(((0, 9),), 4, dtype=torch.float32, hostile="edge")),
    Case("nan_in", make(((0, 13), (3, 1)), 4, hostile="nan")),
    Case("far", make(MIXED, 4, padded=True), far=True),
    Case("far_ratio_128", make(((127, 1), (255, 1)), 128), far=True),
)
