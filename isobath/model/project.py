"""The one place where numerics modes differ: how a matrix meets an activation.

Native: the activation is quantised to FP8, by the op that computes it, and multiplied by an FP8
matrix. Exact: nothing is quantised, matrices are float32. Which one holds is decided when the
weights are loaded, never here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from isobath.model.weights import Matrix, ModelWeights
from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.table import OpTable


@dataclass(frozen=True, slots=True)
class Projector:
    """dialect: of quantised activations, or None in exact numerics. dtype: of activations."""

    ops: OpTable
    dialect: Dialect | None
    dtype: torch.dtype

    def __call__(self, x: Fp8Tensor | torch.Tensor, weight: Matrix) -> torch.Tensor:
        """x, quantised if `dialect` says so, times a matrix that is FP8 in native numerics ->
        [T, N] in `dtype`."""
        op = self.ops.fp8_linear if isinstance(x, Fp8Tensor) else self.ops.linear
        product: torch.Tensor = op(x, weight)
        return product


def projector(ops: OpTable, weights: ModelWeights) -> Projector:
    """The Projector that fits how `weights` were loaded."""
    exact = weights.dtype == torch.float32
    return Projector(ops, None if exact else weights.dialect, weights.dtype)
