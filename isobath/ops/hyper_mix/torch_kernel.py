"""hyper_mix on a CPU: one GEMM in torch, the 39 Sinkhorn normalisations in numpy.

A normalisation divides each entry by its row's (or column's) sum plus eps. On a row vector of the
S * S entries and a constant 1 that is c / (c @ M), with M a 0/1 matrix whose last row holds eps:
two numpy calls a step, and numpy's calls on small arrays cost a third of torch's. `.numpy()` shares
the tensor's memory; no value decides a branch.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import linear

Matrix = npt.NDArray[np.float32]


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
    u = mixes(streams, fn, norm_eps)
    u = torch.addcmul(base, u, scale.index_select(0, _part(count)))
    gates = torch.sigmoid(u[:, : 2 * count]).numpy()
    logits = u.numpy()[:, 2 * count :].reshape(tokens, count, count)
    comb = _sinkhorn(logits, iters, np.float32(eps))
    pre, post = gates[:, :count] + np.float32(eps), gates[:, count:] * np.float32(2)
    return torch.from_numpy(pre), torch.from_numpy(post), torch.from_numpy(comb)


def mixes(streams: torch.Tensor, fn: torch.Tensor, norm_eps: float) -> torch.Tensor:
    """fn . x / rms(x) over all stream values of a token: float32 [T, rows of fn]."""
    flat = streams.float().flatten(1)
    mean_square = torch.linalg.vecdot(flat, flat).mul_(1 / flat.shape[1])
    return linear(flat, fn).mul_(mean_square.add_(norm_eps).rsqrt_().unsqueeze(1))


def _sinkhorn(logits: Matrix, iters: int, eps: np.float32) -> Matrix:
    """float32 [T, S(in), S(out)] -> the same shape: softmax of the rows, then normalisations.

    2026-11-21, AMD EPYC (AVX-512, one thread), S = 4, 19 row and column steps, us at T = 1 / 16 /
    512: this 25 / 34 / 210; the same two calls in torch 82 / 92 / 243; sum, add, divide in torch
    152 / 173 / 847; sum, add, divide in numpy with T innermost 74 / 81 / 148.
    """
    tokens, count, _ = logits.shape
    row_sums, column_sums = _summers(count, float(eps))
    softmax = np.exp(logits - logits.max(2, keepdims=True))
    softmax /= softmax.sum(2, keepdims=True)
    entries = np.ones((tokens, count * count + 1), np.float32)
    np.add(softmax.reshape(tokens, count * count), eps, entries[:, :-1])
    sums = np.empty_like(entries)
    dot, divide = np.dot, np.divide
    dot(entries, column_sums, sums)
    divide(entries, sums, entries)
    for _ in range(iters - 1):
        dot(entries, row_sums, sums)
        divide(entries, sums, entries)
        dot(entries, column_sums, sums)
        divide(entries, sums, entries)
    return entries[:, :-1].reshape(tokens, count, count)


@cache
def _summers(count: int, eps: float) -> tuple[Matrix, Matrix]:
    """Matrices that turn entry (j, k) into eps plus its row's, or column's, sum, and 1 into 1."""
    one, ones, size = np.eye(count), np.ones((count, count)), count * count
    rows, columns = np.zeros((2, size + 1, size + 1), np.float32)
    for matrix, sums in ((rows, np.kron(one, ones)), (columns, np.kron(ones, one))):
        matrix[:size, :size] = sums
        matrix[size, :size] = eps
        matrix[size, size] = 1
    return rows, columns


@cache
def _part(count: int) -> torch.Tensor:
    """Which of the three scales belongs to each row of fn: int64 [(2 + S) * S]."""
    sizes = torch.tensor([count, count, count * count])
    return torch.repeat_interleave(torch.arange(3), sizes)
