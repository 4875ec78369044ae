"""Inputs for compress_insert_pair: two of compress_insert's on the same windows, side by side."""

import torch

from isobath.cache.layout import RowLayout, index_row, kv_row
from isobath.numerics.dialect import Dialect
from isobath.ops.compress_insert.cases import MIXED, SMALL, Steps
from isobath.ops.compress_insert.cases import make as make_one
from isobath.ops.contract import Arguments, Case, Make

BF16 = torch.bfloat16


def make(
    steps: Steps,
    *,
    layout: RowLayout | None = None,
    index_layout: RowLayout | None = None,
    rope: int = 64,
    dtype: torch.dtype = BF16,
    padded: bool = False,
    hostile: str = "",
) -> Make:
    """As for compress_insert. hostile: in the first compressor's inputs. A column that belongs to
    neither compressor follows, and is NaN."""

    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        first = make_one(
            steps, 4, layout=layout, rope=rope, dtype=dtype, padded=padded, hostile=hostile
        )
        second = make_one(
            steps, 4, layout=index_layout or index_row(128), rope=rope, dtype=dtype, padded=padded
        )
        args, other = (one(dialect, device, generator) for one in (first, second))
        behind = torch.full((len(args["positions"]), 1), torch.nan, device=device)
        fresh = (args["fresh"].flatten(1), other["fresh"].flatten(1), behind)
        return args | {
            "fresh": torch.cat(fresh, 1),
            "index_ape": other["ape"],
            "index_norm": other["norm_weight"],
            "index_state": other["state"],
            "index_cache": other["cache"],
        }

    return build


CASES = (
    Case("empty", make(())),
    Case("one_without_entry", make(((5, 1),))),
    Case("one_with_entry", make(((7, 1),))),
    Case("decode", make(((7, 1), (4, 1), (3, 1), (0, 1), (12, 1)))),
    Case("decode_padded", make(((7, 1), (11, 1), (4, 1)), padded=True)),
    Case("start_residue_2", make(((10, 11),))),
    Case("mixed", make(MIXED)),
    Case("mixed_padded", make(MIXED, padded=True)),
    Case("small", make(MIXED, layout=SMALL, index_layout=index_row(32), rope=16)),
    Case(
        "plain",
        make(
            MIXED,
            layout=kv_row(512, 64, plain=True),
            index_layout=index_row(128, plain=True),
            dtype=torch.float32,
        ),
    ),
    Case("zero_values", make(((0, 8),), hostile="zero")),
    Case("nan_in", make(((0, 13), (3, 1)), hostile="nan")),
    Case("far", make(MIXED, padded=True), far=True),
)
