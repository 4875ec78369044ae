"""hyper_mix on a CPU: one GEMM in torch, the 39 Sinkhorn normalisations in numpy.

A normalisation divides each entry by eps plus its row's, or column's, sum: two numpy calls, with
the tokens innermost, so that no token's sum sees another's and small arrays cost a third of what
torch's calls do. `.numpy()` shares the tensor's memory; no value decides a branch.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from isobath.ops.torch_gemm import matmul, pack

Matrix = npt.NDArray[np.float32]


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
    u = mixes(streams, fn, norm_eps)
    u = torch.addcmul(base, u, scale.index_select(0, _part(count)))
    gates = sigmoid(u[:, : 2 * count]).numpy()
    logits = u.numpy()[:, 2 * count :].reshape(tokens, count, count)
    comb = _sinkhorn(logits, iters, np.float32(eps))
    pre, post = gates[:, :count] + np.float32(eps), gates[:, count:] * np.float32(2)
    return torch.from_numpy(pre), torch.from_numpy(post), torch.from_numpy(comb)


def mixes(streams: torch.Tensor, fn: torch.Tensor, norm_eps: float) -> torch.Tensor:
    """fn . x / rms(x) over all stream values of a token: float32 [T, rows of fn]."""
    flat = streams.float().flatten(1)
    mean_square = torch.linalg.vecdot(flat, flat).mul_(1 / flat.shape[1])
    return matmul(flat, fn).mul_(mean_square.add_(norm_eps).rsqrt_().unsqueeze(1))


def _sinkhorn(logits: Matrix, iters: int, eps: np.float32) -> Matrix:
    """float32 [T, S(in), S(out)] -> the same shape: softmax of the rows, then normalisations.

    2026-11-21, AMD EPYC (AVX-512, one thread of a busy machine), S = 4, 19 row and column steps, us
    at T = 1 / 16 / 512: this 73 / 83 / 163. As a product with a 0/1 matrix 37 / 53 / 383, but there
    a token's sums depend on how many tokens there are; the same by four additions 149 / 105 / 202.
    A single token gets company: numpy would sum along it in another order.
    """
    tokens, count, _ = logits.shape
    entries = np.zeros((count, count, max(2, tokens)), np.float32)
    entries[:, :, :tokens] = logits.transpose(1, 2, 0)
    entries -= np.maximum.reduce(entries, 1, keepdims=True)
    np.exp(entries, entries)
    entries /= np.add.reduce(entries, 1, keepdims=True)
    entries += eps
    row_sums, column_sums = np.empty_like(entries[:, 0]), np.empty_like(entries[0])
    by_row = row_sums[:, None]
    sum_up, divide = np.add.reduce, np.divide
    sum_up(entries, axis=0, out=column_sums, initial=eps)
    divide(entries, column_sums, entries)
    for _ in range(iters - 1):
        sum_up(entries, axis=1, out=row_sums, initial=eps)
        divide(entries, by_row, entries)
        sum_up(entries, axis=0, out=column_sums, initial=eps)
        divide(entries, column_sums, entries)
    return np.ascontiguousarray(entries[:, :, :tokens].transpose(2, 0, 1))


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """1 / (1 + e^-x), float32, by numpy's exp: torch's takes another path for the elements that do
    not fill a vector register, so that a token's bits would depend on its neighbours."""
    with np.errstate(over="ignore"):  # 1 / (1 + inf) is the 0 that -x above 88 means
        denominator = np.exp(-x.numpy()) + np.float32(1)
    return torch.from_numpy(np.reciprocal(denominator, out=denominator))


@cache
def _part(count: int) -> torch.Tensor:
    """Which of the three scales belongs to each row of fn: int64 [(2 + S) * S]."""
    sizes = torch.tensor([count, count, count * count])
    return torch.repeat_interleave(torch.arange(3), sizes)
