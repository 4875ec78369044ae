"""The xgrammar backend: structures compiled to tables over the vocabulary, masks in microseconds.

Importing xgrammar imports transformers, seconds of work, so this module is imported by the thread
that compiles and by nobody else. Tool calls are xgrammar's own description of DSML. Order of
properties is the schema's: with any order xgrammar would no longer hold `required`. JSON may have
white space, but not without end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
import xgrammar
from xgrammar.structural_tag import ConstStringFormat, JSONSchemaFormat, OrFormat, StructuralTag

from isobath.engine.constraint import Grammar
from isobath.engine.grammar_schema import beyond, beyond_pattern, closed
from isobath.engine.grammar_vocabulary import Vocabulary
from isobath.engine.structure import Structure
from isobath.errors import RequestError

MAX_SPACES = 20
"""Of white space in a row: a line break and deep indentation, not an endless run."""
_THREADS = 2
_PREFIX = re.compile(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ")


class XGrammar:
    """Compiles structures for one vocabulary."""

    name = "xgrammar"

    def __init__(self, vocabulary: Vocabulary) -> None:
        info = xgrammar.TokenizerInfo(
            list(vocabulary.pieces),
            vocab_type=xgrammar.VocabType.RAW,
            vocab_size=vocabulary.size,
            stop_token_ids=[vocabulary.eos],
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=_THREADS, cache_enabled=False)

    def compile(self, structure: Structure) -> Grammar:
        """Raises RequestError for what xgrammar refuses, or would not enforce."""
        if weak := _weakness(structure):
            raise RequestError(
                f"a {structure.kind} with {weak}", found="xgrammar does not enforce it"
            )
        try:
            return _Compiled(self._compile(structure))
        except RequestError:
            raise
        except Exception as error:  # the library raises many kinds, bare RuntimeError among them
            raise RequestError(
                f"a {structure.kind} that xgrammar refuses",
                found=_PREFIX.sub("", str(error)).strip(),
            ) from error

    def _compile(self, structure: Structure) -> xgrammar.CompiledGrammar:
        compiler, value = self._compiler, structure.value
        if structure.kind in ("json_schema", "json_object"):
            schema = json.dumps(closed(json.loads(value or '{"type": "object"}')))
            return compiler.compile_json_schema(
                schema, strict_mode=False, max_whitespace_cnt=MAX_SPACES
            )
        if structure.kind == "regex":
            return compiler.compile_regex(value)
        if structure.kind == "grammar":
            return compiler.compile_grammar(value)
        if structure.kind == "choice":
            texts: list[Any] = [ConstStringFormat(value=text) for text in json.loads(value)]
            return compiler.compile_structural_tag(StructuralTag(format=OrFormat(elements=texts)))
        return compiler.compile_structural_tag(_calls(json.loads(value)))


class _Compiled:
    def __init__(self, compiled: xgrammar.CompiledGrammar) -> None:
        self._compiled = compiled

    @property
    def cost(self) -> int:
        return int(self._compiled.memory_size_bytes)

    def matcher(self) -> _Matcher:
        return _Matcher(self._compiled)


class _Matcher:
    def __init__(self, compiled: xgrammar.CompiledGrammar) -> None:
        self._matcher = xgrammar.GrammarMatcher(compiled)

    def accept(self, token: int) -> bool:
        return bool(self._matcher.accept_token(token))

    def fill(self, words: torch.Tensor) -> None:
        self._matcher.fill_next_token_bitmask(words.unsqueeze(0))


def _calls(value: Mapping[str, Any]) -> StructuralTag:
    """The structural tag of a "tools" structure."""
    content, choice = value.get("content"), value["choice"]
    tag = xgrammar.get_model_structural_tag(
        "deepseek_v4",
        tools=[
            {"type": "function", "function": {k: v for k, v in tool.items() if v is not None}}
            for tool in value["tools"]
        ],
        tool_choice=choice if content is None else "required",
        reasoning="disabled",
        any_order=False,
        max_whitespace_cnt=MAX_SPACES,
        parallel_tool_calls=value["parallel"],
    )
    if content is None:
        return tag
    text = JSONSchemaFormat(json_schema=content, max_whitespace_cnt=MAX_SPACES)
    return StructuralTag(format=OrFormat(elements=[text, tag.format]))


def _weakness(structure: Structure) -> str | None:
    """What of the structure must hold and would not."""
    if structure.kind == "json_schema":
        return beyond(json.loads(structure.value))
    if structure.kind == "regex":
        return beyond_pattern(structure.value)
    if structure.kind == "tools":
        value = json.loads(structure.value)
        strict = [tool.get("parameters") for tool in value["tools"] if tool.get("strict")]
        return next((f for s in [*strict, value.get("content")] if (f := beyond(s))), None)
    return None
