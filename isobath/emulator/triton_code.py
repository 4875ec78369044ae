"""Triton's own compiler for gfx942: a JIT function and its arguments become a Program.

The specialisation (divisibility by 16, pointer range, integers equal to one, None) is what Triton's
JIT would choose for these arguments: its own binder is asked, with the addresses that the emulator
gave. No GPU and no ROCm are needed. The only file here that imports Triton.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isobath.emulator.autotune import choices
from isobath.emulator.buffers import HostArray, host_array, is_array
from isobath.emulator.code import Program, parse_text
from isobath.emulator.execute import MOST_LDS, MOST_WARPS
from isobath.emulator.faults import LaunchError

TARGET = ("hip", "gfx942", 64)


@dataclass(frozen=True, slots=True)
class TritonCode:
    """A compiled kernel. arguments: what the kernarg segment receives, in order; meta: every
    argument by name, for a grid that is a function."""

    program: Program
    lds_bytes: int
    num_warps: int
    arguments: tuple[HostArray | int | float, ...]
    meta: Mapping[str, Any]
    hsaco: bytes
    assembly: str


class _Pointer:
    """An array as the JIT's binder wants to see it."""

    def __init__(self, array: HostArray) -> None:
        self.array = array
        self.dtype = array.dtype

    def data_ptr(self) -> int:
        return self.array.address

    def ptr_range(self) -> int:
        """Bytes from the address on that offsets reach. Below 2 GiB the backend takes offsets for
        non-negative; it asks so only of what it knows, and an array may also lie in front."""
        value: Any = self.array.keep
        if hasattr(value, "ptr_range"):
            return int(value.ptr_range())
        torch = sys.modules.get("torch")
        if torch and isinstance(value, torch.Tensor):
            return int(value.untyped_storage().nbytes())
        known = isinstance(value, np.ndarray) and self.array.low == self.array.address
        return self.array.high - self.array.low if known else 1 << 31


def compile_kernel(
    kernel: Any, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> TritonCode:
    """Compile a JIT function (decorated or not) for gfx942 as a launch with these arguments would;
    of several configurations the first that an MI300X can hold, or the first if none can.

    kwargs: parameters by name and further compile options; options: num_warps, num_stages.
    """
    from triton.compiler.errors import CompileTimeAssertionFailure

    found: list[TritonCode] = []
    refused: list[CompileTimeAssertionFailure] = []
    for function, named in choices(kernel, args, dict(options) | dict(kwargs)):
        try:
            found.append(_compile(function, args, named))
        except CompileTimeAssertionFailure as error:  # a configuration the kernel does not allow
            refused.append(error)
            continue
        if found[-1].lds_bytes <= MOST_LDS and found[-1].num_warps <= MOST_WARPS:
            return found[-1]
    if not found:
        raise refused[0]
    return found[0]


def _compile(function: Any, args: Sequence[Any], named: Mapping[str, Any]) -> TritonCode:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile, make_backend
    from triton.runtime.jit import create_function_from_signature

    _refuse_unknown(function)
    target = GPUTarget(*TARGET)
    backend = make_backend(target)
    names = [*function.arg_names, *(f"argument {k}" for k in range(len(args)))]
    wrapped = [_wrap(name, value) for name, value in zip(names, args, strict=False)]
    named = {"debug": False} | {name: _wrap(name, value) for name, value in named.items()}
    binder = create_function_from_signature(function.signature, function.params, backend)
    try:
        bound, specialization, extra = binder(*wrapped, **named)
    except TypeError as error:
        raise LaunchError(
            f"emulator: {function.__name__} was not called with its parameters",
            found=str(error),
            do=f"pass {', '.join(function.arg_names)}",
        ) from error
    chosen, signature, constexprs, attributes = function._pack_args(
        backend, named, bound, specialization, extra
    )
    made = _gluon_source() if _is_gluon(function) else ASTSource
    source = made(function, signature, constexprs, attributes)
    compiled = compile(source, target=target, options=chosen.__dict__)
    arguments = tuple(
        part for name, kind in signature.items() for part in _passed(name, bound[name], kind)
    )
    return TritonCode(
        parse_text(compiled.asm["amdgcn"]),
        compiled.metadata.shared,
        compiled.metadata.num_warps,
        arguments,
        {name: _plain(value) for name, value in bound.items()},
        compiled.asm["hsaco"],
        compiled.asm["amdgcn"],
    )


def _is_gluon(function: Any) -> bool:
    return bool(getattr(function, "is_gluon", lambda: False)())


def _gluon_source() -> Any:
    """How Gluon, whose layouts are written out, is compiled; its functions know only once they have
    been launched on a GPU."""
    from triton.experimental.gluon._runtime import GluonASTSource

    return GluonASTSource


def _wrap(name: str, value: Any) -> Any:
    """An argument as the binder takes it: NumPy's scalars are numbers to it, too."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_wrap(f"{name}[{k}]", part) for k, part in enumerate(value))
    return _Pointer(host_array(name, value)) if is_array(value) else value


def _passed(name: str, value: Any, kind: Any) -> list[HostArray | int | float]:
    """What the kernarg segment receives for one parameter; tuples and descriptors are taken apart
    as AMD's launcher does."""
    if kind == "constexpr":
        return []
    if isinstance(kind, tuple):
        parts = enumerate(zip(value, kind, strict=True))
        return [one for k, (v, t) in parts for one in _passed(f"{name}[{k}]", v, t)]
    if not str(kind).startswith("tensordesc"):
        return [_number_or_array(name, value, kind)]
    flags = [value.padding == "nan"]
    if hasattr(value, "round_f32_to_tf32"):  # Triton 3.9
        flags.append(value.round_f32_to_tf32)
    base = value.base.array if isinstance(value.base, _Pointer) else host_array(name, value.base)
    sizes = [int(n) for n in (*value.shape, *value.strides)]
    return [base, *sizes, *(int(flag) for flag in flags), *sizes]


def _plain(value: Any) -> Any:
    return value.array.keep if isinstance(value, _Pointer) else value


def _number_or_array(name: str, value: Any, kind: object) -> HostArray | int | float:
    if isinstance(value, _Pointer):
        return value.array
    if isinstance(value, bool | int) and not str(kind).startswith(("fp", "bf")):
        return int(value)
    if isinstance(value, int | float):
        return float(value)
    raise LaunchError(
        f"emulator: argument {name} is a {type(value).__name__}",
        found=f"Triton passes it as {kind}",
        do="pass arrays, tensors, numbers, tuples of these or tensor descriptors",
    )


def _refuse_unknown(function: Any) -> None:
    if not hasattr(function, "signature") or not hasattr(function, "params"):
        raise LaunchError("emulator: this Triton version's JIT function is not understood")
