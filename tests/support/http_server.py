"""A server on a port of its own: uvicorn in a thread of this process, on 127.0.0.1.

    with running(ServerState(config, AsyncLLM(engine=OPTIONS), chat)) as server:
        httpx.get(server.url + "/health")

The state is the caller's to look at and to change. tests/clients/conftest.py has one for a session.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
import uvloop

from isobath.server.lifecycle import application, uvicorn_config
from isobath.server.state import ServerState

START_S = 30


@dataclass(frozen=True, slots=True)
class Served:
    """A running server. loop: the one that it runs in."""

    state: ServerState
    host: str
    port: int
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def running(state: ServerState) -> Iterator[Served]:
    """Serve `state` until the block ends; its backend stays open."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    server = uvicorn.Server(uvicorn_config(state.config, application(state)))
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve(sockets=[listener])

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, name="uvicorn", daemon=True)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive(), START_S)
        assert server.started, "uvicorn did not start"
        yield Served(state, "127.0.0.1", listener.getsockname()[1], loops[0])
    finally:
        server.should_exit = server.force_exit = True
        thread.join(START_S)
        assert not thread.is_alive(), "uvicorn did not stop"
        listener.close()


def until(condition: Callable[[], bool], seconds: float) -> float:
    """Wait until `condition` holds, and say how long that took. Fails after `seconds`."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "waited in vain"
        time.sleep(0.002)
    return time.monotonic() - began
