"""Programs in virtual environments of their own, which scripts/clients/venv.sh makes."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def program(venv: str, name: str = "python") -> str:
    """The path of a program in that environment, which is made now if it is not there."""
    subprocess.run([ROOT / "scripts" / "clients" / "venv.sh", venv], check=True)
    return str(ROOT / ".venvs" / venv / "bin" / name)
