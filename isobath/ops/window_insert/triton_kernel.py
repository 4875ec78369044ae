"""window_insert in Triton: one program a token, which leaves at once where the slot is -1."""

import torch
import triton
import triton.language as tl

from isobath.cache.view import CacheView
from isobath.ops.tl_common import fp8_of, pow2
from isobath.ops.tl_rows import insert_row, row_constants, warps_of


@triton.jit
def window_insert_kernel(
    kv_ptr,
    norm_ptr,
    cos_sin_ptr,
    bytes_ptr,
    slots_ptr,
    kv_stride,
    eps,
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
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots_ptr + token)
    if slot >= 0:
        insert_row(
            kv_ptr + token * kv_stride, norm_ptr, cos_sin_ptr + token * ROPE, bytes_ptr, slot, eps,
            ROPE, WIDTH, NOPE, GROUP, NUM_SCALES, SCALE_BYTES, ROPE_OFFSET, SCALE_OFFSET,
            ROW_BYTES, PLAIN, QUANT_MAX, FP8, BLOCK,
        )  # fmt: skip


def window_insert(
    kv: torch.Tensor,
    norm_weight: torch.Tensor,
    cos_sin: torch.Tensor,
    cache: CacheView,
    slots: torch.Tensor,
    *,
    eps: float,
) -> None:
    kv = kv if kv.stride(1) == 1 else kv.contiguous()
    block = pow2(kv.shape[1])
    if len(kv):
        window_insert_kernel[(len(kv),)](
            kv,
            norm_weight,
            cos_sin.contiguous(),
            cache.bytes,
            slots,
            kv.stride(0),
            eps,
            ROPE=cos_sin.shape[1],
            **row_constants(cache.layout),
            **fp8_of(cache.dialect),
            BLOCK=block,
            num_warps=warps_of(block),
        )
