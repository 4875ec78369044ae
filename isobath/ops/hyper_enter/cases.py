"""Inputs for hyper_enter: those of its parts put together, with and without a block's output."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.hyper_collapse.cases import make as make_collapse
from isobath.ops.hyper_expand.cases import make as make_expand
from isobath.ops.hyper_mix.cases import make as make_mix

BF16, FP32 = torch.bfloat16, torch.float32


def make(
    tokens: int,
    width: int,
    mix: str = "",
    *,
    expand: str = "",
    first: bool = False,
    plain: bool = False,
    count: int = 4,
    dtype: torch.dtype = BF16,
) -> Make:
    """mix, expand: what is hostile in that part's inputs. first: no block came before. plain: x is
    not quantised. Streams are the mixer's, or the expansion's where that is hostile."""

    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        args = make_mix(tokens, width, mix, count=count, dtype=dtype)(dialect, device, generator)
        before = make_expand(tokens, width, expand, count=count, dtype=dtype)(
            dialect, device, generator
        )
        after = make_collapse(tokens, width, count=count, dtype=dtype)(dialect, device, generator)
        if expand:
            args["streams"] = before["streams"]
        absent = dict.fromkeys(("y", "post", "comb")) if first else {}
        args |= {name: before[name] for name in ("y", "post", "comb")} | absent
        args["norm_weight"] = after["norm_weight"]
        return args | {"dialect": None if plain else dialect}

    return build


CASES = (
    Case("empty", make(0, 128)),
    Case("empty_first", make(0, 128, first=True)),
    Case("one", make(1, 256)),
    Case("one_first", make(1, 256, first=True)),
    Case("ragged", make(5, 384)),
    Case("ragged_first", make(5, 384, "equal_streams", first=True)),
    Case("tall", make(67, 128)),
    Case("flash", make(3, 4096), small=False),
    Case("flash_tall", make(70, 4096), small=False),
    Case("flash_prefill", make(1024, 4096), small=False, large=True),
    Case("two_streams", make(3, 128, count=2)),
    Case("odd_width", make(5, 96, plain=True)),
    Case("summands", make(5, 384, expand="summands")),
    Case("summands_tall", make(67, 128, expand="summands")),
    Case("summands_alone", make(3, 128, expand="summands_alone")),
    Case("summands_exact", make(5, 256, expand="summands", plain=True, dtype=FP32)),
    Case("strided", make(5, 128, expand="strided")),
    Case("permutation", make(3, 128, expand="permutation")),
    Case("zero", make(3, 128, expand="zero")),
    Case("zero_token", make(3, 128, "zero", first=True)),
    Case("saturated", make(5, 128, "saturated")),
    Case("closed", make(5, 128, "closed")),
    Case("nan_in", make(3, 128, expand="nan")),
    Case("exact", make(5, 256, plain=True, dtype=FP32)),
    Case("exact_first", make(5, 256, plain=True, first=True, dtype=FP32)),
)
