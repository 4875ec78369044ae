"""The llguidance backend: no torch, more of JSON schema, and masks computed as they are needed.

Refuses by itself every keyword that it does not enforce. Tool calls are written here as a Lark
grammar: the marker is a token of its own, so a value may hold whatever else it likes. A text
parameter is taken as it stands, so of its schema only `enum` and `const` hold; a strict tool
that says more is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import llguidance
import torch
from llguidance.gbnf_to_lark import any_to_lark

from isobath.engine.constraint import Grammar
from isobath.engine.grammar_vocabulary import Vocabulary
from isobath.engine.structure import Structure
from isobath.errors import RequestError

MAX_SPACES = 20
_SPACES = {"whitespace_pattern": rf"[\x20\x0A\x0D\x09]{{0,{MAX_SPACES}}}"}
_ANNOTATIONS = ("title", "description", "default", "examples", "$comment")
_COST = 1 << 20
"""llguidance does not tell what a grammar takes; this is a generous middle."""


class _Tokens:
    """The vocabulary in the form that llguidance asks for. Text that a grammar forces is encoded as
    the model would, and the mask is then that one token."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = vocabulary.eos
        self._encode = vocabulary.encode
        special = {i for i, piece in enumerate(vocabulary.pieces) if not piece}
        special |= {vocabulary.marker} - {-1}
        self.special_token_ids = sorted(special)
        self.tokens = [
            b"\xff<[%d]>" % i if i in special else p for i, p in enumerate(vocabulary.pieces)
        ]

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


class Guidance:
    """Compiles structures for one vocabulary."""

    name = "guidance"

    def __init__(self, vocabulary: Vocabulary) -> None:
        wrapper = llguidance.TokenizerWrapper(_Tokens(vocabulary))
        self._tokenizer = llguidance.LLTokenizer(wrapper, n_vocab=vocabulary.size)
        self._vocabulary = vocabulary

    def compile(self, structure: Structure) -> Grammar:
        """Raises RequestError for what llguidance refuses."""
        try:
            grammar = self._grammar(structure)
            matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
            error = matcher.get_error() if matcher.is_error() else ""
        except RequestError:
            raise
        except Exception as raised:  # the Lark converter raises bare Exception
            error = str(raised)
        if error:
            found = error.partition("<state>")[0].strip()
            raise RequestError(f"a {structure.kind} that llguidance refuses", found=found)
        return _Compiled(matcher)

    def _grammar(self, structure: Structure) -> str:
        make, value = llguidance.LLMatcher, structure.value
        if structure.kind in ("json_schema", "json_object"):
            schema = value or '{"type": "object"}'
            return make.grammar_from_json_schema(schema, defaults=_SPACES)  # type: ignore[arg-type]
        if structure.kind == "regex":
            return make.grammar_from_regex(_unanchored(value))
        if structure.kind == "grammar":
            return make.grammar_from_lark(any_to_lark(value))
        if structure.kind == "choice":
            lark = "start: " + " | ".join(_quoted(text) for text in json.loads(value))
            return make.grammar_from_lark(lark)
        return make.grammar_from_lark(_calls(json.loads(value), self._vocabulary.marker))


class _Compiled:
    cost = _COST

    def __init__(self, matcher: llguidance.LLMatcher) -> None:
        self._matcher = matcher

    def matcher(self) -> _Matcher:
        return _Matcher(self._matcher.deep_copy())


class _Matcher:
    def __init__(self, matcher: llguidance.LLMatcher) -> None:
        self._matcher = matcher

    def accept(self, token: int) -> bool:
        accepted = self._matcher.consume_token(token)
        self._check()
        return accepted

    def fill(self, words: torch.Tensor) -> None:
        self._matcher.unsafe_compute_mask_ptr(words.data_ptr(), words.numel() * 4)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            found = self._matcher.get_error().partition("<state>")[0].strip()
            raise RequestError("llguidance cannot follow the grammar further", found=found)


