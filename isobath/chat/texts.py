"""The English sentences of a chat format, read out of the checkpoint's own encoder file.

What a model was trained to see before tools, a schema or hard thinking is data of its checkpoint:
`encoding/encoding_dsv4.py` holds it in string literals. They are read with `ast`; the file is never
run, and none of its text is kept here. Its hash tells which of the two formats it is.

    v4         April 2026: "max" effort has a prefix, in REASONING_EFFORT_MAX
    v4-0731    Flash-0731 and Pro-0813: REASONING_EFFORT_PROMPTS has one for each level

A file may also say which it is, in a literal ISOBATH_CHAT_FORMAT (the bundled model's does).
"""

from __future__ import annotations

import ast
import logging
import string
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from isobath.errors import ConfigError, CorruptCheckpoint, RequestError, UnsupportedCheckpoint
from isobath.model.text import BOS, EOS

log = logging.getLogger(__name__)

FILE = "encoding/encoding_dsv4.py"
APRIL, JULY = "v4", "v4-0731"
VARIANTS = (APRIL, JULY)
HASHES = {"bdbd57c1": APRIL, "abc0d261": JULY}
"""How the SHA-256 of a known encoder file begins."""
DECLARED = "ISOBATH_CHAT_FORMAT"
EFFORTS = {APRIL: "REASONING_EFFORT_MAX", JULY: "REASONING_EFFORT_PROMPTS"}
"""The literal by which a file of either format can be recognised: its effort prefixes."""

OURS = {
    "bos_token": BOS,
    "eos_token": EOS,
    "thinking_start_token": "<think>",
    "thinking_end_token": "</think>",
    "dsml_token": "｜DSML｜",
    "USER_SP_TOKEN": "<｜User｜>",
    "ASSISTANT_SP_TOKEN": "<｜Assistant｜>",
    "LATEST_REMINDER_SP_TOKEN": "<｜latest_reminder｜>",
    "tool_calls_block_name": "tool_calls",
}
"""What chat/render.py writes by itself; an encoder file that says otherwise is of another model."""

NO_PREFIX, HIGH, MAX = "low", "high", "max"
LEVELS: dict[str, dict[str | None, str]] = {
    APRIL: {
        **dict.fromkeys((None, "minimal", "low", "medium", "high", "xhigh"), NO_PREFIX),
        **dict.fromkeys(("max", "ultra"), MAX),
    },
    JULY: {
        **dict.fromkeys(("minimal", "low"), NO_PREFIX),
        **dict.fromkeys((None, "medium", "high", "xhigh"), HIGH),
        **dict.fromkeys(("max", "ultra"), MAX),
    },
}
"""A request's effort (None: not said) to the level whose prefix it gets; "none" is chat mode."""


class Template:
    """A text with named gaps. Gaps other than `names` are refused: the text is not ours."""

    def __init__(self, text: str, names: set[str], where: str) -> None:
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise CorruptCheckpoint(f"{where}: not a template", found=str(error)) from error
        self._pieces: list[tuple[str, str | None]] = []
        for literal, name, spec, conversion in pieces:
            if name is not None and (name not in names or spec or conversion):
                raise CorruptCheckpoint(
                    f"{where}: not a template of this format",
                    found=f"the gap {{{name}}}",
                    effect="its place in the prompt is unknown",
                    do=f"gaps may be {', '.join(sorted(names))}; check the file",
                )
            self._pieces.append((literal, name))
        if missing := names - {name for _, name in self._pieces} - set(OURS):
            raise CorruptCheckpoint(
                f"{where}: not a template of this format",
                found=f"no gap {{{missing.pop()}}}",
                do="check the file",
            )

    def fill(self, **values: str) -> str:
        """The text with its gaps filled."""
        return "".join(
            literal + (values[name] if name is not None else "") for literal, name in self._pieces
        )


@dataclass(frozen=True, slots=True)
class Texts:
    """A format's sentences. effort: a prefix by level. tools, response_format: None without the
    checkpoint's file. origin: where they were read, or looked for."""

    variant: str
    origin: Path
    effort: Mapping[str, str] | None = None
    tools_template: Template | None = None
    schema_template: Template | None = None

    def effort_prefix(self, effort: str | None) -> str:
        """What stands before everything else, for a request's effort. Raises RequestError for a
        word that is no effort, and when the prefix is not known."""
        levels = LEVELS[self.variant]
        if effort not in levels:
            raise RequestError(
                f"reasoning_effort {effort!r} is unknown",
                do="use one of none, " + ", ".join(level for level in levels if level),
            )
        if levels[effort] == NO_PREFIX or (effort is None and self.effort is None):
            return ""
        if self.effort is None:
            raise self._unknown(f"reasoning_effort {effort!r}")
        return self.effort[levels[effort]]

    def tools(self, schemas: list[str]) -> str:
        """The offer of tools, whose schemas are JSON texts."""
        if self.tools_template is None:
            raise self._unknown("tools")
        return self.tools_template.fill(tool_schemas="\n".join(schemas), **OURS)

    def response_format(self, schema: str) -> str:
        """The demand for a shape of the answer, given by a JSON text."""
        if self.schema_template is None:
            raise self._unknown("response_format")
        return self.schema_template.fill(schema=schema, **OURS)

    def _unknown(self, what: str) -> RequestError:
        return RequestError(
            f"{what}: this checkpoint lacks the texts for it",
            found=f"no {self.origin.name} in its encoding folder",
            effect="the model would not see the words it was trained on",
            do=f"copy {FILE} of the same checkpoint into its folder and start again",
        )


