"""AsyncLLM: many generations at once on an event loop, computed in a process of their own.

    import asyncio
    from isobath import AsyncLLM, SamplingParams

    async def main():
        async with AsyncLLM() as llm:               # the bundled model; or a checkpoint's folder
            params = SamplingParams(max_tokens=32)
            async for piece in llm.generate("The difflib module", params):
                print(piece.text, end="", flush=True)

    if __name__ == "__main__":                      # the engine's process imports this file again
        asyncio.run(main())

A consumer that stops early (break, cancellation, aclose) ends its request, whose pages go back. One
that does not read holds up nobody: its events wait in the parent, at most n * max_tokens tokens and
one log-probability record a prompt token, while the engine goes on and frees its pages in time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import TracebackType

from isobath.config import EngineConfig
from isobath.engine.llm import BUNDLED
from isobath.engine.output import Completion, Output, Part, Top, joined
from isobath.engine.process import EngineProcess, EngineSpec, Limits
from isobath.engine.request import Event, Failed, Finished, Prompt, Request, checked_prompt
from isobath.engine.sampling import SamplingParams
from isobath.engine.statistics import EngineStatistics
from isobath.errors import EngineDied, RequestError, RequestFailed
from isobath.model.text import Text


@dataclass(frozen=True, slots=True)
class Piece:
    """What is new of one completion.

    index: which of the prompt's n. text: what has become certain, maybe nothing yet. token_ids:
    the new token, if any. logprobs: its (log-probability, best (id, logprob)), if asked for.
    completion: the whole, with the last piece only. parts: `text` by token, each token's once; a
    token is held back as long as its text is not certain. prompt_logprobs: of the prompt, with the
    first token, if asked for.
    """

    index: int
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[tuple[float, Top], ...] = ()
    completion: Completion | None = None
    parts: tuple[Part, ...] = ()
    prompt_logprobs: tuple[tuple[float, Top], ...] = ()

    @property
    def finish_reason(self) -> str | None:
        """The completion's with the last piece, None before."""
        return self.completion.finish_reason if self.completion else None


