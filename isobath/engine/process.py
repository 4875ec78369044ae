"""EngineProcess: the same Engine in a process of its own, one hop away.

    process = EngineProcess(EngineSpec(path=None), deliver=queue.put)
    limits = process.ready()                        # waits; raises what went wrong while loading
    process.submit(request)                         # events come to deliver(), a step's at a time

What crosses are the records of engine/request.py and engine/statistics.py: ints, floats and
strings, never a tensor. The child loads the checkpoint itself. What it logs is logged here, so that
one process decides what is shown and lines keep their order. On either side one thread only reads
the pipe, so neither ever waits for the other to read: a slow client holds up nobody. When the child
dies, however it dies, every open request is answered by a Failed event and later ones are refused;
when the parent dies, the child sees the end of the pipe and leaves at once, in the middle of a step
or of loading.

The child is spawned, not forked, so a script that uses this needs the usual
`if __name__ == "__main__":`.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import torch

from isobath import errors
from isobath.cache.pool import PAGE_TOKENS
from isobath.config import EngineConfig, see_only_gpu
from isobath.engine.engine import Engine
from isobath.engine.llm import LLM
from isobath.engine.request import Event, Failed, Finished, Request
from isobath.engine.statistics import BoundOp, EngineFacts, EngineStatistics, Meter
from isobath.errors import EngineDied, IsobathError
from isobath.model.dummy import Dummy
from isobath.ops.binding import refuse_failed
from isobath.ops.verdicts import saved_verdicts
from isobath.target import detect

EXIT_SECONDS = 1.0
"""From the end of the pipe to the end of the process; a child that takes longer is killed."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What the child loads: the arguments of LLM. device: also "gpu:<n>", the nth of those that it
    may see, from 0. threads: of the CPU, None: as torch decides. index: its place among replicas.
    banner: (level, line) to log when the device is known, which replaces {device} in it."""

    path: str | None
    numerics: str = "native"
    dialect: str = "auto"
    max_batched_tokens: int = 512
    engine: EngineConfig | None = None
    device: str = "auto"
    dummy: Dummy | None = None
    allow_failed_verdicts: bool = False
    threads: int | None = None
    index: int = 0
    banner: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a prompt is checked against. context: most tokens of prompt and completion, by the model
    and by what the cache holds. max_num_seqs: completions that run at once. facts: about the
    engine, for people."""

    vocab_size: int
    context: int
    max_num_seqs: int
    facts: EngineFacts | None = None


@dataclass(frozen=True, slots=True)
class _Abort:
    request_id: int
    index: int | None


@dataclass(frozen=True, slots=True)
class _Reset:
    """Forget what the prefix cache knows."""


@dataclass(frozen=True, slots=True)
class _Stop:
    """Leave: now, or with drain when nothing is left to do."""

    drain: bool


@dataclass(frozen=True, slots=True)
class _Logged:
    """A record of the child's log."""

    logger: str
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class _Wake:
    """From the child to itself: what it waited for may be there."""


_Message = Request | _Abort | _Reset | _Stop | _Wake
"""What the child is told."""


@dataclass(frozen=True, slots=True)
class _Unloaded:
    """An IsobathError, as strings. kind: its class."""

    kind: str
    asked: str
    found: str = ""
    effect: str = ""
    do: str = ""


