"""Whether a library's GEMM can run here: asked once, when its backend is loaded.

Owns the refusals, so that a backend that cannot run says why before a weight is prepared for it.
It looks at the machine (target.py), at the versions torch was built with, and at signatures; it
computes nothing, and what a library's result is worth is for the op's cases to say.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from isobath.errors import BackendUnavailable
from isobath.target import Target

BLOCKWISE_CUDA = (12, 9)
"""cuBLASLt takes scales of 1 x 128 and 128 x 128 blocks from CUDA 12.9 on, on sm_90 alone."""


def require_cuda(backend: str, here: Target) -> None:
    """Raises BackendUnavailable unless this is an NVIDIA GPU."""
    if here.kind != "cuda":
        raise BackendUnavailable(
            f"{backend}: needs cuBLAS",
            found=f"{here.arch} ({here.kind})",
            effect="the product would be computed by another library, or not at all",
            do="bind the op to triton",
        )


def require_blockwise(backend: str, here: Target, cuda: str | None) -> None:
    """Raises BackendUnavailable unless cuBLASLt takes block scales here.

    cuda: the version torch was built with, as torch.version.cuda; None without.
    """
    require_cuda(backend, here)
    version = tuple(int(part) for part in (cuda or "0.0").split(".")[:2])
    if here.arch != "sm_90" or version < BLOCKWISE_CUDA:
        raise BackendUnavailable(
            f"{backend}: needs FP8 products with block scales, sm_90 and CUDA 12.9",
            found=f"{here.arch}, torch built with CUDA {cuda}",
            effect="one scale a row or a tensor would be applied to all of its blocks",
            do="bind fp8_linear to triton",
        )


def require_arch(backend: str, here: Target, arch: str) -> None:
    """Raises BackendUnavailable unless the machine is an `arch`."""
    if here.arch.split(":")[0] != arch:
        raise BackendUnavailable(
            f"{backend}: needs {arch}",
            found=here.arch,
            effect="its FP8 dialect and its tuned tiles would be another machine's",
            do="bind the op to triton",
        )


def function_of(library: ModuleType, name: str, parameters: tuple[str, ...]) -> Callable[..., Any]:
    """library.name, a function whose first parameters are called `parameters`.

    Raises BackendUnavailable when it is absent or takes others: a library that has changed its
    arguments since it was read is not called with the old ones.
    """
    function = getattr(library, name, None)
    found = f"no function {name}"
    if callable(function):
        try:
            names = tuple(inspect.signature(function).parameters)
        except (TypeError, ValueError):
            names = ()
        found = f"{name}({', '.join(names)})"
        if names[: len(parameters)] == parameters:
            return function
    version = getattr(library, "__version__", "of unknown version")
    raise BackendUnavailable(
        f"{library.__name__}: expected {name}({', '.join(parameters)})",
        found=f"{found} in {library.__name__} {version}",
        effect="an argument would be taken for another one",
        do="bind the op to triton, or install the release that has this signature",
    )
