"""isobath under Ray Serve: replicas on as many machines as Ray has.

    serve run isobath.ray_app:app model=/models/V4-Flash replicas=8
    isobath serve /models/V4-Flash --ray --data-parallel-size 8

Two deployments. `Engine`: one replica a GPU, each with an engine process of its own, as
AsyncLLM has it. `Door`: the HTTP app of server/app.py, whose backend is the engines' handle; it
reads prompts and writes answers, so what crosses between machines is token ids and pieces.

Which engine takes a request is decided in `PrefixRouter`, Ray Serve's own interface for that, by
the rule of server/routing.py. Each replica of Door has a router, and they share nothing; the rule
lets them agree while there is little to do, and one Door is best until it is full.

An engine whose process has died leaves at once, so that Ray starts another and its requests fail;
they are not tried again, since they may be what killed it. Ray owns placing, scaling, health and
rolling updates; this file knows no sockets. Needs `pip install 'isobath[ray]'`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, HTTPOptions, RequestRouterConfig
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica
from ray.serve.schema import LoggingConfig

from isobath.config import ServerConfig
from isobath.engine.async_llm import AsyncLLM, Piece
from isobath.engine.process import Limits
from isobath.engine.request import checked_prompt
from isobath.engine.sampling import SamplingParams
from isobath.engine.statistics import EngineStatistics
from isobath.errors import EngineDied, IsobathError
from isobath.model.text import Text
from isobath.server import command, server_log, startup
from isobath.server.backend import Route
from isobath.server.lifecycle import application
from isobath.server.routing import MARGIN, Affinity, block_keys
from isobath.server.state import ServerState

PARTING_S = 0.5
"""From the death of an engine's process to the end of its replica: its requests' errors leave."""
HEALTH_S = 2.0
"""Between health checks."""
OPEN_PER_SEQUENCE = 4
"""Requests an engine takes for each sequence that it runs; the rest wait where they came in, and
may still go to an engine that is started for them."""
NAME = "isobath"
POLL_S = 1.0
"""Between looks at the engines' statistics, and so at which of them live."""
log = logging.getLogger(__name__)


class PrefixRouter(RequestRouter):
    """Chooses an engine for Door.generate's requests, told apart by their keyword arguments `keys`
    and `session`; other calls go to any."""

    def initialize_state(self, margin: int = MARGIN) -> None:
        """Called by Ray with request_router_kwargs."""
        self._affinity: Affinity[str] = Affinity(margin=margin)
        self._open: Counter[str] = Counter()  # requests of this router, by engine

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The rule's choice, and then, should it have no room, the others."""
        asked = _asked(pending_request)
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True  # or a full house is asked on end
        if asked is None or not candidate_replicas:
            return [list(candidate_replicas)]
        by_name = {r.replica_id.unique_id: r for r in candidate_replicas}
        loads = {name: self._load(r.replica_id) for name, r in by_name.items()}
        name = self._affinity.choose(*asked, loads)
        self._affinity.routed(*asked, name)  # requests that are chosen for meanwhile shall know
        return [[by_name.pop(name)], list(by_name.values())]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """An engine has accepted a request."""
        asked, name = _asked(pending_request), replica_id.unique_id
        if asked is None:
            return
        self._affinity.routed(*asked, name)
        self._open[name] += 1
        loop = asyncio.get_running_loop()
        result.add_done_callback(lambda _: loop.call_soon_threadsafe(self._ended, name))

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Ray's list of engines has changed."""
        before = {i.unique_id for i in self.curr_replicas}
        super().update_replicas(replicas)
        for name in before - {i.unique_id for i in self.curr_replicas}:
            self._forget(name)

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """An engine is gone before Ray's list says so."""
        super().on_replica_actor_died(replica_id)
        self._forget(replica_id.unique_id)

    def _load(self, replica_id: ReplicaID) -> int:
        """Requests of an engine: those of this router, or those that it last told of, which counts
        other routers' but is forgotten after some seconds."""
        told = self.replica_queue_len_cache.get(replica_id) or 0
        return max(self._open[replica_id.unique_id], told)

    def _ended(self, name: str) -> None:
        self._open[name] -= 1
        if not self._open[name]:
            del self._open[name]

    def _forget(self, name: str) -> None:
        self._affinity.forget(name)


def _asked(request: PendingRequest | None) -> tuple[tuple[bytes, ...], str | None] | None:
    """(block keys, session) of a prompt's request, None for other calls."""
    if request is None or "keys" not in request.kwargs:
        return None
    return request.kwargs["keys"], request.kwargs["session"]


