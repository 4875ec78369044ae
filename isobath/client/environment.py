"""`isobath collect-env`: what a bug report has to say about a machine, as lines of text."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import metadata

import torch

from isobath import __version__
from isobath.errors import IsobathError
from isobath.ops.verdicts import saved_verdicts, verdict_file
from isobath.target import detect

PACKAGES = (
    "torch", "triton", "numpy", "numba", "safetensors", "tokenizers", "fastapi", "starlette",
    "uvicorn", "uvloop", "httptools", "pydantic", "msgspec", "prometheus-client", "httpx",
    "typer", "rich", "xgrammar", "llguidance", "ray", "opentelemetry-sdk",
)  # fmt: skip


def lines() -> Iterator[str]:
    """The report."""
    yield f"isobath {__version__}"
    yield f"python {sys.version.split()[0]} ({sys.executable})"
    yield f"system {platform.platform()}"
    yield f"torch CUDA {torch.version.cuda}, HIP {torch.version.hip}"
    try:
        target = detect()
        yield f"device {target.name} ({target.arch}), {target.memory_bytes / 1e9:.1f} GB"
        yield f"FP8 dialect {target.dialect.name}"
        rows = saved_verdicts(target)
        yield f"verdicts {len(rows)} in {verdict_file(target)}" if rows else "verdicts none"
    except IsobathError as error:
        yield f"device {error.asked}: {error.found}"
    for name in PACKAGES:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name} not installed"
