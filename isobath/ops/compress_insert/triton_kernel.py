"""compress_insert in Triton: one program an entry, one a kept token.

Short windows: a single step is one launch. Its window ends at its sequence's only token, so of the
n rows of the ring an entry reads the n - 1 that the token is not kept in, and no program writes
what another reads. Any other step pools in a first launch and keeps in a second.

Long windows are pooled in a first launch by several programs an entry, each with some of the
channels; a second norms and stores the entries, and keeps.

Programs whose entry_rows or keep_tokens say -1 leave at once.
"""

import torch
import triton
import triton.language as tl

from isobath.cache.view import CacheView
from isobath.ops.tl_common import fp8_of
from isobath.ops.tl_compress import PLACES, compress_step, pool, warps_of
from isobath.ops.tl_rows import row_constants

_PART = 32
"""Channels a program of a long window, all of whose rows it asks for at once. Measured on an NVIDIA
H200, 2026-11-22, median of 7 graph replays, 128 rows of 512 channels, one entry due in up to 64
(both launches): 5.3 to 5.7 us; with 64 channels 6.7 to 7.1, with 128 9.5 to 9.8."""

_RUN = 8
"""Entries such a program looks through where there are more than _FEW: a step of many sequences has
few that are due. Predicted, not measured."""
_FEW = 128


@triton.jit(do_not_specialize=["num_entries"])
def pool_kernel(
    fresh_ptr,
    ape_ptr,
    state_ptr,
    positions_ptr,
    pool_rows_ptr,
    entry_rows_ptr,
    pooled_ptr,
    fresh_stride,
    num_entries,
    COUNT: tl.constexpr,
    RATIO: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    PART: tl.constexpr,
    RUN: tl.constexpr,
):
    """Grid: (WIDTH / PART, runs of RUN entries). pooled: float32 [E, WIDTH], written where an entry
    is due."""
    first = tl.program_id(0) * PART
    start = tl.program_id(1).to(tl.int64) * RUN
    run = start + tl.arange(0, RUN)
    if tl.max(tl.load(entry_rows_ptr + run, mask=run < num_entries, other=-1), 0) >= 0:
        for i in range(RUN):
            entry = start + i
            if tl.load(entry_rows_ptr + entry, mask=entry < num_entries, other=-1) >= 0:
                x = pool(
                    fresh_ptr, ape_ptr, state_ptr, positions_ptr, pool_rows_ptr + entry * COUNT,
                    fresh_stride, COUNT, COUNT, RATIO, CHANNELS, WIDTH, first, PART,
                )  # fmt: skip
                tl.store(pooled_ptr + entry * WIDTH + first + tl.arange(0, PART), x)


@triton.jit(do_not_specialize=["num_entries"])
def compress_insert_kernel(
    pooled_ptr,
    fresh_ptr,
    ape_ptr,
    norm_ptr,
    cos_sin_ptr,
    state_ptr,
    bytes_ptr,
    positions_ptr,
    pool_rows_ptr,
    entry_rows_ptr,
    keep_tokens_ptr,
    keep_rows_ptr,
    fresh_stride,
    num_entries,
    eps,
    DTYPE: tl.constexpr,
    POOLED: tl.constexpr,
    PLACES: tl.constexpr,
    COUNT: tl.constexpr,
    RATIO: tl.constexpr,
    CHANNELS: tl.constexpr,
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
):
    """Programs: see compress_step."""
    compress_step(
        tl.program_id(0), pooled_ptr, fresh_ptr, ape_ptr, norm_ptr, cos_sin_ptr, state_ptr,
        bytes_ptr, positions_ptr, pool_rows_ptr, entry_rows_ptr, keep_tokens_ptr, keep_rows_ptr,
        fresh_stride, num_entries, eps, DTYPE, POOLED, PLACES, COUNT, RATIO, CHANNELS, ROPE, WIDTH,
        NOPE, GROUP, NUM_SCALES, SCALE_BYTES, ROPE_OFFSET, SCALE_OFFSET, ROW_BYTES, PLAIN,
        QUANT_MAX, FP8,
    )  # fmt: skip


def compress_insert(
    fresh: torch.Tensor,
    ape: torch.Tensor,
    norm_weight: torch.Tensor,
    cos_sin: torch.Tensor,
    state: torch.Tensor,
    cache: CacheView,
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
    channels, width = ape.shape[1], cache.layout.width
    fresh = fresh if fresh.stride()[1:] == (channels, 1) else fresh.contiguous()
    entries, kept = pool_rows.shape[0], len(keep_tokens)
    pooled = torch.empty(0, dtype=torch.float32, device=fresh.device)
    places, long = pool_rows.shape[1], pool_rows.shape[1] > PLACES
    if long and entries and len(fresh):
        pooled = pooled.new_empty((entries, width))
        part, run = min(_PART, width), _RUN if entries > _FEW else 1
        pool_kernel[(width // part, -(-entries // run))](
            fresh,
            ape,
            state,
            positions,
            pool_rows,
            entry_rows,
            pooled,
            fresh.stride(0),
            entries,
            COUNT=places,
            RATIO=ape.shape[0],
            CHANNELS=channels,
            WIDTH=width,
            PART=part,
            RUN=run,
            num_warps=8,
        )
    together = single or long or not entries or not kept
    for num_entries, programs in ((entries, entries + kept * together), (0, kept * (not together))):
        if programs and len(fresh):
            compress_insert_kernel[(programs,)](
                pooled,
                fresh,
                ape,
                norm_weight,
                cos_sin,
                state,
                cache.bytes,
                positions,
                pool_rows,
                entry_rows,
                keep_tokens,
                keep_rows,
                fresh.stride(0),
                num_entries,
                eps,
                DTYPE={torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}[dtype],
                POOLED=long,
                PLACES=min(PLACES, places),
                COUNT=places,
                RATIO=ape.shape[0],
                CHANNELS=channels,
                ROPE=cos_sin.shape[1],
                **row_constants(cache.layout),
                **fp8_of(cache.dialect),
                num_warps=warps_of(width),
            )
