"""Inputs for index_logits: entries scattered over the pages of a cache that is NaN elsewhere."""

import torch

from isobath.cache.layout import index_row
from isobath.cache.view import Pages, allocate, write_rows
from isobath.numerics import fp8, ue8m0
from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.operands import lines_apart


def make(
    lengths: tuple[int, ...],
    visible: tuple[int, ...],
    *,
    heads: int = 4,
    width: int = 128,
    page_rows: int = 4,
    plain: bool = False,
    hostile: str = "",
) -> Make:
    """lengths: tokens of each sequence. visible: entries that its last token sees; a token before
    it sees one fewer, and so on down to 0."""

    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        sequence = torch.tensor([s for s, n in enumerate(lengths) for _ in range(n)]).long()
        seen = [
            max(0, last - back)
            for n, last in zip(lengths, visible, strict=True)
            for back in range(n - 1, -1, -1)
        ]
        width_pages = max((-(-v // page_rows) for v in visible), default=0)
        num_pages = len(lengths) * width_pages + 2
        table = torch.zeros(len(lengths), width_pages, dtype=torch.int64)
        free = torch.randperm(num_pages - 1, generator=generator) + 1
        cache = allocate(num_pages * page_rows, index_row(width, plain=plain), dialect, device)
        for s, count in enumerate(visible):
            used = -(-count // page_rows)
            table[s, :used] = free[s * width_pages : s * width_pages + used]
            entries = torch.arange(count)
            rows = table[s, entries // page_rows] * page_rows + entries % page_rows
            keys = torch.randn(count, width, generator=generator)
            if hostile == "nan_key" and count > 1:
                keys[1, 5] = torch.nan
            elif hostile == "zero_key":
                keys[::2] = 0
            elif hostile == "scales":
                keys *= 2.0 ** torch.randint(-20, 21, (count, 1), generator=generator)
            write_rows(cache, rows.to(device), keys.to(device))
        q = torch.randn(len(sequence), heads, width, generator=generator)
        if hostile == "nan_query":
            q[0, 0, 0] = torch.nan
        weights = torch.randn(len(sequence), heads, generator=generator)
        if not plain:
            quantized = fp8.quantize(q, dialect, (1, width))
            scale = ue8m0.decode(quantized.scale).squeeze(-1)
            # A NaN head keeps a finite weight here: the NaN must come out of its codes.
            q, weights = quantized.data, weights * scale.nan_to_num(1.0)
        return {
            "q": q.to(device),
            "weights": weights.to(device),
            "cache": cache,
            "pages": Pages(lines_apart(table, device), page_rows),
            "sequence": sequence.to(device),
            "visible": torch.tensor(seen, dtype=torch.int64, device=device),
        }

    return build


DECODE = (1, 1, 1)
CASES = (
    Case("empty", make((), ())),
    Case("nothing_visible", make((1,), (0,))),
    Case("one", make((1,), (1,))),
    Case("decode", make(DECODE, (9, 0, 4))),
    Case("page_crossing", make(DECODE, (5, 8, 17))),
    Case("real_heads", make((1, 1), (70, 130), heads=64, page_rows=64)),
    Case("many_tiles", make((1, 1), (300, 650), page_rows=64)),
    Case(
        "flash_decode",
        make((1,) * 1024, tuple(range(1, 1025)), heads=64, page_rows=64),
        small=False,
        large=True,
    ),
    Case("prefill", make((23,), (21,))),
    Case("several_prefills", make((9, 1, 17), (13, 7, 11))),
    Case("mixed", make((1, 12, 1, 5, 1), (6, 9, 0, 3, 22), heads=3)),
    Case("small", make((3, 1), (6, 2), heads=2, width=32)),
    Case("plain", make(DECODE, (9, 0, 4), plain=True)),
    Case("plain_prefill", make((14, 1), (11, 5), plain=True)),
    Case("many_scales", make(DECODE, (9, 3, 4), hostile="scales")),
    Case("zero_keys", make(DECODE, (9, 3, 4), hostile="zero_key")),
    Case("nan_key", make((1, 6), (9, 4), hostile="nan_key")),
    Case("nan_key_prefill", make((9,), (9,), hostile="nan_key")),
    Case("nan_query", make(DECODE, (3, 2, 1), hostile="nan_query")),
    Case("far_decode", make(DECODE, (9, 0, 4)), far=True),
    Case("far_prefill", make((23,), (21,)), far=True),
)
