"""What a person sees while a checkpoint loads, on stderr.

On a terminal a bar with GB and GB/s, gone when it is done; elsewhere (a log file, a container) one
line every 5 %, and nothing for models under 1 GB, which are there before a line could be read. The
loader knows only that it may call something with (bytes done, bytes in all).
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

GB = 10**9
QUIET_BELOW_BYTES = GB
STEP_PERCENT = 5


class LoadProgress:
    """A progress callback and context manager: `with LoadProgress("Loading m") as progress: ...`.

    label: what is done, to what. stream: where to; a terminal gets the bar.
    """

    def __init__(self, label: str, stream: TextIO | None = None) -> None:
        self._label = label
        self._stream = sys.stderr if stream is None else stream
        self._started = time.monotonic()
        self._printed_percent = 0
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> LoadProgress:
        self._started = time.monotonic()
        if self._stream.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(file=self._stream),
                transient=True,
            )
            self._task = self._bar.add_task(self._label, total=None)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """Report that `done_bytes` of `total_bytes` have been read."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done_bytes, total=total_bytes)
        elif total_bytes >= QUIET_BELOW_BYTES:
            self._print(done_bytes, total_bytes)

    def _print(self, done_bytes: int, total_bytes: int) -> None:
        percent = 100 * done_bytes // total_bytes // STEP_PERCENT * STEP_PERCENT
        if percent <= self._printed_percent:
            return
        self._printed_percent = percent
        rate = done_bytes / GB / max(time.monotonic() - self._started, 1e-6)
        print(
            f"{self._label}: {percent} % ({done_bytes / GB:.1f} of "
            f"{total_bytes / GB:.1f} GB, {rate:.2f} GB/s)",
            file=self._stream,
            flush=True,
        )
