"""Inputs for decode_metadata: every residue, page crossings, padding, stale and poisoned buffers.

A lane is a position, or -1 for padding. Positions are moved at random by whole pages where `moved`,
so that a captured call meets other values at replay.
"""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.decode_metadata import DecodeRows, EntryRows

PAD = -1
PAGE, PAGES = 128, 8200


def make(
    positions: tuple[int, ...],
    *,
    ratios: tuple[int, ...] = (4, 128),
    window: int = 128,
    rope: int = 64,
    some: bool = False,
    moved: bool = False,
) -> Make:
    """some: only lanes whose entry exists are due, else all are. The buffers hold rubbish."""

    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        count = len(positions)
        lanes = torch.zeros(4, count + 3, dtype=torch.int64)[:, :count]
        slots = torch.randperm(count + 2, generator=generator) + 1
        pages = torch.randperm(count + 2, generator=generator) + 1
        shift = torch.randint(0, 60, (count,), generator=generator).tolist()
        for t, position in enumerate(positions):
            place = position + (PAGE * shift[t] if moved else 0)
            real = (7 + t, place, int(slots[t]), int(pages[t]))
            lanes[:, t] = torch.tensor(real if position >= 0 else (-1, 0, -1, 0))
        table = torch.randint(1, 99, (count + 3, PAGES), generator=generator)
        table[0] = 0
        due = [_due(positions, ratio) if some else list(range(count)) for ratio in ratios]
        plan = _rubbish(count, [len(d) for d in due], ratios, window, rope)
        moved_plan = _to(plan, device)
        steps = torch.arange(0, rope, 2) / rope
        return {
            "lanes": lanes.to(device),
            "due": tuple(torch.tensor(d, dtype=torch.int64, device=device) for d in due),
            "table": table.to(device),
            "freqs_window": (1e4**-steps).to(device),
            "freqs_compressed": (1.6e5**-steps).to(device),
            "out": moved_plan,
        }

    return build


def _due(positions: tuple[int, ...], ratio: int) -> list[int]:
    return [t for t, p in enumerate(positions) if p >= 0 and (p + 1) % ratio == 0]


def _rubbish(
    count: int, due: list[int], ratios: tuple[int, ...], window: int, rope: int
) -> DecodeRows:
    def index(*shape: int) -> torch.Tensor:
        return torch.full(shape, -77, dtype=torch.int64)

    def turn(rows: int) -> torch.Tensor:
        return torch.full((rows, rope), torch.nan)

    entries = tuple(
        EntryRows(r, index(count), index(count), index(e, 8 if r == 4 else r), index(e), turn(e))
        for r, e in zip(ratios, due, strict=True)
    )
    lines = (index(count), index(count), index(count), index(count, window))
    return DecodeRows(*lines, turn(count), turn(count), entries)


def _to(plan: DecodeRows, device: torch.device) -> DecodeRows:
    entries = tuple(
        EntryRows(
            one.ratio,
            one.visible.to(device),
            one.keep_rows.to(device),
            one.pool_rows.to(device),
            one.entry_rows.to(device),
            one.cos_sin.to(device),
        )
        for one in plan.entries
    )
    return DecodeRows(
        plan.sequence.to(device),
        plan.window_slots.to(device),
        plan.keep_tokens.to(device),
        plan.window_rows.to(device),
        plan.cos_sin_window.to(device),
        plan.cos_sin_compressed.to(device),
        entries,
    )


RAGGED = (0, 3, 4, 126, 127, 128, 129, 255, 256, 1023, 5, 700, 131)
CASES = (
    Case("empty", make(())),
    Case("one", make((5,))),
    Case("one_with_both_entries", make((127,))),
    Case("first_token", make((0,))),
    Case("residues", make(tuple(range(9)))),
    Case("ragged", make(RAGGED)),
    Case("ragged_moved", make(RAGGED, moved=True)),
    Case("some_due", make(RAGGED, some=True)),
    Case("none_due", make((1, 5, 130), some=True)),
    Case("padded", make((*RAGGED, PAD, PAD, PAD), moved=True)),
    Case("padding_between", make((PAD, 127, PAD, 3))),
    Case("only_padding", make((PAD, PAD))),
    Case("far", make((1_048_575, 1_000_003, 2_047, 2_048))),
    Case("without_compressors", make(RAGGED, ratios=())),
    Case("ratio_128_alone", make(RAGGED, ratios=(128,))),
    Case("small_window", make(RAGGED, window=16, rope=16)),
    Case("many", make(tuple(range(60, 260)), moved=True)),
)
