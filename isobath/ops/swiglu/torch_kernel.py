"""swiglu on a CPU: fp32, rounded once.

The exponential is numpy's: torch's takes another path for the elements that do not fill a vector
register, or that end a thread's share, so that a row's bits would depend on its neighbours.
"""

import numpy as np
import torch


def swiglu(gate: torch.Tensor, up: torch.Tensor, *, limit: float) -> torch.Tensor:
    g = gate.float().clamp_max(limit)
    with np.errstate(over="ignore"):  # g / (1 + inf) is the 0 that a gate below -88 means
        denominator = np.exp(-g.numpy()) + np.float32(1)
    silu = g.div_(torch.from_numpy(denominator))
    return silu.mul_(up.float().clamp(-limit, limit)).to(gate.dtype)
