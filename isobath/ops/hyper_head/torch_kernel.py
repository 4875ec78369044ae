"""hyper_head on a CPU: the mixer's GEMM in float32, its gates compiled, then hyper_collapse."""

import numpy as np
import numpy.typing as npt
import torch
from numba import njit

from isobath.ops.hyper_collapse.torch_kernel import hyper_collapse
from isobath.ops.hyper_mix.torch_kernel import normalise, prepare, sigmoid
from isobath.ops.torch_gemm import matmul

__all__ = ["hyper_head", "prepare"]
Floats = npt.NDArray[np.float32]


def hyper_head(
    streams: torch.Tensor,
    fn: torch.Tensor,
    base: torch.Tensor,
    scale: torch.Tensor,
    norm_weight: torch.Tensor,
    *,
    eps: float,
    norm_eps: float,
) -> torch.Tensor:
    flat = streams.float().flatten(1)
    u = matmul(flat, fn)
    _gate(flat.numpy(), u.numpy(), base.numpy(), scale.numpy(), np.float32(eps), norm_eps)
    return hyper_collapse(streams, u, norm_weight, eps=norm_eps)


@njit(cache=True, error_model="numpy")
def _gate(
    flat: Floats, u: Floats, base: Floats, scale: Floats, eps: np.float32, norm_eps: float
) -> None:
    """pre [T, S] in place of u."""
    normalise(flat, u, norm_eps)
    for token in range(len(u)):
        for j in range(u.shape[1]):
            u[token, j] = sigmoid(u[token, j] * scale[0] + base[j]) + eps
