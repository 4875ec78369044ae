"""hyper_mix on a CPU: one GEMM in torch, the rest of a token in one loop compiled by numba.

The 39 Sinkhorn normalisations of 16 numbers are nothing but overhead as calls on small arrays:
for one token 2 us compiled, 80 us as numpy calls (AMD EPYC, one thread, 2026-11-22). Every token
takes the same steps alone, so that it does not depend on its neighbours.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from numba import njit

from isobath.ops.torch_gemm import matmul, pack

Floats = npt.NDArray[np.float32]


def prepare(fn: torch.Tensor) -> torch.Tensor:
    """The same float32 values in the GEMM's own layout."""
    return pack(fn)


def hyper_mix(
    streams: torch.Tensor,
    fn: torch.Tensor,
    base: torch.Tensor,
    scale: torch.Tensor,
    *,
    iters: int,
    eps: float,
    norm_eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens, count, _ = streams.shape
    flat = streams.float().flatten(1)
    pre, post = np.empty((2, tokens, count), np.float32)
    comb = np.empty((tokens, count, count), np.float32)
    u, biases, factors = matmul(flat, fn).numpy(), base.numpy(), scale.numpy()
    single = np.float32(eps)
    _gates(flat.numpy(), u, biases, factors, single, norm_eps, pre, post)
    _combine(u[:, 2 * count :], biases[2 * count :], factors[2], single, iters, comb)
    return torch.from_numpy(pre), torch.from_numpy(post), torch.from_numpy(comb)


@njit(cache=True, error_model="numpy")
def normalise(flat: Floats, u: Floats, norm_eps: float) -> None:
    """Divide each token's u by the RMS of its values, in place; the sum of squares in float64."""
    for token in range(len(flat)):
        total = 0.0
        for value in flat[token]:
            total += np.float64(value) * np.float64(value)
        rms = np.float32(1 / math.sqrt(total / flat.shape[1] + norm_eps))
        for i in range(u.shape[1]):
            u[token, i] *= rms


@njit(cache=True, error_model="numpy")
def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@njit(cache=True, error_model="numpy")
def _gates(
    flat: Floats,
    u: Floats,
    base: Floats,
    scale: Floats,
    eps: np.float32,
    norm_eps: float,
    pre: Floats,
    post: Floats,
) -> None:
    """Normalise u, then pre and post [T, S] from its first 2 * S columns."""
    normalise(flat, u, norm_eps)
    count = pre.shape[1]
    for token in range(len(flat)):
        for j in range(count):
            pre[token, j] = sigmoid(u[token, j] * scale[0] + base[j]) + eps
            after = count + j
            post[token, j] = 2 * sigmoid(u[token, after] * scale[1] + base[after])


@njit(cache=True, error_model="numpy")
def _combine(
    u: Floats, base: Floats, scale: np.float32, eps: np.float32, iters: int, comb: Floats
) -> None:
    """comb [T, S(in), S(out)]: softmax of the rows, plus eps, then `iters` column steps with a row
    step between each two; a step divides by eps plus the sum."""
    count = comb.shape[1]
    for token in range(len(u)):
        c = comb[token]
        for j in range(count):
            top = np.float32(-np.inf)
            for k in range(count):
                c[j, k] = u[token, j * count + k] * scale + base[j * count + k]
                top = max(top, c[j, k])
            total = np.float32(0)
            for k in range(count):
                c[j, k] = math.exp(c[j, k] - top)
                total += c[j, k]
            for k in range(count):
                c[j, k] = c[j, k] / total + eps
        for step in range(iters):
            if step:
                for j in range(count):
                    total = eps
                    for k in range(count):
                        total += c[j, k]
                    for k in range(count):
                        c[j, k] /= total
            for k in range(count):
                total = eps
                for j in range(count):
                    total += c[j, k]
                for j in range(count):
                    c[j, k] /= total
