"""compress_insert_pair in Triton: compress_insert's programs of both compressors in one launch (two
where a step is not single)."""

import torch
import triton
import triton.language as tl

from isobath.cache.view import CacheView
from isobath.ops.tl_common import fp8_of
from isobath.ops.tl_compress import PLACES, compress_step, warps_of
from isobath.ops.tl_rows import row_constants


@triton.jit(do_not_specialize=["num_entries"])
def compress_insert_pair_kernel(
    fresh_ptr,
    ape_ptr,
    norm_ptr,
    state_ptr,
    bytes_ptr,
    index_ape_ptr,
    index_norm_ptr,
    index_state_ptr,
    index_bytes_ptr,
    cos_sin_ptr,
    positions_ptr,
    pool_rows_ptr,
    entry_rows_ptr,
    keep_tokens_ptr,
    keep_rows_ptr,
    fresh_stride,
    num_entries,
    eps,
    DTYPE: tl.constexpr,
    COUNT: tl.constexpr,
    RATIO: tl.constexpr,
    ROPE: tl.constexpr,
    CHANNELS: tl.constexpr,
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
    INDEX_CHANNELS: tl.constexpr,
    INDEX_WIDTH: tl.constexpr,
    INDEX_NOPE: tl.constexpr,
    INDEX_GROUP: tl.constexpr,
    INDEX_NUM_SCALES: tl.constexpr,
    INDEX_SCALE_BYTES: tl.constexpr,
    INDEX_ROPE_OFFSET: tl.constexpr,
    INDEX_SCALE_OFFSET: tl.constexpr,
    INDEX_ROW_BYTES: tl.constexpr,
    INDEX_PLAIN: tl.constexpr,
    INDEX_QUANT_MAX: tl.constexpr,
    INDEX_FP8: tl.constexpr,
):
    """Grid: (programs of compress_step, 2): the first compressor's, and the indexer's."""
    program = tl.program_id(0)
    if tl.program_id(1) == 0:
        compress_step(
            program, fresh_ptr, fresh_ptr, ape_ptr, norm_ptr, cos_sin_ptr, state_ptr, bytes_ptr,
            positions_ptr, pool_rows_ptr, entry_rows_ptr, keep_tokens_ptr, keep_rows_ptr,
            fresh_stride, num_entries, eps, DTYPE, False, COUNT, COUNT, RATIO, CHANNELS, ROPE,
            WIDTH, NOPE, GROUP, NUM_SCALES, SCALE_BYTES, ROPE_OFFSET, SCALE_OFFSET, ROW_BYTES,
            PLAIN, QUANT_MAX, FP8,
        )  # fmt: skip
    else:
        from_ptr = fresh_ptr + 2 * CHANNELS
        compress_step(
            program, from_ptr, from_ptr, index_ape_ptr, index_norm_ptr, cos_sin_ptr,
            index_state_ptr, index_bytes_ptr, positions_ptr, pool_rows_ptr, entry_rows_ptr,
            keep_tokens_ptr, keep_rows_ptr, fresh_stride, num_entries, eps, DTYPE, False, COUNT,
            COUNT, RATIO, INDEX_CHANNELS, ROPE, INDEX_WIDTH, INDEX_NOPE, INDEX_GROUP,
            INDEX_NUM_SCALES, INDEX_SCALE_BYTES, INDEX_ROPE_OFFSET, INDEX_SCALE_OFFSET,
            INDEX_ROW_BYTES, INDEX_PLAIN, INDEX_QUANT_MAX, INDEX_FP8,
        )  # fmt: skip


def compress_insert_pair(
    fresh: torch.Tensor,
    ape: torch.Tensor,
    norm_weight: torch.Tensor,
    state: torch.Tensor,
    cache: CacheView,
    index_ape: torch.Tensor,
    index_norm: torch.Tensor,
    index_state: torch.Tensor,
    index_cache: CacheView,
    cos_sin: torch.Tensor,
    *,
    positions: torch.Tensor,
    pool_rows: torch.Tensor,
    entry_rows: torch.Tensor,
    keep_tokens: torch.Tensor,
    keep_rows: torch.Tensor,
    dtype: torch.dtype,
    eps: float,
    single: bool = False,
) -> None:
    places, entries, kept = pool_rows.shape[1], pool_rows.shape[0], len(keep_tokens)
    assert places <= PLACES, "long windows are pooled apart"
    fresh = fresh if fresh.stride(1) == 1 else fresh.contiguous()
    index = row_constants(index_cache.layout) | fp8_of(index_cache.dialect)
    together = single or not entries or not kept
    for num_entries, programs in ((entries, entries + kept * together), (0, kept * (not together))):
        if programs and len(fresh):
            compress_insert_pair_kernel[(programs, 2)](
                fresh,
                ape,
                norm_weight,
                state,
                cache.bytes,
                index_ape,
                index_norm,
                index_state,
                index_cache.bytes,
                cos_sin,
                positions,
                pool_rows,
                entry_rows,
                keep_tokens,
                keep_rows,
                fresh.stride(0),
                num_entries,
                eps,
                DTYPE={torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}[dtype],
                COUNT=places,
                RATIO=ape.shape[0],
                ROPE=cos_sin.shape[1],
                CHANNELS=ape.shape[1],
                **row_constants(cache.layout),
                **fp8_of(cache.dialect),
                INDEX_CHANNELS=index_ape.shape[1],
                **{f"INDEX_{name}": value for name, value in index.items()},
                num_warps=warps_of(cache.layout.width),
            )
