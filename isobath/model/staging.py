"""Host memory to a GPU at the speed of the slower of disk and bus: two pinned buffers by turns.

While one buffer's copy to the device runs, the next part of the mapped file is read into the other.
Everything goes through the current stream, so a kernel launched after upload() sees the data.
"""

from __future__ import annotations

import torch

CHUNK_BYTES = 64 << 20
"""Large enough that starting a copy costs nothing; an estimate, not measured."""


class Staging:
    """Owner of the pinned buffers."""

    def __init__(self, device: torch.device, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.device = device
        self._buffers = [
            torch.empty(chunk_bytes, dtype=torch.uint8, pin_memory=True) for _ in range(2)
        ]
        self._copied = [torch.cuda.Event() for _ in range(2)]
        self._turn = 0

    def upload(self, source: torch.Tensor) -> torch.Tensor:
        """A copy of a contiguous CPU tensor on the device; the source may go once this returns."""
        target = torch.empty(source.shape, dtype=source.dtype, device=self.device)
        read, write = (t.reshape(-1).view(torch.uint8) for t in (source, target))
        chunk = len(self._buffers[0])
        for start in range(0, len(read), chunk):
            part = read[start : start + chunk]
            buffer, copied = self._buffers[self._turn], self._copied[self._turn]
            copied.synchronize()  # of an event never recorded returns at once
            buffer[: len(part)].copy_(part)
            write[start : start + chunk].copy_(buffer[: len(part)], non_blocking=True)
            copied.record()
            self._turn ^= 1
        return target
