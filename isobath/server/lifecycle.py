"""A server's life: bind, load while answering 503, warm up, serve, drain, end.

SIGTERM or SIGINT lets open requests finish for shutdown_timeout seconds while new ones get 503;
what is left then ends with an error. A second signal does that at once. When the engine dies,
/health says 503, open requests end with an error, and the process exits with 1, so that whoever
supervises it starts another. The signal handlers are ours: uvicorn's would race with them.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from isobath.config import ServerConfig
from isobath.server import listen, server_log, startup
from isobath.server.app import create_app
from isobath.server.backend import Backend
from isobath.server.flag_values import Note
from isobath.server.gate import Gate
from isobath.server.metrics import Metrics
from isobath.server.observe import Observed, Observer
from isobath.server.request_log import RequestLog
from isobath.server.state import ServerState
from isobath.server.traces import tracing

KEEP_ALIVE_SECONDS = 75
"""Longer than the pools of clients and proxies keep a connection, or they meet resets."""
WATCH_SECONDS = 0.1
LAST_WORDS_SECONDS = 2.0
"""For answers that say why a request ended, once the engine is gone."""
log = logging.getLogger(__name__)


def run(config: ServerConfig, notes: Sequence[Note] = ()) -> int:
    """Serve until told to stop; the exit code. notes: to be logged. Raises IsobathError when it
    cannot start."""
    server_log.configure(config)
    started = time.monotonic()
    listen.raise_file_limit()
    bound = listen.bind(config)
    life = Life(config, notes, bound, started)
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:  # not made for Windows
        runner = asyncio.Runner()
    with bound, runner:
        return runner.run(life.live())


def application(state: ServerState) -> Gate:
    """The whole HTTP side over a state: routes, and those who watch its backend, which may come
    later (see watched). No sockets, no signals."""
    app = Gate(create_app(state), state)
    if state.backend is not None:
        state.backend = watched(state, state.backend)
    return app


def watched(state: ServerState, backend: Backend) -> Backend:
    """The backend with the state's observers around it. After create_app, which makes metrics."""
    observers: list[Observer] = [RequestLog(state)]
    if isinstance(state.metrics, Metrics):
        observers.append(state.metrics)
    if endpoint := state.config.otlp_traces_endpoint:
        observers.append(tracing(endpoint, state.models.first))
    return Observed(backend, observers)


class HttpServer(uvicorn.Server):
    """uvicorn without signal handlers of its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Life:
    """One server from bind to exit."""

    def __init__(
        self, config: ServerConfig, notes: Sequence[Note], bound: socket.socket, started: float
    ) -> None:
        self.config, self._notes, self._bound, self._started = config, notes, bound, started
        named = replace(config, served_model_name=startup.names_of(config))
        self.state = ServerState(named, phase="loading")
        self.app = application(self.state)
        self.http = HttpServer(uvicorn_config(config, self.app))
        self._signals = 0
        self._signalled = asyncio.Event()

    async def live(self) -> int:
        """The exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signal)
        serving = asyncio.create_task(self.http.serve(sockets=[self._bound]))
        try:
            if not await self._load(serving):
                return int(not self._signals)
            telling = None
            if not self.config.disable_log_stats:
                telling = asyncio.create_task(server_log.tell_statistics(self.state))
            code = await self._watch(serving)
            if telling:
                telling.cancel()
            return code
        finally:
            await self._close(serving)

    def _signal(self) -> None:
        self._signals += 1
        self._signalled.set()

    async def _load(self, serving: asyncio.Task[None]) -> bool:
        """Load and warm up. False when a signal, or the HTTP server's end, came first."""
        loading = _in_thread(self.config, self._notes)
        told = asyncio.create_task(self._signalled.wait())
        first: set[asyncio.Future[Any]] = {loading, told, serving}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if not loading.done():
            log.info("stopped while loading")
            return False
        loaded = loading.result()
        await startup.warm_up(loaded.backend, self.config.data_parallel_size)
        self.state.backend, self.state.chat = watched(self.state, loaded.backend), loaded.chat
        self.state.sampling_defaults = loaded.sampling
        self.state.phase = "ready"
        log.info(
            "isobath ready on %s (model %s, max_model_len %d) in %.1f s",
            listen.address(self.config, self._bound),
            self.state.models.first,
            loaded.backend.limits.context,
            time.monotonic() - self._started,
        )
        return True

    async def _watch(self, serving: asyncio.Task[None]) -> int:
        """Until a signal has been obeyed or something died; the exit code."""
        backend = self.state.backend
        assert backend is not None
        while not self._signals:
            if not backend.alive:
                log.error("the engine died: /health is 503, and this server ends")
                await self._answered(LAST_WORDS_SECONDS, least=1.0)
                return 1
            if serving.done():
                log.error("the HTTP server ended by itself")
                return 1
            await asyncio.sleep(WATCH_SECONDS)
        return await self._drain()

    async def _drain(self) -> int:
        self.state.phase = "draining"
        open_now, timeout = self.app.open, self.config.shutdown_timeout
        log.info("draining: %d requests have %g s; a second signal ends them", open_now, timeout)
        if await self._answered(timeout):
            log.info("drained")
            return 0
        log.warning("ending %d requests", self.app.open)
        assert self.state.backend is not None
        await self.state.backend.close(timeout=0 if self._signals > 1 else 1.0)
        await self._answered(LAST_WORDS_SECONDS)
        return int(self._signals > 1)

    async def _answered(self, seconds: float, least: float = 0.0) -> bool:
        """Wait up to `seconds` until no request is open, or another signal comes."""
        start, signals = time.monotonic(), self._signals
        while time.monotonic() - start < seconds and self._signals == signals:
            if not self.app.open and time.monotonic() - start >= least:
                return True
            await asyncio.sleep(WATCH_SECONDS / 4)
        return not self.app.open

    async def _close(self, serving: asyncio.Task[None]) -> None:
        self.http.should_exit = self.http.force_exit = True
        if self.state.backend is not None:
            await self.state.backend.close(timeout=2.0)
        await asyncio.wait({serving}, timeout=LAST_WORDS_SECONDS)


def _in_thread(config: ServerConfig, notes: Sequence[Note]) -> asyncio.Future[startup.Loaded]:
    """Load on a daemon thread, which does not hold up an exit (an executor's would)."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[startup.Loaded] = loop.create_future()

    def tell(loaded: startup.Loaded | None, error: BaseException | None) -> None:
        if not done.cancelled():
            done.set_exception(error) if error else done.set_result(loaded)  # type: ignore[arg-type]

    def work() -> None:
        loaded, error = None, None
        try:
            loaded = startup.load(config, notes)
        except BaseException as failed:
            error = failed
        with suppress(RuntimeError):  # the loop has ended: a signal came while this loaded
            loop.call_soon_threadsafe(tell, loaded, error)

    threading.Thread(target=work, name="loading", daemon=True).start()
    return done


def uvicorn_config(config: ServerConfig, app: ASGIApp) -> uvicorn.Config:
    """How the HTTP server runs."""
    return uvicorn.Config(
        app,
        loop="none",  # there is one already
        lifespan="off",
        log_config=None,
        log_level=None,
        access_log=not config.disable_uvicorn_access_log,
        backlog=listen.BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        server_header=False,
        ssl_keyfile=config.ssl_keyfile,
        ssl_certfile=config.ssl_certfile,
    )
