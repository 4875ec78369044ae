"""A backend that cannot run here says why when it is loaded, before a weight is prepared for it.

The libraries themselves are absent from a CPU machine: machines and modules are given as values.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from isobath.errors import BackendUnavailable
from isobath.numerics.dialect import FNUZ
from isobath.ops.libraries import (
    function_of,
    require_arch,
    require_blockwise,
    require_cuda,
)
from isobath.ops.table import contract
from isobath.target import Target, detect

CPU = detect("cpu")
H200 = replace(CPU, name="H200", arch="sm_90", kind="cuda")
B200 = replace(H200, name="B200", arch="sm_100")
MI300X = Target("MI300X", "gfx942:sramecc+:xnack-", FNUZ, 192 << 30, "rocm")
PARAMETERS = ("XQ", "WQ", "x_scale", "w_scale", "dtype")


def library(function: Any = None) -> ModuleType:
    """A module called aiter that holds `function` as its GEMM."""
    module = ModuleType("aiter")
    if function is not None:
        module.gemm_a8w8_blockscale = function  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("op", "backend"),
    [
        ("fp8_linear", "cublas"),
        ("fp8_linear", "aiter"),
        ("fp8_linear", "triton_tma"),
        ("linear", "cublas"),
        ("grouped_project", "cublas"),
    ],
)
def test_library_route_is_refused_on_a_cpu_with_all_four_parts(op: str, backend: str) -> None:
    if detect().kind != "cpu":
        return  # what a GPU's own libraries do is measured by the doctor
    with pytest.raises(BackendUnavailable) as caught:
        contract(op).backend(backend)
    error = caught.value
    assert f"{op}/{backend}" in error.asked
    assert "cpu" in error.found
    assert error.effect and error.do


def test_cublas_is_for_nvidia_alone() -> None:
    require_cuda("linear/cublas", H200)
    for machine in (CPU, MI300X):
        with pytest.raises(BackendUnavailable, match=machine.arch.split(":")[0]):
            require_cuda("linear/cublas", machine)


@pytest.mark.parametrize("cuda", ["12.9", "13.0", "13.1"])
def test_block_scales_are_accepted_from_cuda_12_9_on(cuda: str) -> None:
    require_blockwise("fp8_linear/cublas", H200, cuda)


@pytest.mark.parametrize(
    ("machine", "cuda"),
    [(H200, "12.8"), (H200, None), (B200, "13.0"), (MI300X, None), (CPU, "13.0")],
)
def test_block_scales_are_refused_elsewhere(machine: Target, cuda: str | None) -> None:
    with pytest.raises(BackendUnavailable):
        require_blockwise("fp8_linear/cublas", machine, cuda)


def test_architecture_is_compared_without_its_features() -> None:
    require_arch("fp8_linear/aiter", MI300X, "gfx942")
    with pytest.raises(BackendUnavailable, match="sm_90"):
        require_arch("fp8_linear/aiter", H200, "gfx942")


def test_function_with_the_expected_parameters_is_taken() -> None:
    def gemm(XQ: Any, WQ: Any, x_scale: Any, w_scale: Any, dtype: Any = None, more: Any = 0) -> str:
        return "called"

    assert function_of(library(gemm), "gemm_a8w8_blockscale", PARAMETERS) is gemm


def swapped(XQ: Any, WQ: Any, w_scale: Any, x_scale: Any, dtype: Any) -> None: ...


def opaque(*args: Any, **kwargs: Any) -> None: ...


def fewer(XQ: Any, WQ: Any) -> None: ...


@pytest.mark.parametrize("function", [None, swapped, opaque, fewer, 7, dict.fromkeys])
def test_function_with_other_parameters_is_refused(function: Any) -> None:
    with pytest.raises(BackendUnavailable) as caught:
        function_of(library(function), "gemm_a8w8_blockscale", PARAMETERS)
    assert "gemm_a8w8_blockscale(XQ, WQ, x_scale, w_scale, dtype)" in caught.value.asked
    assert "aiter of unknown version" in caught.value.found
