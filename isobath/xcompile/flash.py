"""What V4-Flash itself launches: its forward pass at full width, recorded without memory or GPU.

Cases are small so that references can judge them; kernels are specialised by width, token count and
the size of storages, so those of the real model are other machine code. Here one layer of each kind
(window, C4, C128; hashed and gated routes) runs over torch's meta device, whose tensors have shapes
and sizes and no bytes: decode steps as the engine lays them out for a captured graph, and chunks of
prefill. Launchers read no values, so what they launch is what they would launch on the machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from isobath.cache.pool import PAGE_TOKENS, allocate_pool
from isobath.engine.metadata import DecodeMetadata, Shape
from isobath.model.assemble import Assembly
from isobath.model.batch import Batch, BatchBuilder, Chunk
from isobath.model.inventory import TensorSpec, tensors
from isobath.model.v4 import forward
from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import WEIGHT_BLOCK, Fp8Tensor
from isobath.numerics.mxfp4 import GROUP, Mxfp4Tensor
from isobath.ops.table import OpTable, bind
from isobath.plan import flash_config
from isobath.xcompile.target import Machine
from isobath.xcompile.triton_record import Launch, recording

META = torch.device("meta")
RATIOS, HASHED = (0, 4, 128), 1
DECODE, PREFILL = (1, 8, 32, 64, 256), (100, 2048)
"""Sequences of a decode step; tokens of a chunk, which begins a prompt or continues one."""
CONTEXT, PAGES = 32_768, 8192
Launched = dict[str, dict[str, list[Launch]]]
"""op -> case -> launches."""


@dataclass(slots=True)
class MetaSource:
    """A Source (model/assemble.py) of tensors without bytes. specs: of the inventory."""

    specs: dict[str, TensorSpec]
    dialect: Dialect
    exact: bool = False

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16

    def vector(self, name: str) -> torch.Tensor:
        return torch.empty(self.specs[name].shape, device=META)

    def plain(self, names: Sequence[str]) -> torch.Tensor:
        return torch.empty(self._stacked(names), dtype=self.dtype, device=META)

    def table(self, name: str, num_experts: int) -> torch.Tensor:
        return torch.empty(self.specs[name].shape, dtype=torch.int64, device=META)

    def fp8(self, names: Sequence[str]) -> Fp8Tensor:
        rows, cols = self._stacked([f"{name}.weight" for name in names])
        scales = tuple(-(-n // b) for n, b in zip((rows, cols), WEIGHT_BLOCK, strict=True))
        data = torch.empty(rows, cols, dtype=self.dialect.dtype, device=META)
        scale = torch.empty(scales, dtype=torch.uint8, device=META)
        return Fp8Tensor(data, scale, self.dialect, WEIGHT_BLOCK)

    def experts(self, groups: Sequence[Sequence[str]]) -> Mxfp4Tensor:
        rows, half = self._stacked([f"{name}.weight" for name in groups[0]])
        packed = torch.empty(len(groups), rows, half, dtype=torch.uint8, device=META)
        scale = torch.empty(len(groups), rows, 2 * half // GROUP, dtype=torch.uint8, device=META)
        return Mxfp4Tensor(packed, scale)

    def _stacked(self, names: Sequence[str]) -> tuple[int, int]:
        """Matrices below each other."""
        shapes = [self.specs[name].shape for name in names]
        return sum(shape[0] for shape in shapes), shapes[0][1]


def record_flash(machine: Machine) -> Launched:
    """Every launch of loading and of each step, by the op that launches and the step."""
    found: Launched = defaultdict(lambda: defaultdict(list))
    now = _Now()
    with torch.no_grad(), recording(machine, lambda launch: found[now.op][now.step].append(launch)):
        ops = _tagged(bind("triton"), now)
        for name, step in _steps(machine, ops):
            now.step = name
            step()
    return {op: dict(steps) for op, steps in found.items()}


@dataclass(slots=True)
class _Now:
    """Which op of which step is running."""

    op: str = ""
    step: str = "flash load"


def _tagged(ops: OpTable, now: _Now) -> OpTable:
    """The same table, noting which op runs."""

    def noting(op: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            now.op = op
            return call(*args, **kwargs)

        return noted

    tagged = (replace(b, call=noting(b.op, b.call), prepare=noting(b.op, b.prepare)) for b in ops)
    return OpTable(**{backend.op: backend for backend in tagged})


class _Zeros(TorchDispatchMode):
    """While weights are prepared, which may read values (a scale's excess, say), all are zero. A
    step may not read any: there a read of the meta device raises."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0
        return func(*args, **(kwargs or {}))


def _steps(machine: Machine, ops: OpTable) -> list[tuple[str, Callable[[], Any]]]:
    """Weights and caches without bytes, and the steps over them, by name."""
    config = replace(
        flash_config(),
        num_hidden_layers=len(RATIOS),
        compress_ratios=RATIOS,
        num_hash_layers=HASHED,
    )
    with _Zeros():  # type: ignore[no-untyped-call]  # torch annotates nothing there
        weights = Assembly(config, MetaSource(tensors(config), machine.dialect), ops, "").model()
    lanes = max(DECODE)
    pool = allocate_pool(
        config,
        slots=lanes + 1,
        pages=PAGES,
        staging=max(PREFILL),
        dialect=machine.dialect,
        plain=False,
        device=META,
        revision="",
    )
    metadata = DecodeMetadata(config, pool, ops, META, max_lanes=lanes, max_context=CONTEXT)
    builder = BatchBuilder(config, pool, META)

    def prefill(tokens: int, start: int) -> Batch:
        pages = range(1, 2 + (start + tokens) // PAGE_TOKENS)
        return builder.build([Chunk([2] * tokens, start, 1, pages)])

    def step(batch: Callable[[], Batch]) -> Callable[[], Any]:
        return lambda: forward(config, weights, ops, pool, batch())

    named: list[tuple[str, Callable[[], Any]]] = []
    for count in DECODE:
        shape = Shape(count, (count, count), CONTEXT)
        named.append((f"flash decode {count}", step(partial(metadata.compute, shape))))
    for tokens in PREFILL:
        for start in (0, 5000):
            name = f"flash prefill {tokens} at {start}"
            named.append((name, step(partial(prefill, tokens, start))))
    return named
