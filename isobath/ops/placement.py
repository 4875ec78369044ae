"""Where a measured call's tensors lie: apart, between poison, beyond 2 GiB.

A right kernel does not care. A wrong one reads past its rows, leaves part of its output unwritten
or computes an address in 32 bits, and is right by luck as long as memory is small and zero. Poison
is the byte 0xFF: NaN in every float format here (0x80 in FNUZ), -1 as an integer. Works on a CPU,
too, so that each fault can be planted there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from isobath.cache.view import CacheView, Pages
from isobath.numerics.dialect import FNUZ
from isobath.ops.contract import Arguments

POISON = 0xFF
BAND_BYTES = 4096
"""Poison before and after each guarded tensor; a multiple of every alignment a kernel asks for."""
FAR_BYTES = 1 << 31
_ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


def rebuild(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """`value` with every tensor in it (in dicts, tuples, records) replaced by change(tensor)."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: rebuild(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(rebuild(item, change) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        old = {f.name: getattr(value, f.name) for f in fields(value)}
        new = {name: rebuild(item, change) for name, item in old.items()}
        changed = any(new[name] is not old[name] for name in old)
        return replace(value, **new) if changed else value
    return value


def tensors(value: Any) -> list[torch.Tensor]:
    """Every tensor inside arguments, in the order in which rebuild() meets them."""
    found: list[torch.Tensor] = []

    def note(t: torch.Tensor) -> torch.Tensor:
        found.append(t)
        return t

    rebuild(value, note)
    return found


def copied(args: Arguments, device: torch.device) -> Arguments:
    """The same arguments in memory of their own on `device`, strides kept."""

    def copy(t: torch.Tensor) -> torch.Tensor:
        if any(s == 0 and n > 1 for s, n in zip(t.stride(), t.shape, strict=True)):
            return t.to(device, copy=True)
        return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=device).copy_(t)

    new: Arguments = rebuild(args, copy)
    return new


class Poisoned(TorchDispatchMode):
    """While active, memory that torch.empty and its kin hand out is filled with `byte`."""

    def __init__(self, byte: int = POISON) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch annotates nothing here
        self.byte = byte

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in _ALLOCATIONS and out.numel():
            raw = torch.empty(0, dtype=torch.uint8, device=out.device)
            raw.set_(out.untyped_storage()).fill_(self.byte)
        return out


@dataclass(frozen=True, slots=True)
class Guarded:
    """Arguments whose tensors lie between bands of poison. bands: (buffer, bytes inside, byte)."""

    args: Arguments
    bands: tuple[tuple[torch.Tensor, int, int], ...]

    def whole(self) -> bool:
        """Whether nothing was written into a band."""
        return all(
            bool(
                (buffer[:BAND_BYTES] == byte).all() & (buffer[BAND_BYTES + inside :] == byte).all()
            )
            for buffer, inside, byte in self.bands
        )


def guarded(args: Arguments) -> Guarded:
    """Move every tensor between bands of poison; gaps between strided rows are poisoned, too."""
    bands: list[tuple[torch.Tensor, int, int]] = []

    def move(t: torch.Tensor) -> torch.Tensor:
        spread = list(zip(t.stride(), t.shape, strict=True))
        if t.numel() == 0 or any(s == 0 and n > 1 for s, n in spread):
            return t
        inside = (1 + sum(s * (n - 1) for s, n in spread)) * t.element_size()
        byte = FNUZ.quiet_nan if t.dtype == FNUZ.dtype else POISON
        size = 2 * BAND_BYTES + inside
        buffer = torch.full((size,), byte, dtype=torch.uint8, device=t.device)
        flat = buffer[BAND_BYTES : BAND_BYTES + inside].view(t.dtype)
        moved = flat.as_strided(t.shape, t.stride(), flat.storage_offset()).copy_(t)
        bands.append((buffer, inside, byte))
        return moved

    return Guarded(rebuild(args, move), tuple(bands))


Recall = Callable[[Arguments], Arguments]


def beyond_2_gib(args: Arguments, rows: Mapping[str, str]) -> tuple[Arguments, Recall]:
    """Move caches beyond 2 GiB of their own buffer, and their row numbers with them.

    rows: Op.rows. As much poison again lies before the buffer, so that a byte offset that wrapped
    to a negative one reads poison instead of ending the process. Returns the new arguments, and
    what turns them back after a call: caches cut to their own rows, row numbers as they were.
    """
    new, shifts = dict(args), dict[str, int]()
    for cache, index in rows.items():
        if args.get(cache) is not None:
            unit = args[index].page_rows if isinstance(args[index], Pages) else 1
            block = 512 * unit  # keeps the first row's address as aligned as it was
            needed = -(-FAR_BYTES // args[cache].bytes.shape[1] // block) * block
            shifts[index] = max(shifts.get(index, 0), needed)
    for cache, index in rows.items():
        if index in shifts and args.get(cache) is not None:
            new[cache] = _moved(args[cache], shifts[index])
            new[index] = _shifted(args[index], shifts[index])

    def recall(after: Arguments) -> Arguments:
        cut = {c: shifts[i] for c, i in rows.items() if after.get(c) is not None}
        caches = {c: replace(after[c], bytes=after[c].bytes[shift:]) for c, shift in cut.items()}
        return after | {i: args[i] for i in shifts} | caches

    return new, recall


def _moved(cache: CacheView, shift: int) -> CacheView:
    count, row_bytes = cache.bytes.shape
    buffer = torch.empty(2 * shift + count, row_bytes, dtype=torch.uint8, device=cache.bytes.device)
    if buffer.is_cuda:  # on a CPU untouched pages cost nothing, and are not what they should be
        buffer.fill_(POISON)
    buffer[2 * shift :] = cache.bytes
    return replace(cache, bytes=buffer[shift:])


def _shifted(index: torch.Tensor | Pages, shift: int) -> torch.Tensor | Pages:
    if isinstance(index, Pages):
        return replace(index, table=index.table + shift // index.page_rows)
    return torch.where(index >= 0, index + shift, index)
