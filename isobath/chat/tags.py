"""Tags of DSML in a stream of text, of which the end may not have come yet.

Control tokens are single characters here: halves of surrogate pairs, which text decoded from UTF-8
never contains, so that a marker spelled with ordinary tokens is told apart from the token. A tag is
`marked` if the DSML token stands behind its `<` or `</`; models sometimes leave it out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from isobath.chat.dsml import DSML
from isobath.chat.render import END_THINK, THINK

MARK, THINKING, THOUGHT = "\ud800", "\ud801", "\ud802"
LITERALS = {MARK: DSML, THINKING: THINK, THOUGHT: END_THINK}
BLANKS = " \t\r\n"
OPENERS = ("tool_calls", "toolcalls", "tool_call", "toolcall", "tool")
"""What a block is called, and how models misspell it."""
INVOKE, PARAMETER = "invoke", "parameter"
WORDS = (*OPENERS, INVOKE, PARAMETER)
MAX_TAG = 1024
"""Characters of a tag; what is longer is text."""

_ATOM = re.compile(f"[{MARK}{THINKING}{THOUGHT}]")
_ATTRIBUTE = rf'[{BLANKS}]+[a-z]+="[^"\n{MARK}{THINKING}{THOUGHT}]*"'
_PAIR = re.compile(r'([a-z]+)="([^"]*)"')


def _patterns(mark: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """(a whole tag, the beginning of one at the end of the text)"""
    half = rf'[{BLANKS}]+(?:[a-z]+(?:=(?:"[^"\n{MARK}{THINKING}{THOUGHT}]*)?)?)?'
    return (
        re.compile(rf"<(/?){mark}([a-z_]+)((?:{_ATTRIBUTE})*)[{BLANKS}]*>"),
        re.compile(rf"<(?:/?(?:{mark}(?:([a-z_]*)(?:{_ATTRIBUTE})*(?:{half})?)?)?)?\Z"),
    )


_MARKED, _BARE = _patterns(MARK), _patterns("")


class Look(Enum):
    """Why there is no tag: MORE text may make it one, or NO text can."""

    MORE = "more"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Tag:
    """A whole tag. end: where the text behind it begins."""

    word: str
    closing: bool
    attributes: dict[str, str]
    end: int


def literal(text: str) -> str:
    """Text with control tokens spelled out."""
    return _ATOM.sub(lambda atom: LITERALS[atom[0]], text)


def tag_at(text: str, at: int, marked: bool) -> Tag | Look:
    """The tag that begins with the `<` at a position. The answer to a beginning of a text is that
    to the whole text, or MORE."""
    assert text[at] == "<"
    whole, part = _MARKED if marked else _BARE
    if found := whole.match(text, at, at + MAX_TAG):
        closing, word, attributes = found.groups()
        if word not in WORDS or (closing and attributes):
            return Look.NO
        return Tag(word, bool(closing), dict(_PAIR.findall(attributes)), found.end())
    if len(text) - at > MAX_TAG or not (begun := part.match(text, at)):
        return Look.NO
    word = begun[1] or ""
    ended = bool(word) and text[-1] not in "abcdefghijklmnopqrstuvwxyz_"
    possible = word in WORDS if ended else any(known.startswith(word) for known in WORDS)
    return Look.MORE if possible else Look.NO


def blanks_from(text: str, at: int) -> int:
    """Where the blanks that begin at a position end."""
    while at < len(text) and text[at] in BLANKS:
        at += 1
    return at


def overlap(text: str, needle: str) -> int:
    """Length of the longest end of `text` that begins `needle` without being all of it."""
    for size in range(min(len(needle) - 1, len(text)), 0, -1):
        if text.endswith(needle[:size]):
            return size
    return 0
