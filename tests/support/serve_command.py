"""`isobath serve` as its users run it: a process, a port, a log, signals.

with started("--max-num-seqs", "4") as server:
    server.wait_ready(); httpx.get(server.url + "/health"); server.signal(SIGTERM)
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

READY = re.compile(r"isobath ready on (\S+) ")
LIMIT_S = 120
"""A start takes 5 s on two idle cores, and several times that beside other tests."""


def free_port() -> int:
    """A port that nobody had a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServeCommand:
    """A running server. lines: of its stderr so far."""

    def __init__(
        self, flags: tuple[str, ...], port: int, python: str, env: Mapping[str, str]
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        command = [python, "-m", "isobath", "serve", "--port", str(port), *flags]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self) -> None:
        """Until the ready line."""
        self.wait_for(lambda: bool(self.matching(READY)))

    def wait_for(self, condition: Callable[[], bool], seconds: float = LIMIT_S) -> None:
        """Until `condition` holds; fails when the server ends before."""
        limit = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, "\n".join(self.lines)
            assert time.monotonic() < limit, "waited in vain:\n" + "\n".join(self.lines)
            time.sleep(0.02)

    def wait_exit(self, seconds: float = LIMIT_S) -> int:
        """The exit code."""
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code

    def matching(self, pattern: str | re.Pattern[str]) -> list[str]:
        """Lines in which the pattern is found."""
        return [line for line in self.lines if re.search(pattern, line)]

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def children(self) -> list[int]:
        """Processes that it started: its engines, and Python's own tracker."""
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with open(path, encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))


@contextmanager
def started(
    *flags: str,
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
    port: int | None = None,
) -> Iterator[ServeCommand]:
    """Start a server, on a free port if none is named, and end it, whatever happens. env: beside
    what there is."""
    server = ServeCommand(flags, port or free_port(), python, env or {})
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
