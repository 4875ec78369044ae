"""The choice of a token's experts on the device, from its logits in parts.

Scores are compared as integers that order like floats, with the expert's number below them, so that
a tie goes to the lower expert and a NaN counts as the largest. Nothing depends on how many tokens a
program has.
"""

# mypy: ignore-errors
# Device code has no types.

import triton
import triton.language as tl


@triton.jit
def softplus(x):
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|).

    Below 2^-6 four terms of log1p's series are exact to 2^-26; above, a logarithm's absolute error
    of 2^-22 is at most 2^-16 of the result.
    """
    u = tl.exp(-tl.abs(x))
    series = u * (1.0 - u * (0.5 - u * (0.33333334 - u * 0.25)))
    tail = tl.where(u < 0.015625, series, tl.log(1.0 + u))
    return tl.where(x != x, x, tl.where(x > 0, x, 0.0) + tail)


@triton.jit
def descending(score, lane, SPAN: tl.constexpr):
    """float32 scores -> int64 keys: larger scores first, then lower lanes; NaN before all."""
    bits = (score + 0.0).to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    ordered = tl.where(score != score, 0x7FFFFFFF, ordered)
    return (ordered.to(tl.int64) << 32) | (SPAN - 1 - lane).to(tl.int64)


@triton.jit
def choose_block(
    block,
    partial,
    token_ids,
    bias,
    table,
    experts,
    weights,
    marks,
    tokens,
    scale,
    E: tl.constexpr,
    SPAN: tl.constexpr,
    SLICES: tl.constexpr,
    TOP_K: tl.constexpr,
    SLOTS: tl.constexpr,
    HASHED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    MARK: tl.constexpr,
):
    """Tokens block * BLOCK_T and on: scores, each one's TOP_K experts by s + bias or by the table,
    weights s / sum * scale. partial: float32 [SLICES, T, E]. MARK: it was written in this launch;
    the choice is marked for sort_pairs()."""
    token = block * BLOCK_T + tl.arange(0, BLOCK_T).to(tl.int64)
    live = token < tokens
    lane = tl.arange(0, SPAN)
    slot = tl.arange(0, SLOTS)[None, :]
    inside = lane < E
    there = live[:, None] & inside[None, :]
    logits = tl.zeros([BLOCK_T, SPAN], tl.float32)
    for part in tl.static_range(SLICES):
        at = partial + (part * tokens + token)[:, None] * E + lane[None, :]
        if MARK:
            logits += tl.load(at, mask=there, other=0.0, cache_modifier=".cg")
        else:
            logits += tl.load(at, mask=there, other=0.0)
    score = tl.sqrt_rn(softplus(logits))
    token_id = tl.load(token_ids + token, mask=live, other=-1)
    chosen = tl.full([BLOCK_T, SLOTS], -1, tl.int64)
    value = tl.zeros([BLOCK_T, SLOTS], tl.float32)
    total = tl.zeros([BLOCK_T], tl.float32)
    mark = tl.zeros([BLOCK_T, SPAN], tl.int32)
    if HASHED:
        left = tl.zeros([BLOCK_T, SPAN], tl.int64)
    else:
        biased = score + tl.load(bias + lane, mask=inside, other=0.0)[None, :]
        key = descending(biased, lane[None, :], SPAN)
        left = tl.where(inside[None, :], key, -0x7FFFFFFFFFFFFFFF)
    for i in tl.static_range(TOP_K):
        if HASHED:
            expert = tl.load(table + tl.maximum(token_id, 0) * TOP_K + i)
        else:
            best = tl.max(left, 1)
            expert = SPAN - 1 - (best & 0xFFFFFFFF)
            left = tl.where(left == best[:, None], -0x7FFFFFFFFFFFFFFF, left)
        here = lane[None, :] == expert[:, None]
        one = tl.sum(tl.where(here, score, 0.0), 1)
        mark = tl.where(here, 1, mark)
        chosen = tl.where(slot == i, expert[:, None], chosen)
        value = tl.where(slot == i, one[:, None], value)
        total += one
    padding = (token_id < 0)[:, None]
    at = token[:, None] * TOP_K + slot
    stored = live[:, None] & (slot < TOP_K)
    tl.store(experts + at, tl.where(padding, -1, chosen), mask=stored)
    weight = tl.where(padding, 0.0, value / total[:, None] * scale)
    tl.store(weights + at, weight, mask=stored)
    if MARK:
        bits = tl.where(padding, 0, mark) << tl.arange(0, BLOCK_T)[:, None]
        tl.store(marks + block * E + lane, tl.sum(bits, 0).to(tl.uint8), mask=inside)
