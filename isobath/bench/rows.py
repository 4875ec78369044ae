"""A benchmark's rows on disk: one JSON object a line, added to what is there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any


def append(path: Path | None, rows: Sequence[Any]) -> None:
    """Add dataclass rows to the file at `path`, made if need be; nothing without a path."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
