"""index_topk on a GPU: an exact radix select, a bit of the score at a time.

A program holds up to CHUNK scores as integers that order like them (NaN highest, absent ones 0) and
finds the k-th largest from the top bit down: a bit is set if k keys still reach it. What lies above
is taken, and of what equals it as many as are missing, lowest index first, by one running count.

Longer rows go in chunks: the best of each, in order, are a shorter row of candidates. A row that
shows no more than one chunk is finished by the first pass and left alone by the others.
"""

import torch
import triton
import triton.language as tl

from isobath.ops.tl_common import pow2

CHUNK = 8192
"""Scores of one program: 32 a thread at 8 warps."""


@triton.jit
def _ordered(score):
    """float32 -> uint32 that orders like the scores, above 0; both zeros are equal, NaN highest."""
    bits = tl.where(score == 0.0, 0.0, score).to(tl.int32, bitcast=True)
    key = (bits ^ ((bits >> 31) | -(1 << 31))).to(tl.uint32, bitcast=True)
    return tl.where(score != score, 0xFFFFFFFF, key).to(tl.uint32)


@triton.jit
def index_topk_kernel(
    logits, visible, source, target, out, width, count, k, num_source, num_target,
    FIRST: tl.constexpr, LAST: tl.constexpr, CHUNK: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Grid (T, chunks). logits: [T, width]. source: int32 [T, num_source] candidates, -1 absent; in
    the FIRST pass all entries are. target: int32 [T, num_target], k places a chunk. out: int64
    [T, k]. count: places of a line of source."""
    t, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    seen = tl.load(visible + t).to(tl.int32)
    whole = seen <= CHUNK  # the first chunk of the first pass holds all that is to be seen
    if FIRST:
        if whole & (chunk > 0):
            return
    else:
        if whole:
            return
    place = tl.arange(0, BN)
    at = chunk * BN + place
    if FIRST:
        entry = at
        present = at < tl.minimum(seen, count)
    else:
        entry = tl.load(source + t * num_source + at, mask=at < count, other=-1)
        present = entry >= 0
    score = tl.load(logits + t * width + entry, mask=present, other=0.0)
    key = tl.where(present, _ordered(score), 0).to(tl.uint32)
    least = tl.full([], 0, tl.uint32)
    if tl.sum(present.to(tl.int32), 0) > k:
        bit = tl.full([], 1, tl.uint32) << 31
        for _ in range(32):
            reach = tl.sum((key >= (least | bit)).to(tl.int32), 0)
            least = tl.where(reach >= k, least | bit, least)
            bit = bit >> 1
    above, equal = key > least, (key == least) & present
    counts = (above.to(tl.int32) << 16) + equal.to(tl.int32)
    running = tl.cumsum(counts, 0)
    before, total = running - counts, tl.sum(counts, 0)
    missing = k - (total >> 16)
    taken = above | (equal & ((before & 0xFFFF) < missing))
    position = (before >> 16) + tl.minimum(before & 0xFFFF, missing)
    found = (total >> 16) + tl.minimum(total & 0xFFFF, missing)
    if LAST or whole:
        tl.store(out + t * k + position, entry.to(tl.int64), mask=taken)
        tl.store(out + t * k + place, -1, mask=(place >= found) & (place < k))
    else:
        line = target + t * num_target + chunk * k
        tl.store(line + position, entry, mask=taken)
        tl.store(line + place, -1, mask=(place >= found) & (place < k))


def index_topk(logits: torch.Tensor, visible: torch.Tensor, *, k: int) -> torch.Tensor:
    tokens, width = logits.shape
    k = min(k, width)
    out = torch.empty(tokens, k, dtype=torch.int64, device=logits.device)
    if tokens == 0 or k == 0:
        return out
    assert logits.is_contiguous() and k < CHUNK, (logits.stride(), k)
    source, count, first = visible, width, True
    while True:
        size = min(CHUNK, max(16, pow2(count), pow2(k)))
        chunks = -(-count // size)
        target = visible
        if chunks > 1:
            target = torch.empty(tokens, chunks * k, dtype=torch.int32, device=logits.device)
        index_topk_kernel[(tokens, chunks)](
            logits,
            visible,
            source,
            target,
            out,
            width,
            count,
            k,
            source.shape[-1],
            target.shape[-1],
            FIRST=first,
            LAST=chunks == 1,
            CHUNK=CHUNK,
            BN=size,
            num_warps=8 if size > 1024 else 4,
        )
        if chunks == 1:
            return out
        source, count, first = target, chunks * k, False