class Engine:
    """One replica: an engine process, and the way to it."""

    async def __init__(self, config: ServerConfig) -> None:  # type: ignore[misc]  # Ray awaits it
        spec = startup.engine_spec(config, startup.folder_of(config))
        index = serve.get_replica_context().rank.rank
        self._llm = await asyncio.to_thread(AsyncLLM.of, replace(spec, index=index))
        self._closing = threading.Event()
        threading.Thread(target=self._watch, name="engine's end", daemon=True).start()

    async def generate(
        self, ids: np.ndarray, params: SamplingParams, **route: Any
    ) -> AsyncGenerator[tuple[float, list[Piece]], None]:
        """(now on this machine's monotonic clock, pieces): those that have come since the last.
        route: what PrefixRouter read."""
        pieces: list[Piece] = []
        more = asyncio.Event()

        async def read() -> None:
            try:
                async for piece in self._llm.generate(ids.tolist(), params):
                    pieces.append(piece)
                    more.set()
            finally:
                more.set()

        reader = asyncio.create_task(read())
        try:
            while not reader.done() or pieces:
                await more.wait()
                more.clear()
                if pieces:
                    ready, pieces = pieces, []
                    yield time.monotonic(), ready
            reader.result()
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError, IsobathError):
                await reader

    def limits(self) -> Limits:
        """What a prompt is checked against."""
        return self._llm.limits

    def statistics(self) -> list[EngineStatistics]:
        """The latest record."""
        return self._llm.statistics()

    async def reset_prefix_cache(self) -> None:
        """Forget every cached block that no running sequence holds."""
        await self._llm.reset_prefix_cache()

    def check_health(self) -> None:
        """Called by Ray, which replaces an engine whose check raises."""
        if not self._llm.alive:
            raise EngineDied("the engine process has ended")

    async def __del__(self) -> None:
        self._closing.set()
        await self._llm.close()

    def _watch(self) -> None:
        """A thread: leave when the process does. Waiting for the next health check would make this
        replica, on which every request ends at once, everybody's least loaded one."""
        self._llm.process.wait()
        if not self._closing.wait(PARTING_S):
            os._exit(1)


class RayBackend:
    """The engines of a Ray Serve application, as a Backend."""

    def __init__(self, engines: DeploymentHandle, text: Text, limits: Limits) -> None:
        self._engines, self.text, self._limits = engines, text, limits
        self._stream = engines.options(stream=True)
        self._statistics: list[EngineStatistics] = []
        self.alive = True
        self._poll = asyncio.create_task(self._watch())

    @property
    def limits(self) -> Limits:
        """An engine's, with the completions that all living ones run at once."""
        seqs = self._limits.max_num_seqs * max(1, len(self._statistics))
        return replace(self._limits, max_num_seqs=seqs)

    def statistics(self) -> list[EngineStatistics]:
        """Every living engine's, at most some seconds old."""
        return self._statistics

    async def generate(
        self, prompt: Sequence[int], params: SamplingParams, route: Route | None = None
    ) -> AsyncGenerator[Piece, None]:
        """As AsyncLLM.generate. Raises EngineDied when the engine that took the prompt is gone."""
        limits = self._limits
        ids = checked_prompt(prompt, params.max_tokens, limits.vocab_size, limits.context)
        told = np.asarray(ids, dtype=np.int32)
        stream = self._stream.generate.remote(
            told, params, keys=block_keys(ids), session=route.session if route else None
        )
        try:
            async for now, pieces in stream:
                ahead = time.monotonic() - now
                for piece in pieces:
                    yield _on_this_clock(piece, ahead)
        except RayTaskError as error:
            if isinstance(error.cause, IsobathError):
                raise error.cause from None
            raise
        except (RayActorError, DeploymentUnavailableError) as error:
            raise EngineDied("the request was lost", found=str(error).split("\n")[0]) from None
        finally:
            stream.cancel()  # of one that has ended, nothing

    async def reset_prefix_cache(self) -> None:
        """As AsyncLLM's, of every engine."""
        await self._engines.broadcast("reset_prefix_cache").results_async(timeout_s=30)

    async def close(self, *, drain: bool = False, timeout: float = 5.0) -> None:
        """Stop looking at the engines; they belong to Ray."""
        self._poll.cancel()

    async def _watch(self) -> None:
        while True:
            try:
                told = await self._engines.broadcast("statistics").results_async(
                    timeout_s=5, return_exceptions=True
                )
                self._statistics = [
                    s for records in told if isinstance(records, list) for s in records
                ]
                self.alive = True
            except DeploymentUnavailableError:
                self._statistics, self.alive = [], False
            except Exception:  # a look that fails says nothing about the engines
                log.warning("the engines' statistics could not be read", exc_info=True)
            await asyncio.sleep(POLL_S)


def _on_this_clock(piece: Piece, ahead: float) -> Piece:
    """Times of another machine, which counts from another moment, in ours. ahead: seconds by which
    ours is, the way here included."""
    if piece.completion is None or piece.completion.times is None:
        return piece
    times = piece.completion.times
    moved = replace(
        times,
        queued=times.queued + ahead,
        scheduled=times.scheduled + ahead,
        first=times.first + ahead,
        last=times.last + ahead,
    )
    return replace(piece, completion=replace(piece.completion, times=moved))


