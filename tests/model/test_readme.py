"""README's Python examples run as they stand, each as a script of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
PRINTS = {
    "llm.generate([": r"(?s).*\w",
    "asyncio.run(": r"(?s)(?=.*0 '[^\n]*' length\n)[01] '.*' None\n",
    "EngineConfig(": r"32768 4\.0\n",
}
"""What each example prints, by something that only it contains. The last: 256 pages of 128 tokens,
of which a sequence of 8,192 needs 64."""


@pytest.mark.parametrize("mark", PRINTS)
def test_example_runs(mark: str, tmp_path: Path) -> None:
    [example] = [e for e in EXAMPLES if mark in e]
    (tmp_path / "example.py").write_text(example)
    command = [sys.executable, str(tmp_path / "example.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.match(PRINTS[mark], done.stdout), done.stdout


def test_every_example_is_run() -> None:
    assert len(EXAMPLES) == len(PRINTS)
