"""What the server itself costs a token: from the engine's pipe to the client's socket.

    isobath bench serve-overhead [--tokens 64]

Three processes, as in service: an engine that computes nothing and tells one token of every stream
at each beat; this one, with all of the server in it; and a client that only counts chunks. The
beat is slow enough for the server to keep up. All tokens of a beat come at once, as those of a
step do, so the last of them waits for all others: its overhead grows with the streams.

median, p99: from the beat to the arrival of the token's chunk. cpu: of the server's process. Times
are of the machine's monotonic clock, which is the same in every process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import selectors
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import uvicorn
from rich.console import Console
from rich.table import Table

from isobath.chat import ChatFormat
from isobath.config import ServerConfig
from isobath.engine.async_llm import AsyncLLM
from isobath.engine.llm import BUNDLED
from isobath.engine.process import EngineSpec, Limits
from isobath.engine.request import Event, Finished, Request, Token
from isobath.engine.statistics import EngineStatistics
from isobath.server.lifecycle import HttpServer, application
from isobath.server.state import ServerState

STREAMS = (1, 64, 256, 1024)
ROUTES = ("/v1/completions", "/v1/chat/completions")
BEAT_S, BEAT_A_STREAM_S = 0.02, 200e-6
"""A beat takes the first, and the second a stream: several times what the server needs."""
WORD = " the"
MARK = b'data: {"id"'


def _beats(connection: Connection, word: int, beat: float) -> None:
    """The engine: streams begin together, when all have come, and tell a token at every beat.
    Takes requests and how many there will be; sends events, and then the times of the beats."""
    while (expected := connection.recv()) is not None:
        requests: list[Request] = [connection.recv() for _ in range(expected)]
        times = []
        pause = max(beat, expected * BEAT_A_STREAM_S)
        for place in range(requests[0].params.max_tokens):
            time.sleep(pause)
            last = place == requests[0].params.max_tokens - 1
            events: list[Event] = []
            for request in requests:
                events.append(Token(request.id, 0, word))
                if last:
                    events.append(Finished(request.id, 0, "length"))
            times.append(time.monotonic())
            connection.send(events)
        connection.send(times)


class _BeatingProcess:
    """What AsyncLLM sees of its engine's process. times: of the beats of the last run."""

    alive, statistics, pid = True, EngineStatistics(), 0

    def __init__(self, word: int, deliver: Callable[[list[Event]], None]) -> None:
        context = get_context("spawn")
        self._connection, child = context.Pipe()
        self._process = context.Process(target=_beats, args=(child, word, BEAT_S), daemon=True)
        self._process.start()
        self._deliver, self._lock = deliver, threading.Lock()
        self.times: list[float] = []
        self.finished = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def expect(self, streams: int | None) -> None:
        """So many requests come next; None: no more."""
        self.finished.clear()
        self._connection.send(streams)

    def ready(self) -> Limits:
        return Limits(129_280, 1 << 20, max(STREAMS))

    def submit(self, request: Request) -> None:
        with self._lock:
            self._connection.send(request)

    def abort(self, request_id: int, index: int | None = None) -> None:
        pass

    def close(self, *, drain: bool = False, timeout: float = 5.0) -> None:
        self.expect(None)
        self._process.join()

    def _read(self) -> None:
        while True:
            try:
                told = self._connection.recv()
            except (EOFError, OSError):
                return
            if isinstance(told[0], float):
                self.times = told
                self.finished.set()
            else:
                self._deliver(told)


class _Beating(AsyncLLM):
    """AsyncLLM over an engine that computes nothing."""

    def _engine(self, spec: EngineSpec) -> Any:
        return _BeatingProcess(self.text.encode(WORD, bos=False)[0], self._deliver)


@dataclass(slots=True)
class _Stream:
    """A connection of the client. tail: what may be the beginning of a chunk."""

    socket: socket.socket
    times: list[float] = field(default_factory=list)
    tail: bytes = b""


def _client(connection: Connection) -> None:
    """The client: opens streams as told, (port, path, streams, body), and sends back when each
    chunk arrived."""
    while (wanted := connection.recv()) is not None:
        port, path, count, body = wanted
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        selector = selectors.DefaultSelector()
        streams = []
        for _ in range(count):
            stream = _Stream(socket.create_connection(("127.0.0.1", port)))
            stream.socket.sendall(head.encode() + body)
            stream.socket.setblocking(False)
            selector.register(stream.socket, selectors.EVENT_READ, stream)
            streams.append(stream)
        left = count
        while left:
            for key, _ in selector.select():
                stream = key.data
                data = stream.socket.recv(1 << 16)
                now = time.monotonic()
                if not data:
                    selector.unregister(stream.socket)
                    stream.socket.close()
                    left -= 1
                    continue
                data = stream.tail + data
                stream.times += [now] * data.count(MARK)
                stream.tail = data[-len(MARK) + 1 :]
        connection.send([stream.times for stream in streams])


