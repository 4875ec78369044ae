"""Reads the matrices of a bound checkpoint in the wanted numerics, fused by rows as they arrive.

A fused matrix is allocated once on the device and filled from one source tensor at a time; a
source on a CPU is a view of the mapped file, on a GPU a copy that came through pinned buffers.
Conversions are exact or errors that name the file,
the tensor and the index. Which matrices belong together is load.py's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from isobath.errors import CorruptCheckpoint, NumericsError
from isobath.model.inventory import TensorSpec
from isobath.model.shards import Shards
from isobath.model.staging import Staging
from isobath.numerics import mxfp4, ue8m0
from isobath.numerics.dialect import OCP, Dialect
from isobath.numerics.fp8 import WEIGHT_BLOCK, Fp8Tensor, dequantize, scale_shape
from isobath.numerics.mxfp4 import Mxfp4Tensor
from isobath.numerics.transcode import transcode

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) after every tensor."""


class Reader:
    """Owner of the open files and of the count of bytes read.

    specs: the bound tensors. dialect: of the FP8 tensors to return. exact: widen every matrix to
    float32 instead.
    """

    def __init__(
        self,
        shards: Shards,
        specs: Mapping[str, TensorSpec],
        *,
        dialect: Dialect,
        device: torch.device,
        exact: bool,
        progress: Progress | None,
    ) -> None:
        self.shards, self.specs = shards, specs
        self.dialect, self.device, self.exact = dialect, device, exact
        self.progress = progress
        self.staging = Staging(device) if device.type == "cuda" else None
        self.checks: list[tuple[str, torch.Tensor, int]] = []
        self.done_bytes = 0
        self.total_bytes = sum(s.nbytes for s in specs.values())

    @property
    def dtype(self) -> torch.dtype:
        """Of unquantised matrices and of activations."""
        return torch.float32 if self.exact else torch.bfloat16

    def vector(self, name: str) -> torch.Tensor:
        """A norm weight, bias, sink or mixer: always float32."""
        return self._raw(name).to(torch.float32, copy=True)

    def plain(self, names: Sequence[str]) -> torch.Tensor:
        """Unquantised matrices stacked by rows, in self.dtype."""
        shapes = [self.specs[name].shape for name in names]
        rows, cols = sum(s[0] for s in shapes), shapes[0][1]
        fused = torch.empty(rows, cols, dtype=self.dtype, device=self.device)
        for name, part in zip(names, _rows(fused, shapes), strict=True):
            part.copy_(self._raw(name))
        return fused

    def table(self, name: str, num_experts: int) -> torch.Tensor:
        """A hash routing table: int64 [vocab, k], every entry an expert."""
        table = self._raw(name).clone()
        bad = (table < 0) | (table >= num_experts)
        if bool(bad.any()):
            index = tuple(int(i) for i in bad.nonzero()[0])
            raise CorruptCheckpoint(
                f"tensor {self.shards.label(name)}: expected expert ids 0 to {num_experts - 1}",
                found=f"{int(table[index])} at index {list(index)}, {int(bad.sum())} such in all",
                effect="a token would be sent to an expert that does not exist",
                do="download the file again and compare its checksum",
            )
        return table

    def fp8(self, names: Sequence[str]) -> Fp8Tensor | torch.Tensor:
        """FP8 matrices (names without suffix) stacked by rows: in self.dialect, or float32."""
        shapes = [self.specs[f"{name}.weight"].shape for name in names]
        rows, cols = sum(s[0] for s in shapes), shapes[0][1]
        if self.exact:
            wide = torch.empty(rows, cols, device=self.device)
            for name, part in zip(names, _rows(wide, shapes), strict=True):
                part.copy_(dequantize(self._fp8(name)))
            self._settle()
            return wide
        assert all(s[0] % WEIGHT_BLOCK[0] == 0 for s in shapes[:-1]), (names, shapes)
        data = torch.empty(rows, cols, dtype=torch.uint8, device=self.device)
        scale = data.new_empty(scale_shape((rows, cols), WEIGHT_BLOCK))
        parts = _rows(data, shapes)
        scales = _rows(scale, [scale_shape(s, WEIGHT_BLOCK) for s in shapes])
        for name, part, part_scale in zip(names, parts, scales, strict=True):
            stored = self._fp8(name)
            if self.dialect != OCP:
                self._settle()  # a conversion would meet the NaN first, and know less about it
            source = transcode(stored, self.dialect, name=self._label(name))
            part.copy_(source.data.view(torch.uint8))
            part_scale.copy_(source.scale)
        self._settle()
        return Fp8Tensor(data.view(self.dialect.dtype), scale, self.dialect, WEIGHT_BLOCK)

    def experts(self, groups: Sequence[Sequence[str]]) -> Mxfp4Tensor | torch.Tensor:
        """MXFP4 matrices, those of a group stacked by rows, groups along a new first dimension."""
        shapes = [self.specs[f"{name}.weight"].shape for name in groups[0]]
        count, rows, half = len(groups), sum(s[0] for s in shapes), shapes[0][1]
        if self.exact:
            wide = torch.empty(count, rows, 2 * half, device=self.device)
            for group, out in zip(groups, wide, strict=True):
                for name, part in zip(group, _rows(out, shapes), strict=True):
                    part.copy_(mxfp4.dequantize(self._mxfp4(name)))
            self._settle()
            return wide
        packed = torch.empty(count, rows, half, dtype=torch.uint8, device=self.device)
        scale = packed.new_empty(count, rows, 2 * half // mxfp4.GROUP)
        for group, out, out_scale in zip(groups, packed, scale, strict=True):
            parts = zip(group, _rows(out, shapes), _rows(out_scale, shapes), strict=True)
            for name, part, part_scale in parts:
                source = self._mxfp4(name)
                part.copy_(mxfp4.clear_negative_zero(source.packed))
                part_scale.copy_(source.scale)
        self._settle()
        return Mxfp4Tensor(packed, scale)

    def _raw(self, name: str) -> torch.Tensor:
        """The stored tensor on the device; on a CPU a view of the file, not to be kept."""
        tensor = self.shards.read(name)
        if self.staging is not None:
            tensor = self.staging.upload(tensor)
        self.done_bytes += self.specs[name].nbytes
        if self.progress is not None:
            self.progress(self.done_bytes, self.total_bytes)
        return tensor

    def _fp8(self, name: str) -> Fp8Tensor:
        """The FP8 matrix `name` as stored, in OCP, without NaN."""
        data, scale = self._raw(f"{name}.weight"), self._raw(f"{name}.scale")
        self._refuse_nan(f"{name}.weight", data.view(torch.uint8) & 0x7F, OCP.quiet_nan)
        self._refuse_nan(f"{name}.scale", scale, ue8m0.NAN_BYTE)
        return Fp8Tensor(data, scale, OCP, WEIGHT_BLOCK)

    def _mxfp4(self, name: str) -> Mxfp4Tensor:
        """The MXFP4 matrix `name` as stored; e2m1 codes cannot be NaN, scales can."""
        packed, scale = self._raw(f"{name}.weight"), self._raw(f"{name}.scale")
        self._refuse_nan(f"{name}.scale", scale, ue8m0.NAN_BYTE)
        return Mxfp4Tensor(packed, scale)

    def _refuse_nan(self, name: str, data: torch.Tensor, nan: int) -> None:
        """data: uint8 without a sign. nan: the byte that means NaN, the largest there can be."""
        self.checks.append((name, data.max(), nan))

    def _settle(self) -> None:
        """Judge what _refuse_nan noted, all at once: on a GPU each look would wait for its copy."""
        checks, self.checks = self.checks, []
        if not checks:
            return
        largest = torch.stack([most for _, most, _ in checks]).tolist()
        for (name, _, nan), most in zip(checks, largest, strict=True):
            if most < nan:
                continue
            raw = self.shards.read(name).view(torch.uint8)
            bad = (raw if nan == ue8m0.NAN_BYTE else raw & 0x7F) == nan
            index = tuple(int(i) for i in bad.nonzero()[0])
            raise NumericsError(
                f"tensor {self.shards.label(name)}: byte 0x{nan:02x} at index {list(index)} is NaN",
                found=f"{int(bad.sum())} NaN bytes of {bad.numel()}, sign aside",
                effect="every token that meets this weight would become NaN",
                do="download the file again and compare its checksum",
            )

    def _label(self, name: str) -> str:
        return self.shards.label(f"{name}.weight")


def _rows(fused: torch.Tensor, shapes: Sequence[tuple[int, ...]]) -> Iterator[torch.Tensor]:
    """Views of consecutive rows of `fused`, as many rows each as its source has."""
    start = 0
    for shape in shapes:
        yield fused[start : start + shape[0]]
        start += shape[0]
    assert start == fused.shape[0], (shapes, fused.shape)
