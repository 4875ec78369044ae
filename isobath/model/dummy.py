"""Random weights of a config's shapes, made on the device: for timing a model without its files.

Statistics keep every activation of order one and the router uniform: matrices are normal with
variance 1 / K, norms are 1, biases 0, MXFP4 codes uniform with scales that give the same variance.
Nothing is read from disk, and nothing is drawn on the host. Outputs mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from isobath.config import ModelConfig
from isobath.errors import ConfigError
from isobath.model.assemble import Assembly
from isobath.model.inventory import TensorSpec, tensors
from isobath.model.weights import ModelWeights
from isobath.numerics import fp8, mxfp4
from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import WEIGHT_BLOCK, Fp8Tensor
from isobath.numerics.mxfp4 import Mxfp4Tensor
from isobath.numerics.ue8m0 import BIAS
from isobath.ops.table import OpTable

E2M1_VARIANCE = (0 + 0.25 + 1 + 2.25 + 4 + 9 + 16 + 36) / 8
"""Mean square of a uniformly drawn code."""


@dataclass(frozen=True, slots=True)
class Dummy:
    """Which part of a config's model to make. layers: only the first so many, 0 for all.
    expert_sets: so many sets of routed experts shared by all layers in turn, 0 for one a layer;
    with 8 of them all 43 layers of V4-Flash take 34 GiB, and between two uses of one set 27 GB are
    read."""

    layers: int = 0
    expert_sets: int = 0


class DummySource:
    """A Source (assemble.py) that draws what a checkpoint would hold. specs: of the inventory."""

    def __init__(
        self,
        specs: dict[str, TensorSpec],
        *,
        dialect: Dialect,
        device: torch.device,
        exact: bool = False,
        seed: int = 0,
    ) -> None:
        self.specs, self.dialect, self.device, self.exact = specs, dialect, device, exact
        self.generator = torch.Generator(device).manual_seed(seed)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.exact else torch.bfloat16

    def vector(self, name: str) -> torch.Tensor:
        shape = self.specs[name].shape
        if name.endswith(("norm.weight", "_scale")):
            return torch.ones(shape, device=self.device)
        if name.endswith("_fn"):
            return self._normal(shape, shape[1] ** -0.5)
        if name.endswith((".ape", ".attn_sink")):
            return self._normal(shape, 1.0)
        assert name.endswith(("_base", ".bias")), name
        return torch.zeros(shape, device=self.device)

    def plain(self, names: Sequence[str]) -> torch.Tensor:
        shapes = [self.specs[name].shape for name in names]
        rows, cols = sum(s[0] for s in shapes), shapes[0][1]
        std = 1.0 if names == ["embed.weight"] else cols**-0.5
        return self._normal((rows, cols), std).to(self.dtype)

    def table(self, name: str, num_experts: int) -> torch.Tensor:
        rows, k = self.specs[name].shape
        draws = torch.rand(rows, num_experts, generator=self.generator, device=self.device)
        return draws.topk(k).indices

    def fp8(self, names: Sequence[str]) -> Fp8Tensor | torch.Tensor:
        shapes = [self.specs[f"{name}.weight"].shape for name in names]
        rows, cols = sum(s[0] for s in shapes), shapes[0][1]
        wide = self._normal((rows, cols), cols**-0.5)
        return wide if self.exact else fp8.quantize(wide, self.dialect, WEIGHT_BLOCK)

    def experts(self, groups: Sequence[Sequence[str]]) -> Mxfp4Tensor | torch.Tensor:
        shapes = [self.specs[f"{name}.weight"].shape for name in groups[0]]
        count, rows, half = len(groups), sum(s[0] for s in shapes), shapes[0][1]
        std = (2 * half) ** -0.5
        if self.exact:
            return self._normal((count, rows, 2 * half), std)
        middle = BIAS + math.floor(math.log2(std * E2M1_VARIANCE**-0.5))
        codes, exponents = (
            torch.empty(count, rows, cols, dtype=torch.uint8, device=self.device).random_(
                low, high, generator=self.generator
            )
            for cols, low, high in (
                (half, 0, 256),
                (2 * half // mxfp4.GROUP, middle, middle + 2),
            )
        )
        return Mxfp4Tensor(mxfp4.clear_negative_zero(codes), exponents)

    def _normal(self, shape: tuple[int, ...], std: float) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device).mul_(std)


def dummy_model(
    config: ModelConfig,
    *,
    dialect: Dialect,
    device: torch.device,
    ops: OpTable,
    numerics: str = "native",
    part: Dummy | None = None,
) -> tuple[ModelConfig, ModelWeights]:
    """(the config of that part, random weights of it). Raises ConfigError for more layers than
    there are."""
    part = part or Dummy()
    layers, expert_sets = part.layers, part.expert_sets
    if not 0 <= layers <= config.num_hidden_layers:
        raise ConfigError(
            f"dummy weights of {layers} layers", found=f"a config of {config.num_hidden_layers}"
        )
    if layers:
        ratios = config.compress_ratios[:layers]
        config = replace(config, num_hidden_layers=layers, compress_ratios=ratios)
    source = DummySource(tensors(config), dialect=dialect, device=device, exact=numerics == "exact")
    revision = f"dummy-{config.num_hidden_layers}-{expert_sets}"
    return config, Assembly(config, source, ops, revision, expert_sets).model()
