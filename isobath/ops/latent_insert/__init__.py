"""latent_insert: both halves of the first attention projection: the query's latent normed and
quantised, the key/value row normed, rotated, quantised and stored. rms_norm, quantize_act and
window_insert as one op."""

from collections.abc import Mapping
from typing import Protocol

import torch

from isobath.cache.view import CacheView
from isobath.numerics.compare import Relative
from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor, dequantize
from isobath.ops.contract import Arguments, Op, Work
from isobath.ops.window_insert import observe as observe_cache
from isobath.ops.work import nbytes, rows_of


class LatentInsert(Protocol):
    """latent = quantize_act(rms_norm(first L values)), and window_insert of the last d.

    qa_kv: [T, L + d] projection output. q_norm: [L]. kv_norm: [d]. cos_sin: float32 [T, R]. slots:
    int64 [T], -1 writes nothing. cache: rows of width d, changed in place. dialect: of the latent,
    L then a multiple of 128; None: the latent is not quantised.

    Returns the latent, Fp8Tensor [T, L] in groups of 128, or [T, L] in qa_kv.dtype. Rounded to
    qa_kv.dtype after each norm and after the rotation, before anything is quantised.
    """

    def __call__(
        self,
        qa_kv: torch.Tensor,
        q_norm: torch.Tensor,
        kv_norm: torch.Tensor,
        cos_sin: torch.Tensor,
        cache: CacheView,
        slots: torch.Tensor,
        *,
        dialect: Dialect | None,
        eps: float,
    ) -> Fp8Tensor | torch.Tensor: ...


def observe(result: Fp8Tensor | torch.Tensor, args: Arguments) -> Mapping[str, torch.Tensor]:
    latent = dequantize(result) if isinstance(result, Fp8Tensor) else result
    return {"latent": latent, **observe_cache(None, args)}


def work(args: Arguments) -> Work:
    """Each token's latent and row are read, and written as FP8 or as they were."""
    size = args["qa_kv"].element_size() if args["dialect"] is None else 1
    latent = args["qa_kv"].shape[0] * len(args["q_norm"]) * size
    stored = rows_of(args["cache"], len(args["slots"]))
    return Work(nbytes(args["qa_kv"], args["cos_sin"], args["slots"]) + latent + stored)


OP = Op(
    "latent_insert",
    signature=LatentInsert,
    agree=Relative(2**-5),  # FP8 code flips after a bf16 flip, as window_insert
    must=("deterministic", "graph_safe"),
    writes=("cache",),
    observe=observe,
    asm={"gfx942": ("!scratch_",)},
    backends=("triton", "torch"),
    rows={"cache": "slots"},
    work=work,
    source="DeepSeek-V4 inference code, attention: q_norm, kv_norm, apply_rotary_emb, act_quant",
)
