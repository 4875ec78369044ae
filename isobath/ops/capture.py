"""What a captured step may not do, made an error on a CPU.

A step that is captured once and replayed must be the same device work whatever the values are.
Three things break that: the host reads a value, a shape depends on a value, or a value travels from
the host inside the region. `capture_safe()` watches every torch operator and raises CaptureUnsafe
at the first such one, naming the operator and the isobath function that ran it. Work that only
enqueues is allowed. Run the region once before watching it, as one does before capturing: tables
that an op builds on first use are made then.

What a CPU cannot show: `.numpy()` and `from_numpy()` (they share memory; on a device the first does
not work and the second makes a host tensor, whose way to the device is seen), whether a tensor made
in the region has the same address at replay, allocation outside torch, and Python branches on host
integers, which are frozen at capture.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from isobath.errors import CaptureUnsafe

_READS = "the host reads a value"
_SHAPES = "a shape depends on values"
_WRITES = "a value comes from the host"
_MOVES = "a tensor moves between devices"
_ALWAYS = {
    "_local_scalar_dense": _READS,
    "equal": _READS,
    "nonzero": _SHAPES,
    "masked_select": _SHAPES,
    "_unique": _SHAPES,
    "_unique2": _SHAPES,
    "unique_dim": _SHAPES,
    "unique_dim_consecutive": _SHAPES,
    "unique_consecutive": _SHAPES,
    "bincount": _SHAPES,
    "lift_fresh": _WRITES,
    "lift_fresh_copy": _WRITES,
}
_INDEXING = {"index", "index_put", "index_put_", "_unsafe_index"}
_COPIES = {"_to_copy", "copy_", "copy"}
_OWN = ("isobath.ops.", "isobath.model.", "isobath.cache.")


@contextmanager
def capture_safe(region: str = "decode") -> Iterator[None]:
    """Raise CaptureUnsafe at the first operator that may not run in a captured `region`."""
    methods = _Methods(region)
    with methods, _Operators(region, methods):
        yield


class _Operators(TorchDispatchMode):
    """Sees every operator that reaches the dispatcher."""

    def __init__(self, region: str, methods: _Methods) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch annotates nothing here
        self.region, self.methods = region, methods

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        harmless = name == "lift_fresh" and (self.methods.filling or _is_shared(args[0]))
        reason = None if harmless else _reason(name, args, kwargs)
        if reason:
            raise _unsafe(self.region, str(func), reason)
        with self:  # inference mode hands over compound operators whole: look into them
            parts = func.decompose(*args, **kwargs)
        return func(*args, **kwargs) if parts is NotImplemented else parts


class _Methods(TorchFunctionMode):
    """Sees methods: `tolist` reads a CPU tensor without calling an operator, and `x[i] = 1.5` wraps
    its number in a tensor on a CPU where a device would be filled. filling: in the latter."""

    def __init__(self, region: str) -> None:
        super().__init__()
        self.region, self.filling = region, False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.tolist:
            raise _unsafe(self.region, "Tensor.tolist", _READS)
        is_fill = func is torch.Tensor.__setitem__ and isinstance(args[2], int | float)
        self.filling = is_fill
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.filling = False


def _reason(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """Why the operator called `name` is unsafe with these arguments, or None."""
    if name in _ALWAYS:
        return _ALWAYS[name]
    if name in _INDEXING:
        dtypes = {i.dtype for i in args[1] if i is not None}
        return _SHAPES if dtypes & {torch.bool, torch.uint8} else None
    if name == "repeat_interleave":
        return _SHAPES
    if name in _COPIES:
        return _MOVES if _crosses_devices(args, kwargs) else None
    return None


def _crosses_devices(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    here = args[0].device
    there = kwargs.get("device")
    if there is None and len(args) > 1 and isinstance(args[1], torch.Tensor | torch.device):
        there = args[1].device if isinstance(args[1], torch.Tensor) else args[1]
    return there is not None and torch.device(there) != here


def _is_shared(x: torch.Tensor) -> bool:
    """Whether the memory is numpy's, as from_numpy() leaves it, and not an allocation of torch."""
    return not x.untyped_storage().resizable()


def _unsafe(region: str, operator: str, reason: str) -> CaptureUnsafe:
    return CaptureUnsafe(
        f"{region}: {operator} may not run in a captured step",
        found=f"called by {_caller()}",
        effect=f"{reason}, so a replay would repeat the first step's answer or not capture at all",
        do="compute it on the host before the step, or on the device without reading it back",
    )


def _caller() -> str:
    """module.function:line of the innermost frame in isobath's ops, model or cache."""
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(_OWN) and module != __name__:
            return f"{module}.{frame.f_code.co_qualname}:{frame.f_lineno}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "code outside isobath's ops, model and cache"