def _unanchored(pattern: str) -> str:
    """The pattern without ^ and $, which matching the whole text implies."""
    pattern = pattern.removeprefix("^")
    if pattern.endswith("$") and not pattern.endswith("\\$"):
        pattern = pattern[:-1]
    return pattern


def _quoted(text: str) -> str:
    """A Lark string."""
    return json.dumps(text, ensure_ascii=False)


def _calls(value: Mapping[str, Any], marker: int) -> str:
    """The Lark grammar of a "tools" structure."""
    if marker < 0:
        raise RequestError("tool calls", found="this tokenizer has no ｜DSML｜ token")
    mark = f"<[{marker}]>"
    tools = value["tools"]
    invokes = " | ".join(f"invoke_{i}" for i in range(len(tools)))
    several = "(" + invokes + ")" + ("+" if value["parallel"] else "")
    lines = [
        "%llguidance {}",
        f'calls: {mark} "tool_calls>\\n" {several} "</" {mark} "tool_calls>"',
        f'end: "</" {mark} "parameter>\\n"',
        f'raw: /(?s:.*)<\\// {mark} "parameter>\\n"',
        'raw_name: /[^"\\n<>]+/',
    ]
    if value["choice"] == "required":
        lines.append('start: "\\n\\n<" calls')
    elif "content" in value:
        lines += ['start: "\\n\\n<" calls | content', f"content: {_json(value['content'])}"]
    else:
        lines.append("start: /(?s:.*)/ | /(?s:.*)</ calls")
    for index, tool in enumerate(tools):
        lines += _invoke(index, tool, mark)
    return "\n".join(lines)


def _invoke(index: int, tool: Mapping[str, Any], mark: str) -> list[str]:
    """The rules of one tool."""
    name, lines = f"invoke_{index}", []
    parameters = tool.get("parameters") if tool.get("strict") is not False else None
    shape: dict[str, Any] = parameters if isinstance(parameters, dict) else {}
    opening, begin = f'"<" {mark} ', _quoted(f'invoke name="{tool["name"]}">\n')
    properties = shape.get("properties", {})
    shared = {k: shape[k] for k in ("$defs", "definitions") if k in shape}
    body = []
    for place, (key, schema) in enumerate(properties.items()):
        rule = f"{name}_{place}"
        if isinstance(schema, dict):
            schema = shared | schema
        start = _quoted(f'parameter name="{key}" string="')
        lines.append(f"{rule}: {opening} {start} ({_value(schema, bool(tool.get('strict')))})")
        optional = key not in shape.get("required", ())
        body.append(rule + ("?" if optional else ""))
    if not properties and shape.get("properties") is None:
        body.append(f"{name}_any*")
        start = '"parameter name=\\"" raw_name "\\" string=\\""'
        lines.append(f"{name}_any: {opening} {start} ({_value(True, False)})")
    close = f'"</" {mark} "invoke>\\n"'
    return [f"{name}: {opening} {begin} {' '.join(body)} {close}", *lines]


def _value(schema: Any, strict: bool) -> str:
    """What follows `string="` of a parameter: raw text, or JSON."""
    shape = schema if isinstance(schema, dict) else {}
    said = {k for k in shape if k not in _ANNOTATIONS}
    literals = shape.get("enum", [shape["const"]] if "const" in shape else None)
    kinds = shape.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if literals is not None and all(isinstance(text, str) for text in literals):
        return '"true\\">" (' + " | ".join(_quoted(text) for text in literals) + ") end"
    if kinds == ["string"]:
        if strict and (more := said - {"type"}):
            raise RequestError(
                f"a strict tool with {sorted(more)[0]} of a text",
                found="llguidance does not enforce it in DSML",
            )
        return '"true\\">" raw'
    as_json = f'"false\\">" {_json(schema)} end'
    if "string" in kinds or not said or "anyOf" in shape or "oneOf" in shape:
        return f'{as_json} | "true\\">" raw'
    return as_json


def _json(schema: Any) -> str:
    described = schema if isinstance(schema, dict) else {}
    return "%json " + json.dumps({"x-guidance": _SPACES} | described, ensure_ascii=False)
