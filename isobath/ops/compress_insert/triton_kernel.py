"""compress_insert in Triton: one program an entry, one a kept token.

Short windows: a single step is one launch. Its window ends at its sequence's only token, so of the
n rows of the ring an entry reads the n - 1 that the token is not kept in, and no program writes
what another reads. Any other step pools in a first launch and keeps in a second.

Long windows are pooled by several programs an entry, each with some of the channels. Where a target
lets a launch know its last program, that of an entry norms and stores it, and a single step is one
launch (its entries read every row of the ring but the kept one, as above); otherwise a second one
norms, stores and keeps. Both ways compute the same, so they give the same bits.

Programs whose entry_rows or keep_tokens say -1 leave at once.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from isobath.cache.view import CacheView
from isobath.ops.tl_common import fp8_of, target_of
from isobath.ops.tl_compress import PLACES, compress_step, keep_one, pool, put_entry, warps_of
from isobath.ops.tl_gemm_few import COUNTERS, counters, last_of
from isobath.ops.tl_rows import row_constants

_PART = 32
"""Channels a program of a long window, all of whose rows it asks for at once. Measured on an NVIDIA
H200, 2026-11-22, median of 7 graph replays, 128 rows of 512 channels, one entry due in up to 64
(both launches): 5.3 to 5.7 us; with 64 channels 6.7 to 7.1, with 128 9.5 to 9.8."""

_RUN = 8
"""Entries such a program looks through where there are more than _FEW: a step of many sequences has
few that are due. Predicted, not measured."""
_FEW = 128

LAST_STORES = {"cuda": True, "hip": False, "cpu": True}
"""Whether the last program of a long window's entry stores it: see last_of()."""


@triton.jit(do_not_specialize=["num_entries"])
def long_kernel(
    pooled_ptr,
    counter_ptr,
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
    WHOLE: tl.constexpr,
    PART: tl.constexpr,
    RUN: tl.constexpr,
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
    """Programs: WIDTH / PART for each run of RUN entries, then, with WHOLE, one a kept token.

    pooled: float32 [E, WIDTH], written where an entry is due. WHOLE: the last program of an entry
    stores it, too; counter: int32 [E], zeros before and after. Without it pooling is all.
    """
    PARTS: tl.constexpr = WIDTH // PART
    program = tl.program_id(0)
    pooling = tl.cdiv(num_entries, RUN) * PARTS
    if program < pooling:
        first = program % PARTS * PART
        start = (program // PARTS).to(tl.int64) * RUN
        run = start + tl.arange(0, RUN)
        if tl.max(tl.load(entry_rows_ptr + run, mask=run < num_entries, other=-1), 0) >= 0:
            for i in range(RUN):
                entry = start + i
                row = tl.load(entry_rows_ptr + entry, mask=entry < num_entries, other=-1)
                if row >= 0:
                    x = pool(
                        fresh_ptr, ape_ptr, state_ptr, positions_ptr,
                        pool_rows_ptr + entry * COUNT, fresh_stride, COUNT, COUNT, RATIO, CHANNELS,
                        WIDTH, first, PART,
                    )  # fmt: skip
                    tl.store(pooled_ptr + entry * WIDTH + first + tl.arange(0, PART), x)
                    if WHOLE:
                        last = last_of(counter_ptr + entry, PARTS)
                        if last:
                            at = pooled_ptr + entry * WIDTH + tl.arange(0, WIDTH)
                            put_entry(
                                tl.load(at, cache_modifier=".cg"), entry, row, norm_ptr,
                                cos_sin_ptr, bytes_ptr, eps, DTYPE, ROPE, WIDTH, NOPE, GROUP,
                                NUM_SCALES, SCALE_BYTES, ROPE_OFFSET, SCALE_OFFSET, ROW_BYTES,
                                PLAIN, QUANT_MAX, FP8,
                            )  # fmt: skip
    elif WHOLE:
        keep_one(
            (program - pooling).to(tl.int64), fresh_ptr, ape_ptr, state_ptr, positions_ptr,
            keep_tokens_ptr, keep_rows_ptr, fresh_stride, RATIO, CHANNELS,
        )  # fmt: skip


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
    places, long = pool_rows.shape[1], pool_rows.shape[1] > PLACES
    pooled = torch.empty((entries if long else 0, width), dtype=torch.float32, device=fresh.device)
    of_step = (fresh, ape, norm_weight, cos_sin, state, cache.bytes)
    of_step += (positions, pool_rows, entry_rows, keep_tokens, keep_rows, fresh.stride(0))
    constants: dict[str, Any] = {
        "DTYPE": {torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}[dtype],
        "COUNT": places,
        "RATIO": ape.shape[0],
        "CHANNELS": channels,
        "ROPE": cos_sin.shape[1],
        **row_constants(cache.layout),
        **fp8_of(cache.dialect),
        "num_warps": warps_of(width),
    }
    if not len(fresh):
        return
    if long and entries:
        whole = single and entries <= COUNTERS and LAST_STORES[target_of(fresh).kind]
        part, run = min(_PART, width), _RUN if entries > _FEW else 1
        programs = width // part * -(-entries // run) + kept * whole
        counter = counters(fresh.device, "compress_insert") if whole else entry_rows
        long_kernel[(programs,)](
            pooled, counter, *of_step, entries, eps, WHOLE=whole, PART=part, RUN=run, **constants
        )
        if whole:
            return
    together = single or long or not entries or not kept
    for num_entries, programs in ((entries, entries + kept * together), (0, kept * (not together))):
        if programs:
            compress_insert_kernel[(programs,)](
                pooled,
                *of_step,
                num_entries,
                eps,
                POOLED=long,
                PLACES=min(PLACES, places),
                **constants,
            )