def read_texts(folder: Path, choice: str | None = None) -> Texts:
    """The texts of a checkpoint. choice: one of VARIANTS goes before what the file says.

    Raises ConfigError for another choice, CorruptCheckpoint for a file that lacks what its format
    needs or writes another format, UnsupportedCheckpoint for another model's file.
    """
    if choice is not None and choice not in VARIANTS:
        raise ConfigError(f"chat format {choice!r}", do="use one of " + ", ".join(VARIANTS))
    file = folder / FILE
    if not file.is_file():
        if others := sorted(file.parent.glob("encoding_*.py")):
            raise UnsupportedCheckpoint(
                f"{folder}: chats of another model",
                found=f"encoding/{others[0].name}",
                effect="prompts would not be those the model was trained on",
                do=f"use a DeepSeek-V4 checkpoint, which has {FILE}",
            )
        log.info("%s: no such file; no tools, efforts or response formats in prompts", file)
        return Texts(choice or JULY, file)
    source = file.read_bytes()
    literals = _literals(source, file)
    variant = choice or _variant(source, literals, file)
    for name, text in OURS.items():
        if literals.get(name, text) != text:
            raise CorruptCheckpoint(
                f"{file}: an encoder of another format",
                found=f"{name} = {literals[name]!r}, not {text!r}",
                effect="prompts would not be those the model was trained on",
            )
    at = f"{file}: TOOLS_TEMPLATE"
    markers = {"dsml_token", "thinking_start_token", "thinking_end_token"}
    tools = Template(_text(literals, "TOOLS_TEMPLATE", file), {"tool_schemas"} | markers, at)
    at = f"{file}: response_format_template"
    schema = Template(_text(literals, "response_format_template", file), {"schema"}, at)
    return Texts(variant, file, _effort(variant, literals, file), tools, schema)


def _literals(source: bytes, file: Path) -> dict[str, Any]:
    """Values of the names a file assigns literals to, at its top level."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CorruptCheckpoint(
            f"{file}: not Python", found=str(error), do="download the file again"
        ) from error
    found: dict[str, Any] = {}
    for node in body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, TypeError, RecursionError):
            continue  # an expression: nothing we read
    return found


def _variant(source: bytes, literals: dict[str, Any], file: Path) -> str:
    digest = sha256(source).hexdigest()
    for begin, variant in HASHES.items():
        if digest.startswith(begin):
            return variant
    declared = literals.get(DECLARED)
    if declared in VARIANTS:
        return str(declared)
    likely = APRIL if EFFORTS[APRIL] in literals and EFFORTS[JULY] not in literals else JULY
    log.warning(
        "%s: an encoder with an unknown hash (%s…), taken for format %s; --chat-format overrides",
        file,
        digest[:8],
        likely,
    )
    return likely


def _effort(variant: str, literals: dict[str, Any], file: Path) -> dict[str, str]:
    if variant == APRIL:
        return {MAX: _text(literals, EFFORTS[APRIL], file)}
    found = literals.get(EFFORTS[JULY])
    if not isinstance(found, dict) or not all(isinstance(found.get(k), str) for k in (HIGH, MAX)):
        raise _lacks(EFFORTS[JULY], 'a dict with texts for "high" and "max"', found, file)
    return {level: found[level] for level in (HIGH, MAX)}


def _text(literals: dict[str, Any], name: str, file: Path) -> str:
    found = literals.get(name)
    if not isinstance(found, str):
        raise _lacks(name, "a string literal", found, file)
    return found


def _lacks(name: str, wanted: str, found: Any, file: Path) -> CorruptCheckpoint:
    return CorruptCheckpoint(
        f"{file}: {name} should be {wanted}",
        found="no such literal" if found is None else f"{type(found).__name__}",
        effect="prompts could not be written as the model was trained to read them",
        do="take the file from the checkpoint's own repository, or name its --chat-format",
    )
