"""A server's start and end, as supervisors, load balancers and clients of open streams see it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.serve_command import LIMIT_S, READY, ServeCommand, started

LONG = {"prompt": "The json module", "max_tokens": 8000, "ignore_eos": True, "stream": True}
"""Minutes of work on any CPU."""
ORDER = (
    r"isobath \S+, model isobath-tiny, revision \w+, device .+, dtype native, chat format v4",
    r"non-default args: \{.*'api_key': '\*\*\*'.*\}",
    r"--trust-remote-code is ignored: ",
    r"Loading weights took [\d.]+ s, [\d.]+ GiB",
    r"GPU KV cache size: [\d,]+ tokens, Maximum concurrency for [\d,]+ tokens per request: "
    r"\d+\.\d\dx",
    r"isobath ready on http://127\.0\.0\.1:\d+ \(model isobath-tiny, max_model_len \d+\) in "
    r"[\d.]+ s",
)
"""What start-up logs, in this order."""
KEY = {"Authorization": "Bearer secret"}


class Stream:
    """A streaming completion that is being read on a thread. uds: of a server on a Unix socket."""

    def __init__(self, url: str, *, uds: str | None = None, **body: Any) -> None:
        self.events: list[str] = []
        self._body, self._url = LONG | body, url
        self._transport = httpx.HTTPTransport(uds=uds) if uds else None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with (
            httpx.Client(timeout=120, headers=KEY, transport=self._transport) as client,
            client.stream("POST", self._url + "/v1/completions", json=self._body) as answer,
        ):
            for line in answer.iter_lines():
                if line:
                    self.events.append(line.removeprefix("data: "))

    def end(self) -> list[str]:
        """All events, when the server has ended the stream."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.events


@pytest.fixture
def server() -> Iterator[ServeCommand]:
    with started("--max-num-seqs", "4", "--shutdown-timeout", "60") as server:
        server.wait_ready()
        yield server


def error_of(events: list[str]) -> dict[str, Any]:
    """The error in which a stream ended, before its [DONE]."""
    assert events[-1] == "[DONE]"
    error: dict[str, Any] = json.loads(events[-2])["error"]
    return error


def test_a_server_says_that_it_loads_then_serves_then_drains() -> None:
    with started("--max-num-seqs", "4", "--api-key", "secret", "--trust-remote-code") as server:
        refused = early_answers(server)
        server.wait_ready()
        lines = server.lines.copy()
        assert refused["/health"].status_code == 503
        work = refused["/v1/completions"]
        assert work.status_code == 503 and int(work.headers["retry-after"]) > 0
        assert "loading" in work.json()["error"]["message"]
        assert httpx.get(server.url + "/health").status_code == 200
        places = [
            next(i for i, line in enumerate(lines) if re.search(pattern, line)) for pattern in ORDER
        ]
        assert places == sorted(places) and places[-1] == len(lines) - 1

        stream = Stream(server.url, max_tokens=60)
        server.wait_for(lambda: len(stream.events) > 2)
        server.signal(signal.SIGTERM)
        server.wait_for(lambda: httpx.get(server.url + "/health").status_code == 503)
        late = httpx.post(server.url + "/v1/completions", json=LONG, headers=KEY)
        assert late.status_code == 503 and "draining" in late.text
        assert httpx.get(server.url + "/metrics").status_code == 200
        events = stream.end()
        assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
        assert server.wait_exit() == 0
        assert server.matching("drained")


def early_answers(server: ServeCommand) -> dict[str, httpx.Response]:
    """Answers from before the ready line."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        try:
            answers = {
                "/health": httpx.get(server.url + "/health", timeout=60),
                "/v1/completions": httpx.post(
                    server.url + "/v1/completions", json=LONG, headers=KEY, timeout=60
                ),
            }
        except httpx.ConnectError:
            time.sleep(0.02)
            continue
        assert not server.matching(READY), "it was ready before it answered"
        return answers
    raise AssertionError("the port was never bound")


def test_a_second_signal_ends_streams_at_once_with_an_error(server: ServeCommand) -> None:
    stream = Stream(server.url)
    server.wait_for(lambda: len(stream.events) > 2)
    server.signal(signal.SIGTERM)
    server.wait_for(lambda: bool(server.matching("draining: 1 requests")))
    assert server.process.poll() is None
    server.signal(signal.SIGINT)
    assert error_of(stream.end())["message"]
    assert server.wait_exit(15) == 1


def test_what_is_open_after_the_timeout_ends_with_an_error(tmp_path: Path) -> None:
    """On a Unix socket, whose path a server that was killed left behind."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    with started("--uds", path, "--shutdown-timeout", "0.2", "--max-num-seqs", "4") as server:
        server.wait_ready()
        assert f"unix:{path}" in server.matching(READY)[0]
        stream = Stream("http://x", uds=path)
        server.wait_for(lambda: len(stream.events) > 2)
        server.signal(signal.SIGTERM)
        assert error_of(stream.end())["message"]
        assert server.wait_exit(15) == 0


def test_a_dead_engine_is_told_to_everybody_and_ends_the_server(server: ServeCommand) -> None:
    stream = Stream(server.url)
    server.wait_for(lambda: len(stream.events) > 2)
    engine = max(server.children(), key=_memory)
    os.kill(engine, signal.SIGKILL)
    seen = []
    while server.process.poll() is None and 503 not in seen:
        try:
            seen.append(httpx.get(server.url + "/health").status_code)
        except httpx.TransportError:
            break
    assert seen[-1] == 503
    assert error_of(stream.end())["message"]
    assert server.wait_exit(15) == 1
    assert server.matching("the engine died")


def _memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])


def run_to_end(*flags: str) -> subprocess.CompletedProcess[str]:
    """A server that is expected not to start."""
    command = [sys.executable, "-m", "isobath", "serve", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)


def test_a_folder_without_a_model_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    done = run_to_end(str(tmp_path), "--port", "0")
    assert done.returncode == 1
    assert "no tokenizer" in done.stderr and "Traceback" not in done.stderr


def test_a_port_in_use_names_the_process_that_has_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run_to_end("--port", port)
    assert done.returncode == 1
    assert f"port {port}" in done.stderr and f"(pid {os.getpid()})" in done.stderr
    assert "Traceback" not in done.stderr
