"""What this machine is: the only place that asks.

A target is known by its architecture (gfx942, sm_90), never by its product name: MI300X and MI325X
are both gfx942 and speak FNUZ, MI355X is gfx950 and speaks OCP. `dialect="auto"` is resolved here
and passed down as a value; nothing below asks a platform again.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import torch

from isobath.errors import ConfigError
from isobath.numerics.dialect import DIALECTS, FNUZ, OCP, Dialect

ARCHS: dict[str, Dialect] = {
    "cpu": OCP,  # decodes either; the checkpoint's own needs no conversion
    **dict.fromkeys(("gfx940", "gfx941", "gfx942"), FNUZ),
    **dict.fromkeys(("gfx950", "gfx1200", "gfx1201", "gfx1250"), OCP),
    **dict.fromkeys(("sm_89", "sm_90", "sm_100", "sm_103", "sm_110", "sm_120", "sm_121"), OCP),
}
"""The FP8 dialect that each architecture's matrix units read. A new GPU is one row."""


@dataclass(frozen=True, slots=True)
class Target:
    """name: the product, for people only. arch: as the compiler calls it. dialect: of every FP8
    byte that is written here. memory_bytes: of the device (of the machine, on a CPU). kind: "cpu",
    "cuda" or "rocm"."""

    name: str
    arch: str
    dialect: Dialect
    memory_bytes: int
    kind: str

    @property
    def device(self) -> torch.device:
        """Where tensors live; torch calls an AMD device cuda, too."""
        return torch.device("cpu" if self.kind == "cpu" else "cuda")


def detect(device: str = "auto", dialect: str = "auto") -> Target:
    """The machine that this process runs on.

    device: "auto" (a GPU if there is one), "gpu" or "cpu". dialect: "auto", "ocp" or "fnuz"; naming
    one makes an unknown architecture usable. Raises ConfigError for other words, for a GPU that is
    not there, and for an architecture of unknown dialect when that is "auto".
    """
    _one_of("device", device, ("auto", "gpu", "cpu"))
    present = torch.cuda.is_available()
    if device == "cpu" or (device == "auto" and not present):
        _, memory = device_memory(torch.device("cpu"))
        return _target(platform.machine(), "cpu", memory, "cpu", dialect)
    if not present:
        raise ConfigError(
            "device 'gpu' was asked for",
            found=f"torch {torch.__version__}, which sees no GPU",
            effect="nothing would run",
            do="install a torch built for this GPU, or pass device 'cpu'",
        )
    facts = torch.cuda.get_device_properties(0)
    hip = torch.version.hip is not None
    arch = str(facts.gcnArchName) if hip else f"sm_{facts.major}{facts.minor}"
    return _target(facts.name, arch, facts.total_memory, "rocm" if hip else "cuda", dialect)


def device_memory(device: torch.device) -> tuple[int, int]:
    """(free, all) bytes of memory now: of a GPU, or of the machine for a CPU. What torch holds on a
    GPU without using it is free: torch gives it back before an allocation fails."""
    if device.type == "cpu":
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")
    free, total = torch.cuda.mem_get_info(device)
    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + idle, int(total)


def dialect_of_arch(arch: str) -> Dialect:
    """The dialect of an architecture such as "gfx942:sramecc+:xnack-" or "sm_90".

    Raises ConfigError for one that is not in ARCHS.
    """
    found = ARCHS.get(arch.split(":")[0])
    if found is None:
        raise ConfigError(
            f"which FP8 dialect does {arch!r} speak?",
            found="isobath knows " + ", ".join(ARCHS),
            effect="in the wrong dialect every FP8 value would be off by a factor of two",
            do="pass dialect 'ocp' or 'fnuz' if you know it, or add a row to ARCHS in "
            "isobath/target.py; GPUs before gfx940 and sm_89 have no FP8 units",
        )
    return found


def resolve_dialect(choice: str, arch: str) -> Dialect:
    """`choice` as a value: "ocp", "fnuz", or "auto", which asks the architecture."""
    _one_of("dialect", choice, ("auto", *DIALECTS))
    return dialect_of_arch(arch) if choice == "auto" else DIALECTS[choice]


def _target(name: str, arch: str, memory_bytes: int, kind: str, dialect: str) -> Target:
    return Target(name, arch.split(":")[0], resolve_dialect(dialect, arch), int(memory_bytes), kind)


def _one_of(what: str, value: str, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ConfigError(
            f"{what} {value!r} was asked for", found="the choices " + ", ".join(words)
        )