@dataclass(eq=False, slots=True)
class _Mailbox:
    """Events of one request, from the process's reader thread to the consumer's loop."""

    loop: asyncio.AbstractEventLoop
    events: deque[Event] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class AsyncLLM:
    """A DeepSeek-V4 checkpoint in a process of its own. Arguments and errors are those of LLM.

    The constructor waits until the checkpoint is loaded; in a loop with other work to do use
    `await asyncio.to_thread(AsyncLLM, path)`. generate() may be called from any event loop. Use it
    as an async context manager, or call close().
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        numerics: str = "native",
        dialect: str = "auto",
        max_batched_tokens: int = 512,
        engine: EngineConfig | None = None,
    ) -> None:
        folder = str(BUNDLED if path is None else path)
        self._start(EngineSpec(folder, numerics, dialect, max_batched_tokens, engine))

    @classmethod
    def of(cls, spec: EngineSpec) -> AsyncLLM:
        """Like the constructor, with everything that an engine's process can be told."""
        llm = cls.__new__(cls)
        llm._start(spec)
        return llm

    @classmethod
    def started(cls, spec: EngineSpec, text: Text) -> AsyncLLM:
        """Like of(), but without waiting: load() does. text: the checkpoint's, to be shared."""
        llm = cls.__new__(cls)
        llm._begin(spec)
        llm._text = text
        return llm

    def load(self) -> None:
        """Wait until the checkpoint is loaded, for an object that started() made. Raises what the
        constructor would have raised; the process has ended then."""
        try:
            self.limits: Limits = self.process.ready()
        except BaseException:
            self.process.close(timeout=0)
            raise

    def _start(self, spec: EngineSpec) -> None:
        self._begin(spec)
        self.load()

    def _begin(self, spec: EngineSpec) -> None:
        self._folder = BUNDLED if spec.path is None else Path(spec.path)
        self._text: Text | None = None
        self._ids = count()
        self._boxes: dict[int, _Mailbox] = {}
        self.process = self._engine(spec)

    def _engine(self, spec: EngineSpec) -> EngineProcess:
        return EngineProcess(spec, self._deliver)

    @property
    def text(self) -> Text:
        """The checkpoint's tokenizer, read when it is first needed."""
        if self._text is None:
            self._text = Text(self._folder)
        return self._text

    @property
    def alive(self) -> bool:
        """Whether the engine still takes requests."""
        return self.process.alive

    def statistics(self) -> list[EngineStatistics]:
        """What the engine last told about itself: a list of one."""
        return [self.process.statistics]

    async def generate(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        route: object = None,
    ) -> AsyncGenerator[Piece, None]:
        """Complete one prompt (a text, or token ids taken as they are), piece by piece.

        Pieces of params.n completions are mixed, told apart by index. route: for those who choose
        between engines; here there is one. Raises RequestError when the
        prompt cannot be served, EngineDied when the process is gone or goes.
        """
        params = params or SamplingParams()
        ids = self.text.encode(prompt) if isinstance(prompt, str) else prompt
        limits = self.limits
        ids = checked_prompt(ids, params.max_tokens, limits.vocab_size, limits.context)
        outputs = {i: Output(ids, i, params, self.text) for i in range(params.n)}
        box = _Mailbox(asyncio.get_running_loop())
        request = Request(next(self._ids), tuple(ids), params)
        self._boxes[request.id] = box
        try:
            self.process.submit(request)
            while outputs:
                await box.wake.wait()
                box.wake.clear()
                while outputs and box.events:
                    if piece := self._piece(box.events.popleft(), outputs):
                        if _ends(piece, box.events):
                            last = self._piece(box.events.popleft(), outputs)
                            piece = _merged(piece, last)
                        yield piece
        finally:
            del self._boxes[request.id]
            if outputs:
                self.process.abort(request.id)

    async def reset_prefix_cache(self) -> None:
        """Forget every cached block that no running sequence holds, before later requests begin."""
        self.process.reset_prefix_cache()

    async def close(self, *, drain: bool = False, timeout: float = 5.0) -> None:
        """End the engine's process, as EngineProcess.close, without holding up the loop."""
        await asyncio.to_thread(self.process.close, drain=drain, timeout=timeout)

    async def __aenter__(self) -> AsyncLLM:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _piece(self, event: Event, outputs: dict[int, Output]) -> Piece | None:
        """Bring one event to its output; a completion that it ends leaves `outputs`."""
        if isinstance(event, Failed):
            outputs.clear()
            if event.kind == "invalid_request":
                raise RequestError("the request failed", found=event.error)
            if not self.alive:
                raise EngineDied("the request was lost", found=event.error)
            raise RequestFailed("the request failed", found=event.error)
        if isinstance(event, Prompt):
            for told in outputs.values():
                told.add_prompt(event)
            return None
        output = outputs.get(event.index)
        if output is None:
            return None
        if isinstance(event, Finished):
            del outputs[event.index]
            rest = output.finish()
            whole = output.completion(event)
            return Piece(event.index, joined(rest), completion=whole, parts=rest)
        if output.stopped:
            return None
        parts, stopped = output.add(event)
        if stopped:
            self.process.abort(event.request_id, event.index)  # its Finished will come
        logprobs = () if event.logprob is None else ((event.logprob, event.top),)
        prompt = tuple(output.prompt_logprobs) if len(output.token_ids) == 1 else ()
        return Piece(event.index, joined(parts), (event.token_id,), logprobs, None, parts, prompt)

    def _deliver(self, events: list[Event]) -> None:
        """On the reader thread: put events where they belong, and wake each loop once."""
        touched: dict[asyncio.AbstractEventLoop, dict[_Mailbox, None]] = {}
        for event in events:
            if box := self._boxes.get(event.request_id):
                box.events.append(event)
                touched.setdefault(box.loop, {})[box] = None
        for loop, boxes in touched.items():
            try:
                loop.call_soon_threadsafe(_wake, boxes)
            except RuntimeError:  # the loop was closed under its generators: nobody will read
                for request_id in [i for i, b in self._boxes.copy().items() if b in boxes]:
                    self.process.abort(request_id)


def _wake(boxes: Iterable[_Mailbox]) -> None:
    for box in boxes:
        box.wake.set()


def _ends(piece: Piece, events: deque[Event]) -> bool:
    """Whether the next event says that this piece's completion has ended with it."""
    following = events[0] if events else None
    return isinstance(following, Finished) and following.index == piece.index


def _merged(piece: Piece, last: Piece | None) -> Piece:
    """A completion's last token and its end, as one."""
    assert last is not None
    return replace(
        piece,
        text=piece.text + last.text,
        completion=last.completion,
        parts=piece.parts + last.parts,
    )
