"""Inputs for embed: repeated ids, both ends of the table, padding, NaN in every row not named."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.operands import normal

BF16, FP32 = torch.bfloat16, torch.float32


def make(token_ids: tuple[int, ...], *, width: int = 64, dtype: torch.dtype = BF16) -> Make:
    """A table of 97 rows in which every row that token_ids does not name is NaN."""

    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        weight = normal(generator, 97, width, device=device, dtype=dtype)
        unread = [i for i in range(97) if i not in token_ids]
        weight[unread] = float("nan")
        ids = torch.tensor(token_ids, dtype=torch.int64, device=device)
        return {"token_ids": ids, "weight": weight, "copies": 4}

    return build


CASES = (
    Case("empty", make(())),
    Case("one", make((5,))),
    Case("ends", make((0, 96))),
    Case("repeated", make((7, 7, 3, 7, 0))),
    Case("padded", make((4, -1, 9, -1, -1))),
    Case("only_padding", make((-1, -1))),
    Case("ragged", make(tuple(range(3, 70)), width=96)),
    Case("exact", make((1, 2, 3), dtype=FP32)),
)
