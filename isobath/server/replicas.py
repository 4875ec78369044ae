"""Replicas: several engine processes behind one door, each with the whole model.

    pool = Replicas(specs(EngineSpec(path), 8))     # waits until all are loaded
    async for piece in pool.generate(ids, params, Route(session="alice")):
        ...

It satisfies the server's Backend as one AsyncLLM does. Which engine takes a request is decided by
`server/routing.py`; load is counted here, in completions under way. A request's tokens do not
depend on which engine computes them.

When a process dies, however it dies, its open requests fail with EngineDied and are not tried
again elsewhere: they may be what killed it. It gets nothing more, what was known of its cache is
forgotten, the others go on, and a thread of its own starts a new process in its place: after a
second, then after ever longer pauses while it does not stay up. The pool is alive while any engine
is; one that has lost all of them says so at once, so that a supervisor can start the whole again.

Holds no model and no tensor; knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from isobath.config import EngineConfig
from isobath.engine.async_llm import AsyncLLM, Piece
from isobath.engine.capacity import CPU_SHARE
from isobath.engine.llm import BUNDLED
from isobath.engine.process import EngineSpec, Limits
from isobath.engine.sampling import SamplingParams
from isobath.engine.statistics import EngineStatistics
from isobath.errors import ConfigError, EngineDied, IsobathError
from isobath.model.text import Text
from isobath.server.backend import Route
from isobath.server.routing import Affinity, block_keys
from isobath.target import device_memory

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 300.0
"""Before a dead replica is started again: the first time, and at most."""
STEADY_S = 60.0
"""A replica that lived this long did not die of being started."""
LONG_PROMPT = 1 << 15
"""Tokens whose hashing would hold up the loop: 1.5 us each by the tuple, so 50 ms."""
log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Engine:
    """One process, from its start to its end. load: completions under way. loaded: whether it can
    take the first."""

    llm: AsyncLLM
    load: int = 0
    loaded: bool = False

    @property
    def alive(self) -> bool:
        return self.loaded and self.llm.alive


class Replicas:
    """A pool of engines that serve the same checkpoint. restart: whether a dead one is replaced.

    The constructor waits until all are loaded, which they do side by side; when one cannot, the
    others are ended and its error is raised. generate() may be called from any event loop. Its
    owner calls close().
    """

    def __init__(
        self,
        specs: Sequence[EngineSpec],
        *,
        restart: bool = True,
        affinity: Affinity[int] | None = None,
    ) -> None:
        assert specs
        self._specs = tuple(specs)
        self._restart = restart
        self._affinity: Affinity[int] = affinity or Affinity()
        self._lock = threading.Lock()  # of engines, loads and the affinity
        self._closing = threading.Event()
        self.text = Text(BUNDLED if specs[0].path is None else Path(specs[0].path))
        self._engines = [_Engine(AsyncLLM.started(spec, self.text)) for spec in self._specs]
        try:
            for engine in self._engines:
                engine.llm.load()
                engine.loaded = True
        except BaseException:
            self._end(drain=False, timeout=0)
            raise
        self._limits: Limits = self._engines[0].llm.limits
        self._keepers = [
            threading.Thread(target=self._keep, args=(index,), name=f"replica {index}", daemon=True)
            for index in range(len(self._specs))
        ]
        for keeper in self._keepers:
            keeper.start()

    @property
    def alive(self) -> bool:
        """Whether any engine takes requests."""
        return any(engine.alive for engine in self._engines)

    @property
    def limits(self) -> Limits:
        """An engine's, with the completions that all living ones run at once."""
        seqs = sum(e.llm.limits.max_num_seqs for e in self._engines if e.alive)
        return replace(self._limits, max_num_seqs=seqs)

    @property
    def loads(self) -> dict[int, int]:
        """Completions under way, by engine, of those that take requests."""
        return {i: e.load for i, e in enumerate(self._engines) if e.alive}

    def pids(self) -> dict[int, int]:
        """Process ids, by engine, of those that take requests."""
        return {i: e.llm.process.pid for i, e in enumerate(self._engines) if e.alive}

    def statistics(self) -> list[EngineStatistics]:
        """The latest record of every engine that takes requests. A replaced engine keeps its index;
        its counters begin again at 0."""
        return [s for e in self._engines if e.alive for s in e.llm.statistics()]

    async def generate(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        route: Route | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """As AsyncLLM.generate, by the engine that the routing rule chooses. Raises EngineDied when
        that engine goes, or when none is left."""
        params = params or SamplingParams()
        ids = self.text.encode(prompt) if isinstance(prompt, str) else prompt
        keys = await _keys(ids)
        engine = self._take(keys, route.session if route else None, params.n)
        try:
            async with aclosing(engine.llm.generate(ids, params)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            with self._lock:
                engine.load -= params.n

    async def reset_prefix_cache(self) -> None:
        """As AsyncLLM's, of every engine; what was known of their caches is forgotten, too."""
        with self._lock:
            for index, engine in enumerate(self._engines):
                engine.llm.process.reset_prefix_cache()
                self._affinity.forget(index)

    async def close(self, *, drain: bool = False, timeout: float = 5.0) -> None:
        """end() without holding up the loop."""
        await asyncio.to_thread(self.end, drain=drain, timeout=timeout)

    def end(self, *, drain: bool = False, timeout: float = 5.0) -> None:
        """End every process and wait for it, as EngineProcess.close; all at the same time."""
        self._closing.set()
        self._end(drain=drain, timeout=timeout)
        for keeper in self._keepers:
            keeper.join()

    def _take(self, keys: Sequence[bytes], session: str | None, count: int) -> _Engine:
        """Choose an engine and count `count` completions to its load."""
        with self._lock:
            loads = self.loads
            if not loads:
                raise EngineDied(
                    "no replica is left",
                    found=f"all {len(self._specs)} engine processes have ended",
                    effect="no request can be served",
                    do="see what they wrote to stderr, and start the server again",
                )
            index = self._affinity.choose(keys, session, loads)
            self._affinity.routed(keys, session, index)
            engine = self._engines[index]
            engine.load += count
        return engine

    def _end(self, *, drain: bool, timeout: float) -> None:
        with self._lock:
            engines = list(self._engines)
        with ThreadPoolExecutor(len(engines)) as pool:
            for engine in engines:
                pool.submit(engine.llm.process.close, drain=drain, timeout=timeout)

    def _keep(self, index: int) -> None:
        """A replica's keeper thread: sees each of its processes out and starts the next."""
        pause = FIRST_PAUSE_S
        while True:
            engine, began = self._engines[index], time.monotonic()
            try:
                engine.llm.load()
                engine.loaded = True
            except IsobathError as error:
                if not self._closing.is_set():
                    log.error("replica %d: %s", index, error)
            engine.llm.process.wait()
            if self._closing.is_set():
                return
            with self._lock:
                self._affinity.forget(index)
            log.error("replica %d has ended; the requests that it had have failed", index)
            if time.monotonic() - began > STEADY_S:
                pause = FIRST_PAUSE_S
            if not self._restart or self._closing.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE_S)
            self._replace(index)

    def _replace(self, index: int) -> None:
        """Start another engine in the place of a dead one; it takes requests once it is loaded."""
        engine = _Engine(AsyncLLM.started(self._specs[index], self.text))
        with self._lock:
            self._engines[index] = engine  # from here on close() reaches it
        if self._closing.is_set():  # and may have been too early to
            engine.llm.process.close(timeout=0)


async def _keys(ids: Sequence[int]) -> tuple[bytes, ...]:
    """Block keys, without holding up the loop for long. Ids that are none have no keys; the engine
    says what is wrong with them."""
    try:
        if len(ids) < LONG_PROMPT:
            return block_keys(ids)
        return await asyncio.to_thread(block_keys, ids)
    except (OverflowError, TypeError, ValueError):
        return ()


def specs(base: EngineSpec, count: int, device_ids: Sequence[int] = ()) -> list[EngineSpec]:
    """`count` specs like `base` that share this machine: on GPUs one each (those of device_ids, or
    the first ones), on a CPU its threads, unless their number was given, and the memory that one
    engine would have taken.

    Raises ConfigError when there are not as many GPUs.
    """
    threads = base.threads or max(1, torch.get_num_threads() // count)
    made = [
        replace(base, threads=threads, index=i, banner=() if i else base.banner)
        for i in range(count)
    ]
    gpus = torch.cuda.device_count() if base.device != "cpu" else 0
    if base.device == "cpu" or (base.device == "auto" and not gpus):
        return [replace(spec, device="cpu", engine=_share(base, count)) for spec in made]
    ids = tuple(device_ids) or tuple(range(gpus))
    if len(ids) < count:
        raise ConfigError(
            f"{count} replicas, one GPU each",
            found=f"{len(ids)} GPUs"
            + (f" named ({', '.join(map(str, ids))})" if device_ids else ""),
            effect="two engines would share one's memory",
            do="ask for as many replicas as there are GPUs",
        )
    return [replace(spec, device=f"gpu:{gpu}") for spec, gpu in zip(made, ids, strict=False)]


def _share(base: EngineSpec, count: int) -> EngineConfig:
    """The engine's options with an "auto" cache cut to one of `count` equal shares."""
    options = base.engine or EngineConfig(max_num_seqs=min(64, base.max_batched_tokens))
    if options.cache_bytes == "auto":
        _, memory = device_memory(torch.device("cpu"))
        return replace(options, cache_bytes=int(CPU_SHARE * memory) // count)
    return options
