"""What an op promises. Its contract, reference and cases are product code, beside its kernels.

One folder an op: `__init__.py` holds the contract (`OP`) and its typed call, `reference.py` the
plain fp32 meaning, `cases.py` the inputs every backend is judged on, `<backend>_kernel.py` each
implementation. In the last three files the op is a function of the op's own name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

import torch

from isobath.errors import BackendUnavailable
from isobath.numerics.compare import Agreement
from isobath.numerics.dialect import Dialect

Arguments = dict[str, Any]
PROPERTIES = ("deterministic", "graph_safe", "batch_invariant")


class Make(Protocol):
    """Builds one case's keyword arguments. Everything random comes from `generator` (a CPU one)."""

    def __call__(
        self, dialect: Dialect, device: torch.device, generator: torch.Generator
    ) -> Arguments: ...


@dataclass(frozen=True, slots=True)
class Case:
    """One set of inputs. name: unique in the op. small: cheap enough for the gfx942 emulator.

    unrounded: for ops with quantised inputs, maps the arguments to those before quantisation; the
    reference on them tells the format's error from the kernel's. large: made and judged on a GPU
    alone (full model width, for times that mean something); its reference runs there, too. far: the
    caches named in Op.rows are moved beyond 2 GiB before a backend sees them; a GPU alone.
    """

    name: str
    make: Make
    small: bool = True
    unrounded: Callable[[Arguments], Arguments] | None = None
    large: bool = False
    far: bool = False

    @property
    def gpu_only(self) -> bool:
        """Whether a CPU leaves this case out."""
        return self.large or self.far


Observe = Callable[[Any, Arguments], Mapping[str, torch.Tensor]]
"""(result, arguments after the call) -> the tensors to compare, decoded to comparable values."""

Select = Callable[[Arguments, list[int]], Arguments]
"""(arguments, rows) -> the same call on these rows alone; observed row i is that of rows[i]."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one call must do at least. nbytes: read and written once each. flops: multiplications
    and additions of its matrix products, 0 where they do not matter; fp8: whether in FP8."""

    nbytes: int
    flops: int = 0
    fp8: bool = False


def observe_result(result: Any, args: Arguments) -> Mapping[str, torch.Tensor]:
    """The returned tensor, or each member of a returned tuple."""
    outputs = result if isinstance(result, tuple) else (result,)
    return {f"out{i}": t for i, t in enumerate(outputs)}


@dataclass(frozen=True, slots=True)
class Op:
    """A contract.

    name: the folder's name. signature: a Protocol, the typed call. agree: how close a backend must
    come to the reference. must: properties a backend needs to be chosen. weights: arguments that a
    backend may repack once at load (its `prepare`). writes: arguments that are changed in place.
    asm: per target, substrings that the machine code must hold ('!' prefix: must not); "~spills":
    another backend is that machine's own, so what the Triton kernels spill is not judged. backends:
    preference order among equals. source: where the maths comes from. rows: cache argument -> the
    argument that names its rows (int64 of any shape, -1 absent, or Pages). work: the least that a
    call on these arguments must do, for its share of the machine's ceilings.
    """

    name: str
    signature: type
    agree: Agreement
    source: str
    must: tuple[str, ...] = ("deterministic",)
    weights: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    observe: Observe = observe_result
    select: Select | None = None
    asm: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    backends: tuple[str, ...] = ("torch",)
    rows: Mapping[str, str] = field(default_factory=dict)
    work: Callable[[Arguments], Work] | None = None

    def __post_init__(self) -> None:
        assert set(self.must) <= set(PROPERTIES), self.must
        assert "batch_invariant" not in self.must or self.select, f"{self.name}: select= is missing"

    def reference(self) -> Callable[..., Any]:
        """The fp32 reference implementation."""
        call: Callable[..., Any] = getattr(self._module("reference"), self.name)
        return call

    def cases(self) -> tuple[Case, ...]:
        """The inputs every backend is judged on."""
        cases: tuple[Case, ...] = self._module("cases").CASES
        return cases

    def backend(self, name: str) -> Backend:
        """The implementation `name`; "reference" is always one. Raises BackendUnavailable."""
        if name == "reference":
            return Backend(self.name, name, self.reference(), keep)
        if name not in self.backends:
            raise BackendUnavailable(
                f"{self.name}: no backend called {name!r}",
                found=", ".join(("reference", *self.backends)),
                do="choose one of these",
            )
        try:
            module = self._module(f"{name}_kernel")
        except ImportError as error:
            raise BackendUnavailable(
                f"{self.name}: backend {name!r} cannot be loaded",
                found=str(error),
                do=f"install what it needs, or bind {self.name} to another backend",
            ) from error
        prepare = getattr(module, "prepare", keep)
        return Backend(self.name, name, getattr(module, self.name), prepare)

    def _module(self, leaf: str) -> ModuleType:
        return importlib.import_module(f"isobath.ops.{self.name}.{leaf}")


def keep(weight: Any) -> Any:
    """The `prepare` of a backend that takes weights as they are."""
    return weight


@dataclass(frozen=True, slots=True)
class Backend:
    """One implementation: call it like the op; `prepare` repacks one weight, once, at load."""

    op: str
    name: str
    call: Callable[..., Any]
    prepare: Callable[[Any], Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)
