"""Rotary position embedding: two frequency tables a model, angles computed once a step.

Window-only layers (ratio 0) use theta with no scaling. Layers with a compressor use
compress_theta with YaRN's per-frequency blend, for all five of their uses: queries, window keys,
compressed keys, the indexer's queries and keys, and the inverse rotation of the output. YaRN's
attention temperature is not used: cosines and sines are unscaled.

Source: Su et al. 2021 (adjacent pairs); Peng et al. 2023 (YaRN, NTK-by-parts).
"""

from __future__ import annotations

import math

import torch

from isobath.config import RopeConfig


def frequencies(rope: RopeConfig, rope_dim: int, *, compressed: bool) -> torch.Tensor:
    """Angular frequency of each pair: float32 [rope_dim / 2], on the CPU."""
    theta = rope.compress_theta if compressed else rope.theta
    exponent = torch.arange(0, rope_dim, 2, dtype=torch.float32) / rope_dim
    plain = 1.0 / (theta**exponent)
    if not compressed or rope.factor == 1:
        return plain
    low, high = (
        _pair_of_rotations(turns, rope, rope_dim) for turns in (rope.beta_fast, rope.beta_slow)
    )
    first, last = max(math.floor(low), 0), min(math.ceil(high), rope_dim - 1)
    pair = torch.arange(rope_dim // 2, dtype=torch.float32)
    ramp = ((pair - first) / max(last - first, 0.001)).clamp(0, 1)
    return plain / rope.factor * ramp + plain * (1 - ramp)


def cos_sin(positions: torch.Tensor, freqs: torch.Tensor) -> torch.Tensor:
    """Positions int64 [T] -> float32 [T, R]: R/2 cosines, then R/2 sines.

    The angle is the fp32 product of position and frequency, as in DeepSeek's own code.
    """
    angle = positions.to(torch.float32).unsqueeze(-1) * freqs
    return torch.cat((angle.cos(), angle.sin()), -1)


def _pair_of_rotations(turns: float, rope: RopeConfig, rope_dim: int) -> float:
    """Index of the (fractional) pair that turns `turns` times over the original context."""
    wavelengths = rope.original_max_position / (turns * 2 * math.pi)
    return rope_dim * math.log(wavelengths) / (2 * math.log(rope.compress_theta))
