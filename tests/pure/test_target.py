"""Which dialect an architecture speaks, decided by arch string and never by product name."""

from __future__ import annotations

import pytest
import torch

from isobath.errors import ConfigError
from isobath.numerics import FNUZ, OCP
from isobath.target import ARCHS, detect, dialect_of_arch, resolve_dialect


@pytest.mark.parametrize(
    ("arch", "dialect"),
    [
        ("gfx942:sramecc+:xnack-", FNUZ),  # MI300X and MI325X report this
        ("gfx942", FNUZ),
        ("gfx940", FNUZ),
        ("gfx950:sramecc+:xnack-", OCP),  # MI355X
        ("gfx1201", OCP),
        ("sm_89", OCP),
        ("sm_90", OCP),
        ("sm_100", OCP),
        ("cpu", OCP),
    ],
)
def test_arch_decides_dialect(arch: str, dialect: object) -> None:
    assert dialect_of_arch(arch) == dialect


@pytest.mark.parametrize("arch", ["gfx90a", "gfx1100", "sm_80", "gfx9421", "MI300X", ""])
def test_arch_without_known_dialect_is_refused_with_what_to_do(arch: str) -> None:
    with pytest.raises(ConfigError) as error:
        dialect_of_arch(arch)
    assert repr(arch) in error.value.asked
    assert "ARCHS" in error.value.do and "'fnuz'" in error.value.do


def test_only_gfx94x_speaks_fnuz() -> None:
    assert {arch for arch, d in ARCHS.items() if d == FNUZ} == {"gfx940", "gfx941", "gfx942"}


def test_named_dialect_makes_unknown_arch_usable() -> None:
    assert resolve_dialect("fnuz", "gfx90a") == FNUZ
    assert resolve_dialect("ocp", "gfx942") == OCP


@pytest.mark.parametrize("choice", ["e4m3", "OCP", ""])
def test_unknown_dialect_word_is_refused(choice: str) -> None:
    with pytest.raises(ConfigError, match="auto, ocp, fnuz"):
        resolve_dialect(choice, "cpu")


@pytest.mark.parametrize(("choice", "dialect"), [("auto", OCP), ("ocp", OCP), ("fnuz", FNUZ)])
def test_cpu_is_detected_in_either_dialect(choice: str, dialect: object) -> None:
    target = detect("cpu", choice)
    assert (target.kind, target.arch, target.dialect) == ("cpu", "cpu", dialect)
    assert target.device == torch.device("cpu")
    assert target.memory_bytes > 1 << 28  # less could not have started this interpreter


def test_detection_agrees_with_torch_about_a_gpu() -> None:
    if torch.cuda.is_available():
        assert detect().kind == ("rocm" if torch.version.hip else "cuda")
        return
    assert detect().kind == "cpu"
    with pytest.raises(ConfigError, match="sees no GPU"):
        detect("gpu")


def test_unknown_device_word_is_refused() -> None:
    with pytest.raises(ConfigError, match="auto, gpu, cpu"):
        detect("tpu")