@dataclass(frozen=True, slots=True)
class Overhead:
    """Microseconds of `streams` at once: waits a token, and this process's time a token and, for
    what a request takes beside them, a request."""

    route: str
    streams: int
    median_us: float
    p99_us: float
    cpu_us: float
    request_cpu_us: float


@dataclass(frozen=True, slots=True)
class _Parts:
    """The running pieces."""

    engine: _BeatingProcess
    client: Any
    port: int


def measure(route: str, streams: int, tokens: int, parts: _Parts) -> Overhead:
    """A run of a quarter of the tokens, and one of all: their difference is tokens alone."""
    few = max(2, tokens // 4)
    _, short = _once(route, streams, few, parts)
    waits, long = _once(route, streams, tokens, parts)
    token = (long - short) / (streams * (tokens - few))
    return Overhead(
        route,
        streams,
        1e6 * statistics.median(waits),
        1e6 * waits[int(0.99 * (len(waits) - 1))],
        1e6 * token,
        1e6 * (long / streams - tokens * token),
    )


def _once(route: str, streams: int, tokens: int, parts: _Parts) -> tuple[list[float], float]:
    """(seconds from beat to arrival, sorted; CPU seconds of this process)."""
    body = {"max_tokens": tokens, "stream": True, "temperature": 0}
    chat = "chat" in route
    asked = {"messages": [{"role": "user", "content": "Hi"}]} if chat else {"prompt": "Hi"}
    parts.engine.expect(streams)
    began = time.process_time()
    parts.client.send((parts.port, route, streams, json.dumps(body | asked).encode()))
    arrivals: list[list[float]] = parts.client.recv()
    cpu = time.process_time() - began
    parts.engine.finished.wait()
    waits = []
    for times in arrivals:
        # A chat tells its role with the first token and its end in a chunk of its own.
        told = times[1:-1] if chat else times
        assert len(told) == tokens, (len(told), tokens)
        waits += [at - beat for beat, at in zip(parts.engine.times, told, strict=True)]
    return sorted(waits), cpu


@contextmanager
def _running() -> Iterator[_Parts]:
    """The three processes, quiet about requests: a log line each is not what is measured."""
    log = logging.getLogger("isobath.server")
    level = log.level
    log.setLevel(logging.WARNING)
    llm = _Beating.of(EngineSpec(None))
    engine: Any = llm.process
    state = ServerState(ServerConfig(), llm, ChatFormat.load(BUNDLED, llm.text))
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        application(state), loop="uvloop", http="httptools", lifespan="off", log_level="error"
    )
    server = HttpServer(config)
    thread = threading.Thread(target=_serve, args=(server, listener), daemon=True)
    thread.start()
    ours, theirs = get_context("spawn").Pipe()
    client = get_context("spawn").Process(target=_client, args=(theirs,), daemon=True)
    client.start()
    try:
        yield _Parts(engine, ours, listener.getsockname()[1])
    finally:
        ours.send(None)
        client.join()
        server.should_exit = True
        thread.join()
        engine.close()
        log.setLevel(level)


def run(*, tokens: int = 64) -> dict[str, Any]:
    """Measure every route and number of streams, and print."""
    with _running() as parts:
        measure(ROUTES[0], 4, tokens, parts)  # warm
        rows = [measure(route, n, tokens, parts) for route in ROUTES for n in STREAMS]
    table = Table(
        "route", "streams", "median us", "p99 us", "cpu us", "cpu us a request", title="a token"
    )
    for row in rows:
        figures = (row.median_us, row.p99_us, row.cpu_us, row.request_cpu_us)
        table.add_row(row.route, f"{row.streams:,}", *(f"{figure:,.0f}" for figure in figures))
    Console().print(table)
    return {"tokens": tokens, "rows": [asdict(row) for row in rows]}


def _serve(server: HttpServer, listener: socket.socket) -> None:
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[listener]))


def main(*, tokens: int = 64) -> None:
    """run(), then its result as one line of JSON."""
    print(json.dumps(run(tokens=tokens)))
