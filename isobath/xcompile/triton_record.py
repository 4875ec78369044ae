"""Launches written down instead of run: what Triton's JIT would compile, and with what.

    with recording(MACHINES["gfx942"], launches.append):
        some_launcher(cpu_tensors)

Triton's own binder decides signature, constexprs and attributes (alignment, and for AMD whether a
tensor's storage is smaller than 2 GiB), as it would on the machine; only its last step, compiling
and launching, is replaced. Launchers see the machine through ops/tl_common.assume. Tensors may lie
on the CPU or on torch's meta device. The places where this touches Triton's inside, the same in 3.6
to 3.9, are JITFunction.run and _do_compile and the active driver.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from isobath.errors import ConfigError
from isobath.ops.tl_common import LaunchTarget, assume
from isobath.xcompile.target import Machine


@dataclass(frozen=True, slots=True, eq=False)
class Argument:
    """One run-time argument. type: Triton's, "*fp32" or "i64". value: the tensor or number of this
    launch."""

    name: str
    type: str
    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Launch:
    """One launch of one kernel. signature: name -> type, "constexpr" for what is compiled in.
    constexprs, attrs: by Triton's argument path. options: num_warps and the like. grid: programs in
    x, y, z. arguments: those that the machine code takes, in its order."""

    machine: Machine
    function: JITFunction[Any]
    signature: dict[str, str]
    constexprs: dict[tuple[int, ...], Any]
    attrs: dict[tuple[int, ...], Any]
    options: dict[str, Any]
    grid: tuple[int, int, int]
    arguments: tuple[Argument, ...]

    @property
    def name(self) -> str:
        return str(self.function.fn.__name__)

    @property
    def specialisation(self) -> str:
        """Equal for launches that the JIT specialises alike, whatever the kernel's source."""
        values = {at: _plain(value) for at, value in self.constexprs.items()}
        text = f"{self.machine.arch} {self.signature} {values} {self.attrs} {self.options}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def key(self) -> tuple[str, str]:
        """Equal for launches that run the same machine code."""
        return str(self.function.cache_key), self.specialisation


@contextmanager
def recording(machine: Machine, act: Callable[[Launch], None]) -> Iterator[None]:
    """Call act(launch) wherever a kernel would be launched on `machine`; nothing is compiled.

    Raises ConfigError when this process runs Triton's interpreter, whose functions have no types.
    """
    if triton.knobs.runtime.interpret:
        raise ConfigError(
            "cross-compilation in a process with TRITON_INTERPRET",
            effect="kernels would be interpreted, not compiled",
            do="unset TRITON_INTERPRET",
        )
    run, compile_, before = JITFunction.run, JITFunction._do_compile, driver._active
    found: list[dict[str, Any]] = []

    def note(self: Any, key: Any, signature: Any, device: Any, *rest: Any) -> None:
        constexprs, options, attrs, _ = rest
        found.append(
            {
                "signature": dict(signature),
                "constexprs": dict(constexprs),
                "attrs": dict(attrs),
                "options": {k: v for k, v in vars(options).items() if k != "extern_libs"},
            }
        )

    def instead(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        run(self, *args, grid=grid, warmup=True, **kwargs)
        values = _bound(self, args, kwargs)
        facts = found.pop()
        types = facts["signature"]
        passed = (Argument(n, types[n], v) for n, v in values.items() if types[n] != "constexpr")
        size = grid(values) if callable(grid) else grid
        act(Launch(machine, self, **facts, grid=_three(size), arguments=tuple(passed)))

    JITFunction.run, JITFunction._do_compile = instead, note
    driver.set_active(_Absent(machine))
    try:
        with assume(LaunchTarget(machine.kind, machine.compute_units)):
            yield
    finally:
        JITFunction.run, JITFunction._do_compile = run, compile_
        driver._active = before


class _Absent:
    """The driver of a machine that is not here: enough for the binder."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def get_current_target(self) -> GPUTarget:
        return gpu_target(self._machine)

    def get_current_device(self) -> str:
        """Any key under which Triton may keep its binder for this machine."""
        return f"absent {self._machine.arch}"

    def get_current_stream(self, device: str) -> int:
        return 0


def gpu_target(machine: Machine) -> GPUTarget:
    return GPUTarget(machine.kind, machine.code, machine.wave)


def _bound(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Every parameter of the kernel by name, defaults filled in."""
    own = {name: value for name, value in kwargs.items() if name in function.arg_names}
    bound = function.signature.bind(*args, **own)
    bound.apply_defaults()
    return dict(bound.arguments)


def _three(grid: Any) -> tuple[int, int, int]:
    x, y, z = (*grid, 1, 1)[:3]
    return int(x), int(y), int(z)


def _plain(value: Any) -> str:
    """A constexpr as text: a jitted function by its source."""
    return str(value.cache_key) if isinstance(value, JITFunction) else repr(value)
