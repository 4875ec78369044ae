"""hyper_enter: between two blocks. The last one's output goes back into the streams, and the next
one's input comes out of them: hyper_expand, hyper_mix, hyper_collapse, quantize_act as one op."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor, dequantize
from isobath.ops.contract import Arguments, Op, Work
from isobath.ops.experts import Summands
from isobath.ops.work import nbytes


@dataclass(frozen=True, slots=True)
class Entered:
    """streams: [T, S, D] after the expansion (the argument itself where there was none). x: [T, D]
    normed block input. quantized: x as FP8 matrices take it, x itself without a dialect. post:
    [T, S] and comb: [T, S(in), S(out)], float32, of the next expansion."""

    streams: torch.Tensor
    x: torch.Tensor
    quantized: Fp8Tensor | torch.Tensor
    post: torch.Tensor
    comb: torch.Tensor


class HyperEnter(Protocol):
    """streams' = hyper_expand(y, streams, post, comb), or streams where y is None (first layer);
    pre, post', comb' = hyper_mix(streams'); x = hyper_collapse(streams', pre); quantize_act(x).

    y: [T, D], the Summands of it or None, and with it post: float32 [T, S] and comb: float32
    [T, S, S]. streams: [T, S, D]. fn, base, scale, iters, eps, norm_eps: of hyper_mix. norm_weight,
    norm_eps: of hyper_collapse. dialect: of the quantised x, D then a multiple of 128; None: x is
    not quantised.

    Rounded where the parts round: the new streams, the collapsed sum and x. The mixer reads the
    rounded streams.
    """

    def __call__(
        self,
        y: torch.Tensor | Summands | None,
        streams: torch.Tensor,
        post: torch.Tensor | None,
        comb: torch.Tensor | None,
        fn: torch.Tensor,
        base: torch.Tensor,
        scale: torch.Tensor,
        norm_weight: torch.Tensor,
        *,
        dialect: Dialect | None,
        iters: int,
        eps: float,
        norm_eps: float,
    ) -> Entered: ...


def observe(result: Entered, args: Arguments) -> Mapping[str, torch.Tensor]:
    seen = {"streams": result.streams, "x": result.x, "post": result.post, "comb": result.comb}
    if isinstance(result.quantized, Fp8Tensor):
        seen["quantized"] = dequantize(result.quantized)
    return seen


def select(args: Arguments, rows: list[int]) -> Arguments:
    def cut(value: torch.Tensor | Summands | None) -> torch.Tensor | Summands | None:
        if isinstance(value, Summands):
            return value.of(rows)
        return None if value is None else value[rows]

    return args | {name: cut(args[name]) for name in ("y", "streams", "post", "comb")}


def work(args: Arguments) -> Work:
    """Streams are read and, after an expansion, written; x is written twice. The projection's
    operations are float32 and few."""
    streams, y = args["streams"], args["y"]
    tokens, count, width = streams.shape
    written = nbytes(streams) * (y is not None) + nbytes(streams) // count
    if args["dialect"] is not None:
        written += tokens * width
    return Work(nbytes(args) + written + 4 * tokens * count * (1 + count))


OP = Op(
    "hyper_enter",
    signature=HyperEnter,
    # A bf16 flip moves a stream or x by 2^-8, and an FP8 code of x by 2^-3 of itself; fp32 against
    # fp64 flips fewer than one value in 2^10, so of a row of 128 or more at most one or two codes
    # flip: sqrt(2 / 128) * 2^-3 = 2^-6.
    agree=Relative(2**-6),
    must=("deterministic", "graph_safe", "batch_invariant"),
    weights=("fn",),
    observe=observe,
    select=select,
    asm={"gfx942": ("v_mfma_f32_", "!scratch_")},
    backends=("triton", "torch"),
    work=work,
    source="DeepSeek-V4 report, manifold-constrained hyper-connections",
)
