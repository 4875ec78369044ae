"""LLM: a checkpoint, ready to generate and to score, in one object.

from isobath import LLM, SamplingParams
llm = LLM()                                     # the bundled model; or a checkpoint's folder
[done] = llm.generate(["The difflib module"], SamplingParams(max_tokens=64))
print(done.text)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from isobath.config import EngineConfig, ModelConfig
from isobath.engine.engine import Engine
from isobath.engine.grammar import Grammars
from isobath.engine.grammar_vocabulary import Vocabulary, vocabulary_of
from isobath.engine.output import Completion, Output, joined
from isobath.engine.request import Failed, Finished, Prompt, Request, Token, checked_prompt
from isobath.engine.sampling import SamplingParams
from isobath.engine.score import score
from isobath.errors import ConfigError, RequestError
from isobath.model.dummy import Dummy, dummy_model
from isobath.model.load import load
from isobath.model.progress import LoadProgress
from isobath.model.revision import read_config
from isobath.model.text import Text
from isobath.model.weights import ModelWeights
from isobath.ops.binding import bind_measured
from isobath.ops.table import OpTable
from isobath.ops.verdicts import saved_verdicts
from isobath.plan import flash_config
from isobath.target import Target, detect, device_memory

_log = logging.getLogger(__name__)
BUNDLED = Path(__file__).parents[1] / "models" / "isobath_tiny"


class LLM:
    """A DeepSeek-V4 checkpoint loaded for inference.

    path: a folder in the published format; None is the bundled isobath-tiny. numerics: "native"
    (quantised activations, caches and experts) or "exact" (fp32, nothing rounded). dialect: of FP8
    bytes in memory, "auto" (that of the device it runs on), "ocp" or "fnuz"; results do not
    depend on it. max_batched_tokens: most tokens of one step; prompts longer than it are processed
    in chunks. engine: the rest of what the engine takes on at once. device: "cpu", "gpu", or
    "auto": a GPU if there is one. dummy: random weights of the config's shapes (of V4-Flash's if
    path is None) instead of a checkpoint's, for timing. ops: op -> backend, for ops that shall not
    take the one that verdicts choose. allow_failed_verdicts: run on a GPU although the doctor found
    every backend of an op wrong there. Raises CheckpointError, ConfigError or BackendUnavailable.

    ops: the table that the model calls. choices: for each op the backend in it and why.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        numerics: str = "native",
        dialect: str = "auto",
        max_batched_tokens: int = 512,
        engine: EngineConfig | None = None,
        device: str = "auto",
        dummy: Dummy | None = None,
        ops: Mapping[str, str] | None = None,
        allow_failed_verdicts: bool = False,
    ) -> None:
        if numerics not in ("native", "exact"):
            raise ConfigError(f"numerics={numerics!r}", found='known: "native", "exact"')
        if max_batched_tokens < 1:
            raise ConfigError("max_batched_tokens must be positive", found=str(max_batched_tokens))
        folder = BUNDLED if path is None else Path(path)
        options = engine or EngineConfig(max_num_seqs=min(64, max_batched_tokens))
        self.target = detect(device, dialect)
        self.numerics, self.dialect = numerics, self.target.dialect
        table, self.choices = bind_measured(
            self.target,
            saved_verdicts(self.target) if self.target.kind != "cpu" else (),
            batch_invariant=options.batch_invariant,
            overrides=ops,
            allow_failed=allow_failed_verdicts,
        )
        self.ops = table
        if self.target.kind != "cpu":
            for op, choice in self.choices.items():
                _log.info("%s: %s, %s", op, choice.backend, choice.reason)
        if dummy is not None:
            shape = flash_config() if path is None else read_config(folder)
            self.config, weights = dummy_model(
                shape,
                dialect=self.dialect,
                device=self.target.device,
                ops=table,
                numerics=numerics,
                part=dummy,
            )
        else:
            self.config, weights = _loaded(folder, numerics, self.target, table)
        self._folder = folder
        self._text: Text | None = None
        self._engine_config = replace(options, max_batched_tokens=max_batched_tokens)
        self._parts = (self.config, weights, table, self.target.device)
        self._engine: Engine | None = None
        self._ids = count()

    @property
    def engine(self) -> Engine:
        """The engine, its caches allocated when generation first needs them."""
        if self._engine is None:
            options = self._engine_config
            grammars = Grammars(self._vocabulary, options.structured_outputs)
            self._engine = Engine(*self._parts, options, grammars)
        return self._engine

    def _vocabulary(self) -> Vocabulary:
        return vocabulary_of(self.text, self.config.vocab_size)

    @property
    def text(self) -> Text:
        """The checkpoint's tokenizer, read when it is first needed."""
        if self._text is None:
            self._text = Text(self._folder)
        return self._text

    def generate(
        self,
        prompts: str | Sequence[str] | Sequence[Sequence[int]],
        params: SamplingParams | None = None,
    ) -> list[Completion]:
        """Complete prompts (texts, or token ids taken as they are) together.

        A single text counts as a list of one. With params.n > 1 a prompt has n completions, next to
        each other. Shows progress on a terminal. Raises RequestError before any work is done when
        a prompt is empty, too long, or holds an id outside the vocabulary.
        """
        items: list[str | Sequence[int]] = [prompts] if isinstance(prompts, str) else [*prompts]
        params = params or SamplingParams()
        done: dict[tuple[int, int], Completion] = {}
        requests = self._requests(items, params)
        with _progress(len(requests) * params.n) as advance:
            for request, _, completion in self._run(requests):
                if completion is not None:
                    done[request, completion.index] = completion
                    advance()
        return [done[r.id, index] for r in requests for index in range(params.n)]

    def stream(
        self, prompt: str, params: SamplingParams | None = None
    ) -> Generator[str, None, Completion]:
        """Complete one prompt, yielding text as soon as it is certain; returns the Completion.

        Closing the generator early ends the request.
        """
        params = replace(params or SamplingParams(), n=1)
        for _, piece, completion in self._run(self._requests([prompt], params)):
            if piece:
                yield piece
            if completion is not None:
                return completion
        raise AssertionError("a request ended without a completion")

    def score(self, token_ids: Sequence[int], *, chunk_size: int | None = None) -> torch.Tensor:
        """Logits of every position: float32 [T, vocab], row t from tokens 0..t.

        token_ids are taken as they are (no BOS is added). chunk_size: tokens a step, at most
        max_batched_tokens; by default that. Raises RequestError as generate() does.
        """
        most = self._engine_config.max_batched_tokens
        size = most if chunk_size is None else chunk_size
        if not 1 <= size <= most:
            raise RequestError(
                f"score(chunk_size={chunk_size})",
                found=f"max_batched_tokens={most}",
                do="pass a chunk_size from 1 to that",
            )
        return score(*self._parts, self._checked(token_ids, new_tokens=0), size)

    def _requests(
        self, prompts: Sequence[str | Sequence[int]], params: SamplingParams
    ) -> list[Request]:
        ids = [
            self._checked(self.text.encode(p) if isinstance(p, str) else p, params.max_tokens)
            for p in prompts
        ]
        return [Request(next(self._ids), tuple(i), params) for i in ids]

    def _run(self, requests: Sequence[Request]) -> Iterator[tuple[int, str, Completion | None]]:
        """Run requests to their end: (request id, new text, completion if this ended it)."""
        outputs = {
            (r.id, index): Output(list(r.token_ids), index, r.params, self.text)
            for r in requests
            for index in range(r.params.n)
        }
        for request in requests:
            self.engine.submit(request)
        try:
            while outputs:
                for event in self.engine.step():
                    yield from self._tell(event, outputs)
        finally:
            for key in outputs:
                self.engine.abort(*key)

    def _tell(
        self,
        event: Token | Prompt | Finished | Failed,
        outputs: dict[tuple[int, int], Output],
    ) -> Iterator[tuple[int, str, Completion | None]]:
        """Bring one event to the output it belongs to; a completion leaves `outputs`."""
        if isinstance(event, Failed):
            raise RequestError("the request failed", found=event.error)
        if isinstance(event, Prompt):
            for index in range(len(outputs)):
                if output := outputs.get((event.request_id, index)):
                    output.add_prompt(event)
            return
        key = (event.request_id, event.index)
        if key not in outputs:
            return
        output = outputs[key]
        if isinstance(event, Finished):
            del outputs[key]
            rest = output.finish()
            yield key[0], joined(rest), output.completion(event)
            return
        if not output.stopped:
            parts, stopped = output.add(event)
            if stopped:
                self.engine.abort(*key)  # whose Finished is told with the next step
            yield key[0], joined(parts), None

    def _checked(self, token_ids: Sequence[int], new_tokens: int) -> list[int]:
        config = self.config
        return checked_prompt(
            token_ids, new_tokens, config.vocab_size, config.max_position_embeddings
        )


def _loaded(
    folder: Path, numerics: str, target: Target, ops: OpTable
) -> tuple[ModelConfig, ModelWeights]:
    start, (before, _) = time.monotonic(), device_memory(target.device)
    with LoadProgress(f"Loading safetensors checkpoint shards, {folder.name}") as progress:
        loaded = load(
            folder,
            numerics=numerics,
            dialect=target.dialect,
            device=target.device,
            ops=ops,
            progress=progress,
        )
    used = before - device_memory(target.device)[0]
    seconds = time.monotonic() - start
    _log.info("Loading weights took %.2f s, %.2f GiB of memory", seconds, max(0, used) / (1 << 30))
    return loaded


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar of finished completions on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("completions"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("completions", total=total)
        yield lambda: bar.advance(task)