class Door:
    """The HTTP side, with the engines somewhere else."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, engines: DeploymentHandle, config: ServerConfig
    ) -> None:
        folder = startup.folder_of(config)
        text = Text(folder)
        self._state = ServerState(
            replace(config, served_model_name=startup.names_of(config)),
            RayBackend(engines, text, await engines.limits.remote()),  # waits for the first engine
            startup.chat_of(config, folder, text),
            sampling_defaults=startup.sampling_of(config, folder),
        )

    def __serve_build_asgi_app__(self) -> Any:
        """Called by Ray for the app that it shall serve."""
        return application(self._state)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of a cluster the application takes. replicas: of Engine; most: how many they may
    become under load, None: no more. num_gpus: of an engine; None: one, if the cluster has any.
    num_cpus: of an engine; doors: replicas of Door, which are placed anywhere."""

    replicas: int = 1
    most: int | None = None
    num_gpus: float | None = None
    num_cpus: float = 1
    doors: int = 1


def deployments(config: ServerConfig, scale: Scale) -> Application:
    """Engine and Door, bound to each other."""
    seqs, gpus = config.engine.max_num_seqs, scale.num_gpus
    if gpus is None:
        gpus = 1 if config.device != "cpu" and ray.cluster_resources().get("GPU") else 0
    shared: dict[str, Any] = {
        "health_check_period_s": HEALTH_S,
        "graceful_shutdown_wait_loop_s": 1.0,
        "graceful_shutdown_timeout_s": config.shutdown_timeout,
        "logging_config": LoggingConfig(enable_access_log=False),
    }
    count: dict[str, Any] = {"num_replicas": scale.replicas}
    if scale.most is not None:
        count = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=scale.replicas, max_replicas=scale.most, target_ongoing_requests=seqs
            )
        }
    engine = serve.deployment(Engine).options(
        ray_actor_options={"num_gpus": gpus, "num_cpus": scale.num_cpus},
        max_ongoing_requests=OPEN_PER_SEQUENCE * seqs,
        request_router_config=RequestRouterConfig(request_router_class=PrefixRouter),
        **count,
        **shared,
    )
    door = serve.deployment(serve.ingress()(Door)).options(
        ray_actor_options={"num_cpus": 0},
        num_replicas=scale.doors,
        max_ongoing_requests=1 << 16,  # what is too much is said by the app, with 503
        **shared,
    )
    return door.bind(engine.bind(config), config)


def app(args: dict[str, Any]) -> Application:
    """For `serve run isobath.ray_app:app key=value...` and the `args` of Serve's config files: any
    flag of `isobath serve` by its name, and num_gpus, num_cpus, doors, replicas, max_replicas."""
    args = dict(args)
    own = {key: float(args.pop(key)) for key in ("num_gpus", "num_cpus") if key in args}
    doors = int(args.pop("doors", 1))
    names = {"replicas": "data-parallel-size", "max_replicas": "ray-max-replicas"}
    words = [w for key, value in args.items() for w in _words(names.get(key, key), value)]
    config = command.parsed(words)
    most = config.ray_max_replicas
    return deployments(config, Scale(config.data_parallel_size, most, doors=doors, **own))


def _words(name: str, value: Any) -> list[str]:
    """One argument as on a command line."""
    flag = "--" + name.replace("_", "-")
    if str(value).lower() in ("true", "false"):
        return [flag] if str(value).lower() == "true" else [f"--no-{name.replace('_', '-')}"]
    if isinstance(value, list):
        return [f"{flag}={item}" for item in value]
    return [f"{flag}={json.dumps(value) if isinstance(value, dict) else value}"]


def run(config: ServerConfig) -> int:
    """Serve on the Ray cluster that this machine is part of, or on one started for it, until
    SIGTERM or SIGINT; the exit code. This is `isobath serve --ray`."""
    server_log.configure(config)
    began = time.monotonic()
    ray.init(include_dashboard=False, logging_level=logging.WARNING)
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # after init, which sets its own
        signal.signal(number, lambda *_: told.set())
    try:
        serve.start(http_options=HTTPOptions(host=config.host, port=config.port))
        scale = Scale(config.data_parallel_size, config.ray_max_replicas)
        serve.run(deployments(config, scale), name=NAME, route_prefix="/")
        log.info(
            "isobath ready on http://%s:%d (Ray Serve, %d replicas) in %.1f s",
            config.host,
            config.port,
            config.data_parallel_size,
            time.monotonic() - began,
        )
        while not told.wait(1.0):  # a wait without end would not let the handler run
            pass
        serve.shutdown()
    finally:
        ray.shutdown()
    return 0
