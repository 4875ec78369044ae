"""Structure: what text a completion may be, as a request says it.

    SamplingParams(structure=Structure.json_schema({"type": "object"}))
    SamplingParams(structure=Structure.choice(["yes", "no"]))

Owns the record and every check that needs neither a grammar library nor the tokenizer: shape,
size and depth. They run in the client's process, so that most mistakes are answered before the
engine hears of them. What only a compiler can refuse (a keyword, a bad pattern) is told by the
engine, as a Failed event of kind "invalid_request". Compiling is engine/grammar.py's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from isobath.errors import RequestError

Kind = Literal["json_schema", "json_object", "regex", "choice", "grammar", "tools"]
KINDS: tuple[Kind, ...] = ("json_schema", "json_object", "regex", "choice", "grammar", "tools")
MAX_CHARACTERS = 1 << 18
"""Of a value. Compiling takes time and memory in proportion, at best."""
MAX_DEPTH = 64
"""Of nested JSON, or of brackets in a pattern: the compilers are recursive, in C++ and Rust, and
their stack is the engine's."""


@dataclass(frozen=True, slots=True)
class Structure:
    """What the text of a completion must be.

    kind, value: "json_schema": the schema, as JSON text. "json_object": any JSON object, value
    empty. "regex": a pattern that the whole text matches. "choice": JSON list of the texts to
    choose from. "grammar": EBNF whose rule `root` the text derives from. "tools": DSML tool calls,
    as tools() writes them.
    reasoning: whether the completion begins inside <think>, where text is free, and the structure
    holds from </think> on; None: read from the prompt, by the last of the two tokens in it.
    Raises RequestError when the value cannot be of its kind.
    """

    kind: Kind
    value: str = ""
    reasoning: bool | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RequestError(
                f"a structure of kind {self.kind!r}", found="known: " + ", ".join(KINDS)
            )
        if len(self.value) > MAX_CHARACTERS:
            raise RequestError(
                f"a {self.kind} of {len(self.value)} characters",
                found=f"at most {MAX_CHARACTERS} are compiled",
                do="send a smaller one",
            )
        if self.kind in ("regex", "grammar"):
            _bracket_depth(self.kind, self.value)
            if not self.value.strip():
                raise RequestError(f"an empty {self.kind}", do="say what the text must be")
        elif self.kind != "json_object":
            _CHECKS[self.kind](_parsed(self.kind, self.value))

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool | str) -> Structure:
        """JSON that the schema (a JSON text, or what it stands for) validates."""
        return cls("json_schema", schema if isinstance(schema, str) else _text(schema))

    @classmethod
    def json_object(cls) -> Structure:
        """Any JSON object."""
        return cls("json_object")

    @classmethod
    def regex(cls, pattern: str) -> Structure:
        """Text that the pattern matches from beginning to end."""
        return cls("regex", pattern)

    @classmethod
    def choice(cls, texts: Iterable[str]) -> Structure:
        """One of these texts."""
        return cls("choice", _text(list(texts)))

    @classmethod
    def grammar(cls, ebnf: str) -> Structure:
        """Text that the rule `root` of an EBNF derives."""
        return cls("grammar", ebnf)

    @classmethod
    def tools(
        cls,
        tools: Sequence[Mapping[str, Any]],
        *,
        choice: str = "required",
        parallel: bool = True,
        content: Mapping[str, Any] | bool | None = None,
    ) -> Structure:
        """DSML calls of these tools and no others.

        tools: {"name", "parameters", "strict"} each; strict False leaves the arguments free.
        choice: "required" (calls alone) or "auto" (text is free, calls in it are not). parallel:
        whether several calls may be made. content: with "auto", a JSON schema of the text that
        may stand in place of calls. A named tool is "required" of that one, not parallel.
        """
        value = {"tools": list(tools), "choice": choice, "parallel": parallel}
        return cls("tools", _text(value | ({} if content is None else {"content": content})))


def _text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError("a structure that is not JSON", found=str(error)) from error


def _parsed(kind: str, value: str) -> Any:
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"a {kind} that is not JSON", found=str(error)) from error
    level, depth = [parsed], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise RequestError(
                f"a {kind} nested deeper than {MAX_DEPTH} levels", do="flatten it, or use $ref"
            )
        nested = [v for v in level if isinstance(v, dict | list)]
        level = [e for v in nested for e in (v.values() if isinstance(v, dict) else v)]
    return parsed


def _bracket_depth(kind: str, value: str) -> None:
    depth = 0
    for character in value:
        depth += (character in "([{") - (character in ")]}")
        if depth > MAX_DEPTH:
            raise RequestError(f"a {kind} with brackets nested deeper than {MAX_DEPTH} levels")


def _check_schema(schema: Any) -> None:
    if not isinstance(schema, dict | bool):
        raise RequestError("a JSON schema", found=f"{type(schema).__name__}, not an object")


def _check_choice(texts: Any) -> None:
    if not (isinstance(texts, list) and texts and all(isinstance(t, str) and t for t in texts)):
        raise RequestError("a choice", do="pass a list of one or more texts, none of them empty")


def _check_tools(value: Any) -> None:
    tools = value.get("tools") if isinstance(value, dict) else None
    if not (isinstance(tools, list) and tools):
        raise RequestError("tool calls without tools", do="declare at least one tool")
    names: list[str] = []
    for tool in tools:
        name = tool.get("name") if isinstance(tool, dict) else None
        if not (isinstance(name, str) and name) or any(c in name for c in '"\n<>'):
            raise RequestError(f"a tool named {name!r}", do="use letters, digits, - and _")
        parameters = tool.get("parameters")
        if parameters is not None:
            _check_schema(parameters)
        names.append(name)
    if len(set(names)) < len(names):
        raise RequestError("two tools of one name", found=", ".join(names))
    if value.get("choice") not in ("auto", "required"):
        raise RequestError("tool calls", do='choose "auto" or "required"')
    if "content" in value:
        _check_schema(value["content"])


_CHECKS = {"json_schema": _check_schema, "choice": _check_choice, "tools": _check_tools}
