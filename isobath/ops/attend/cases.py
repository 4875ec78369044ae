"""Inputs for attend: those of sparse_attention with raw queries, and some of its own.

Its own are what the model's layers look like: 64 heads, more tokens than one, visible entries far
below what the page table could name, and a page table that is wider than a decode step needs.
"""

from dataclasses import dataclass

import torch

from isobath.cache.view import Pages
from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case
from isobath.ops.sparse_attention import cases as parts
from isobath.ops.sparse_attention.cases import DECODE, MIXED, Inputs


@dataclass(frozen=True)
class Raw:
    """inputs: of sparse_attention. spread: powers of ten between the sizes of the query heads.
    spare_pages: places of the page table beyond those in use; they name the null page."""

    inputs: Inputs
    spread: int = 2
    spare_pages: int = 0

    def __call__(
        self, dialect: Dialect, device: torch.device, generator: torch.Generator
    ) -> Arguments:
        args = self.inputs(dialect, device, generator)
        tokens, heads, _ = args["q"].shape
        size = 10.0 ** (self.spread * (torch.rand(tokens, heads, 1, generator=generator) - 0.5))
        args["q"] = (args["q"].float() * size.to(device)).to(args["q"].dtype)
        args["q"][tokens - self.inputs.padded :] = 0
        if self.spare_pages:
            table = torch.nn.functional.pad(args["pages"].table, (0, self.spare_pages))
            args["pages"] = Pages(table, args["pages"].page_rows)
        return args | {"eps": 1e-6}


# A head's scores follow from its norm alone, so a NaN query or key matters as in the part.
CASES = (
    *(Case(case.name, Raw(case.make)) for case in parts.CASES if isinstance(case.make, Inputs)),
    Case("extreme_sizes", Raw(Inputs(DECODE, topk=16), spread=16)),
    Case("spare_pages", Raw(Inputs(DECODE), spare_pages=70)),
    Case("spare_pages_mixed", Raw(Inputs(MIXED, padded=2), spare_pages=70)),
    Case("many_entries", Raw(Inputs(((4500, 1), (40, 1)), page_rows=32))),
    Case("real_window", Raw(Inputs(((400, 1), (77, 1), (0, 1)), ratio=0, heads=64))),
    Case("real_selected", Raw(Inputs(((2600, 1), (90, 1)), topk=512, heads=64, page_rows=32))),
    Case("real_ratio_128", Raw(Inputs(((1100, 1), (5, 1)), ratio=128, heads=64, page_rows=1))),
    Case("far_decode", Raw(Inputs(DECODE, topk=16, padded=1)), far=True),
    Case("far_mixed", Raw(Inputs(MIXED, padded=1)), far=True),
    Case("real_prefill", Raw(Inputs(((140, 5), (0, 3)), topk=16, heads=64, page_rows=32))),
)