class EngineProcess:
    """The parent's side. deliver: called with each step's events, from a thread of its own; it must
    not raise, nor wait for that thread. Its owner calls close()."""

    def __init__(self, spec: EngineSpec, deliver: Callable[[list[Event]], None]) -> None:
        context = get_context("spawn")
        self._connection, child = context.Pipe()
        self._process = context.Process(
            target=_main, args=(child, spec), name="isobath engine", daemon=True
        )
        self._process.start()
        child.close()  # or the end of the child would not be the end of the pipe
        self._deliver = deliver
        self._limits: Future[Limits] = Future()
        self._lock = threading.Lock()  # of what follows, and of sending
        self._open: dict[int, int] = {}  # request id -> completions that have not ended
        self._ended = ""  # why nothing more is taken
        self.statistics = EngineStatistics(engine=spec.index)  # the latest
        self._reader = threading.Thread(target=self._read, name="engine events", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Whether requests are still taken."""
        return not self._ended

    @property
    def pid(self) -> int:
        """Of the child."""
        assert self._process.pid is not None
        return self._process.pid

    def ready(self, timeout: float | None = None) -> Limits:
        """Wait until the checkpoint is loaded. Raises the child's IsobathError, EngineDied if it
        died, TimeoutError after `timeout` seconds."""
        return self._limits.result(timeout)

    def submit(self, request: Request) -> None:
        """Queue a request. Raises EngineDied when the process is gone or closed."""
        with self._lock:
            if self._ended:
                raise _died(self._ended)
            self._open[request.id] = request.params.n
            try:
                self._connection.send(request)
            except Exception as error:
                del self._open[request.id]
                if isinstance(error, OSError):
                    raise _died("its pipe is closed") from error
                raise  # a value that cannot be pickled: nothing was sent

    def abort(self, request_id: int, index: int | None = None) -> None:
        """End a request: nothing more is told about it. With index only that completion, whose
        Finished still comes. Unknown ids are ignored."""
        with self._lock:
            if index is None:
                self._open.pop(request_id, None)
            self._send(_Abort(request_id, index))

    def reset_prefix_cache(self) -> None:
        """As Engine.reset_prefix_cache, before any request that is submitted later begins."""
        with self._lock:
            self._send(_Reset())

    def close(self, *, drain: bool = False, timeout: float = 5.0) -> None:
        """End the process and wait for it. Open requests fail, unless drain lets them come to
        their end first, within `timeout` seconds. May be called again."""
        with self._lock:
            self._ended = self._ended or "it was closed"
            self._send(_Stop(drain))
        self._reader.join(timeout)
        if self._reader.is_alive():
            self._process.kill()
            self._reader.join()

    def wait(self) -> None:
        """Until the process has ended, for whatever reason, and its requests have been answered."""
        self._reader.join()

    def _send(self, message: _Abort | _Reset | _Stop) -> None:
        """Send unless the child is gone, which the reader notices and tells. Needs the lock."""
        with suppress(OSError):
            self._connection.send(message)

    def _read(self) -> None:
        """The reader thread: from the first message to the end of the process."""
        try:
            while True:
                self._take(self._connection.recv())
        except (EOFError, OSError):
            pass  # the child is gone; OSError if it went while it was sending
        finally:
            self._end()

    def _take(self, message: list[Event] | EngineStatistics | _Logged | Limits | _Unloaded) -> None:
        if isinstance(message, list):
            if events := self._wanted(message):
                self._deliver(events)
        elif isinstance(message, EngineStatistics):
            self.statistics = message
        elif isinstance(message, _Logged):
            logging.getLogger(message.logger).log(message.level, "%s", message.text)
        elif isinstance(message, _Unloaded):
            self._limits.set_exception(_rebuilt(message))
        else:
            self._limits.set_result(message)

    def _wanted(self, events: list[Event]) -> list[Event]:
        """Those of open requests; keeps count of what is open."""
        with self._lock:
            wanted = [event for event in events if event.request_id in self._open]
            for event in wanted:
                if isinstance(event, Finished):
                    self._open[event.request_id] -= 1
                if isinstance(event, Failed) or not self._open.get(event.request_id, 1):
                    self._open.pop(event.request_id, None)
        return wanted

    def _end(self) -> None:
        """See the process out, then answer everything that is open."""
        self._process.join(EXIT_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        with self._lock:
            self._ended = self._ended or f"exit code {self._process.exitcode}"
            failed: list[Event] = [
                Failed(i, f"the engine process ended: {self._ended}") for i in self._open
            ]
            self._open.clear()
            self._connection.close()
            self.statistics = replace(self.statistics, running=0, waiting=0, kv_cache_usage=0.0)
        if not self._limits.done():
            self._limits.set_exception(_died(self._ended))
        if failed:
            self._deliver(failed)


def _died(reason: str) -> EngineDied:
    return EngineDied(
        "the engine process has ended",
        found=reason,
        effect="no request can be served",
        do="see what it wrote to stderr, and start a new one",
    )


def _rebuilt(message: _Unloaded) -> IsobathError:
    kind: type[IsobathError] = getattr(errors, message.kind, IsobathError)
    return kind(message.asked, found=message.found, effect=message.effect, do=message.do)


class _Outbox(logging.Handler):
    """The child's way out, for any of its threads; as a handler it sends what is logged."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection, self._sending = connection, threading.Lock()

    def send(self, message: Any) -> None:
        with self._sending:
            self._connection.send(message)

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # nobody is left to read it
            self.send(_Logged(record.name, record.levelno, self.format(record)))


def _main(connection: Connection, spec: EngineSpec) -> None:
    """The child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent decides
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for the threads to come, too
    threading.Thread(target=_obey, args=(os.getppid(),), name="SIGTERM", daemon=True).start()
    inbox: SimpleQueue[_Message] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    outbox = _Outbox(connection)
    log = logging.getLogger("isobath")
    log.addHandler(outbox)
    log.setLevel(logging.INFO)
    try:
        llm = _loaded(spec, log)
        engine = llm.engine
    except IsobathError as error:
        parts = (error.asked, error.found, error.effect, error.do)
        outbox.send(_Unloaded(type(error).__name__, *parts))
        return
    capacity = engine.capacity
    vocab_size = llm.config.vocab_size
    outbox.send(Limits(vocab_size, capacity.context, capacity.max_num_seqs, _facts(llm)))
    assert engine.grammars is not None
    engine.grammars.wake = lambda: inbox.put(_Wake())
    _serve(engine, inbox, outbox, spec.index)


def _obey(parent: int) -> None:
    """A thread of the child: SIGTERM counts when the parent sends it. Supervisors may send it to
    every process of a service, and the parent then wants its requests to end in peace."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _loaded(spec: EngineSpec, log: logging.Logger) -> LLM:
    if spec.threads:
        torch.set_num_threads(spec.threads)
    device = spec.device
    if device.startswith("gpu:"):
        see_only_gpu(int(device.removeprefix("gpu:")))
        device = "gpu"
    target = detect(device, spec.dialect)
    if spec.banner:
        name = f"{target.name} ({target.arch}, {target.memory_bytes / 1e9:.1f} GB)"
        for level, line in spec.banner:
            log.log(level, "%s", line.replace("{device}", name))
    if not spec.allow_failed_verdicts:
        refuse_failed(target, saved_verdicts(target))
    return LLM(
        spec.path,
        numerics=spec.numerics,
        dialect=spec.dialect,
        max_batched_tokens=spec.max_batched_tokens,
        engine=spec.engine,
        device=device,
        dummy=spec.dummy,
        allow_failed_verdicts=spec.allow_failed_verdicts,
    )


def _facts(llm: LLM) -> EngineFacts:
    target, capacity = llm.target, llm.engine.capacity
    return EngineFacts(
        device=target.name,
        arch=target.arch,
        dialect=llm.dialect.name,
        numerics=llm.numerics,
        num_pages=capacity.num_pages,
        page_tokens=PAGE_TOKENS,
        max_num_seqs=capacity.max_num_seqs,
        cache_bytes=capacity.nbytes,
        ops=tuple(
            BoundOp(op, choice.backend, choice.reason, tuple(choice.rejected.items()))
            for op, choice in llm.choices.items()
        ),
    )


def _receive(connection: Connection, inbox: SimpleQueue[_Message]) -> None:
    """The child's reader thread. Without a parent there is nobody to compute for."""
    while True:
        try:
            inbox.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)


def _serve(
    engine: Engine,
    inbox: SimpleQueue[_Message],
    outbox: _Outbox,
    index: int,
) -> None:
    """Run steps while there is work, wait while there is none, until told to stop."""
    meter = Meter(lambda: replace(engine.statistics(), engine=index))
    draining = False
    while True:
        if record := meter.reading(idle=engine.blocked or not engine.busy):
            outbox.send(record)
        while not inbox.empty() or engine.blocked or not (engine.busy or draining):
            message = inbox.get()
            if isinstance(message, Request):
                _submit(engine, message, outbox)
            elif isinstance(message, _Abort):
                engine.abort(message.request_id, message.index)
            elif isinstance(message, _Wake):
                continue  # a grammar is done: engine.blocked says so, too
            elif isinstance(message, _Reset):
                engine.reset_prefix_cache()
            elif message.drain:
                draining = True
            else:
                return
        if not engine.busy:
            return
        if events := engine.step():
            outbox.send(events)


def _submit(engine: Engine, request: Request, outbox: _Outbox) -> None:
    """A request that cannot even be queued (a bias on an id beyond 64 bits, say) fails alone."""
    try:
        engine.submit(request)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        outbox.send([Failed(request.id, text, "invalid_request")])
