"""What a machine says while an answer arrives: pieces of reasoning, content and calls.

Pieces joined are the message, with one exception: an answer that never left its reasoning is given
again as content at the end (see chat/machine.py), so that a client that shows content shows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from isobath.chat.conversation import ToolCall


@dataclass(frozen=True, slots=True)
class Reasoning:
    """More of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class Content:
    """More of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A call begins. index: which of the message's calls, from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of a call's arguments: the fragments joined are a JSON object."""

    index: int
    fragment: str


Delta = Reasoning | Content | CallBegin | CallArguments


def joined(deltas: Iterable[Delta]) -> list[Delta]:
    """The same with neighbours of one kind as one."""
    out: list[Delta] = []
    for delta in deltas:
        match out[-1] if out else None, delta:
            case Reasoning(text), Reasoning(more):
                out[-1] = Reasoning(text + more)
            case Content(text), Content(more):
                out[-1] = Content(text + more)
            case CallArguments(index, text), CallArguments(same, more) if index == same:
                out[-1] = CallArguments(index, text + more)
            case _:
                out.append(delta)
    return out


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole message, as a client that does not stream gets it."""

    reasoning: str = ""
    content: str = ""
    calls: tuple[ToolCall, ...] = ()
