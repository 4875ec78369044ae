"""latent_insert in Triton: two programs a token, one for each half of its row."""

import torch
import triton
import triton.language as tl

from isobath.cache.view import CacheView
from isobath.numerics.dialect import OCP, Dialect
from isobath.numerics.fp8 import ACTIVATION_BLOCK, Fp8Tensor, scale_shape
from isobath.ops.tl_common import fp8_of, pow2, quantize_row
from isobath.ops.tl_rows import insert_row, norm_row, row_constants, warps_of

_GROUP = ACTIVATION_BLOCK[1]


@triton.jit
def latent_insert_kernel(
    qa_kv_ptr,
    q_norm_ptr,
    kv_norm_ptr,
    cos_sin_ptr,
    bytes_ptr,
    slots_ptr,
    latent_ptr,
    codes_ptr,
    exponents_ptr,
    row_stride,
    eps,
    LATENT: tl.constexpr,
    LATENT_BLOCK: tl.constexpr,
    LATENT_GROUP: tl.constexpr,
    LATENT_MAX: tl.constexpr,
    LATENT_FP8: tl.constexpr,
    ROPE: tl.constexpr,
    WIDTH: tl.constexpr,
    NOPE: tl.constexpr,
    GROUP: tl.constexpr,
    NUM_SCALES: tl.constexpr,
    SCALE_BYTES: tl.constexpr,
    ROPE_OFFSET: tl.constexpr,
    SCALE_OFFSET: tl.constexpr,
    ROW_BYTES: tl.constexpr,
    PLAIN: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Grid: (2, tokens). LATENT_GROUP 0: the latent is stored as it is, not quantised."""
    token = tl.program_id(1).to(tl.int64)
    from_ptr = qa_kv_ptr + token * row_stride
    if tl.program_id(0) == 0:
        x = norm_row(from_ptr, q_norm_ptr, eps, LATENT, LATENT_BLOCK)
        i = tl.arange(0, LATENT_BLOCK)
        if LATENT_GROUP > 0:
            codes, exponents = quantize_row(x, LATENT_GROUP, LATENT_MAX, LATENT_FP8)
            tl.store(codes_ptr + token * LATENT + i, codes, mask=i < LATENT)
            groups: tl.constexpr = LATENT // LATENT_GROUP
            g = tl.arange(0, LATENT_BLOCK // LATENT_GROUP)
            to_ptr = exponents_ptr + token * groups + g
            tl.store(to_ptr, exponents.to(tl.uint8), mask=g < groups)
        else:
            to_ptr = latent_ptr + token * LATENT + i
            tl.store(to_ptr, x.to(latent_ptr.dtype.element_ty), mask=i < LATENT)
    else:
        slot = tl.load(slots_ptr + token)
        if slot >= 0:
            insert_row(
                from_ptr + LATENT, kv_norm_ptr, cos_sin_ptr + token * ROPE, bytes_ptr, slot, eps,
                ROPE, WIDTH, NOPE, GROUP, NUM_SCALES, SCALE_BYTES, ROPE_OFFSET, SCALE_OFFSET,
                ROW_BYTES, PLAIN, QUANT_MAX, FP8, BLOCK,
            )  # fmt: skip


def latent_insert(
    qa_kv: torch.Tensor,
    q_norm: torch.Tensor,
    kv_norm: torch.Tensor,
    cos_sin: torch.Tensor,
    cache: CacheView,
    slots: torch.Tensor,
    *,
    dialect: Dialect | None,
    eps: float,
    warps: int = 0,
) -> Fp8Tensor | torch.Tensor:
    """warps: other than the width's, for tuning."""
    tokens, width = len(qa_kv), len(q_norm)
    qa_kv = qa_kv if qa_kv.stride(1) == 1 else qa_kv.contiguous()
    shape = (tokens, width)
    latent = torch.empty((0,) if dialect else shape, dtype=qa_kv.dtype, device=qa_kv.device)
    codes = torch.empty(shape if dialect else (0,), dtype=torch.uint8, device=qa_kv.device)
    groups = scale_shape(shape, ACTIVATION_BLOCK) if dialect else (0,)
    exponents = torch.empty(groups, dtype=torch.uint8, device=qa_kv.device)
    constants = fp8_of(dialect or OCP)
    block = pow2(width)
    if tokens:
        latent_insert_kernel[(2, tokens)](
            qa_kv,
            q_norm,
            kv_norm,
            cos_sin.contiguous(),
            cache.bytes,
            slots,
            latent,
            codes,
            exponents,
            qa_kv.stride(0),
            eps,
            LATENT=width,
            LATENT_BLOCK=block,
            LATENT_GROUP=_GROUP if dialect else 0,
            LATENT_MAX=constants["QUANT_MAX"],
            LATENT_FP8=constants["FP8"],
            ROPE=cos_sin.shape[1],
            **row_constants(cache.layout),
            **fp8_of(cache.dialect),
            BLOCK=pow2(len(kv_norm)),
            num_warps=warps or warps_of(block),
        )
    if dialect is None:
        return latent
    return Fp8Tensor(codes.view(dialect.dtype), exponents, dialect, ACTIVATION_BLOCK)
