"""What this machine is: the facts that a bug report needs."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from typing import Any

import torch

from isobath import __version__
from isobath.target import Target


def facts(target: Target) -> dict[str, Any]:
    """What a bug report needs to know about the machine."""
    return {
        "device": target.name,
        "arch": target.arch,
        "dialect": target.dialect.name,
        "memory_bytes": target.memory_bytes,
        "isobath": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "driver": _driver(target),
        "runtime": torch.version.hip or torch.version.cuda,
    }


def _driver(target: Target) -> str | None:
    """The GPU driver's version as its own tool tells it; None on a CPU or without the tool."""
    commands = {
        "cuda": ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        "rocm": ["cat", "/sys/module/amdgpu/version"],
    }
    if target.kind not in commands:
        return None
    try:
        done = subprocess.run(
            commands[target.kind], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()[0].strip() if done.stdout else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
