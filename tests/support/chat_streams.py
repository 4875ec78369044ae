"""Answers as streams of (token id, text) parts, cut anywhere, and what a machine makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from isobath.chat import (
    Answer,
    CallArguments,
    CallBegin,
    ChatFormat,
    Content,
    Delta,
    Machine,
    Reasoning,
    Replay,
    Tool,
)
from isobath.engine.llm import BUNDLED
from isobath.model.text import EOS, Text

TEXT = Text(BUNDLED)
FORMAT = ChatFormat.load(BUNDLED, TEXT)
CONTROL = {
    "｜DSML｜": FORMAT.ids.dsml,
    "<think>": FORMAT.ids.think,
    "</think>": FORMAT.ids.end_think,
    EOS: FORMAT.ids.eos,
}
_CUT = re.compile("(" + "|".join(map(re.escape, CONTROL)) + ")")
ORDINARY = 1000  # an id of no control token

Part = tuple[int, str]


def tool(name: str, **properties: Any) -> Tool:
    """A tool whose properties' schemas are given, a type's name standing for one."""
    schemas = {k: {"type": v} if isinstance(v, str) else v for k, v in properties.items()}
    parameters = {"type": "object", "properties": schemas}
    return Tool(name, {"name": name, "parameters": parameters})


def parts(answer: str, cuts: Iterator[int]) -> list[Part]:
    """A stream of an answer in which control tokens are single tokens. cuts: lengths of the pieces
    of other text; a piece may come with the control token behind it (0: it does not)."""
    out: list[Part] = []
    for piece in _CUT.split(answer):
        if piece in CONTROL:
            before = ""
            if out and out[-1][0] == ORDINARY and next(cuts) % 2:
                before = out.pop()[1]
            out.append((CONTROL[piece], before + ("" if piece == EOS else piece)))
            continue
        while piece:
            size = next(cuts) or 1
            out.append((ORDINARY, piece[:size]))
            piece = piece[size:]
    return out


def singly(answer: str) -> list[Part]:
    """A stream that comes character by character."""
    return parts(answer, iter(lambda: 1, None))


def clip(answer: str, size: int) -> str:
    """The first characters of an answer, control tokens counted as one each."""
    units = [[piece] if piece in CONTROL else list(piece) for piece in _CUT.split(answer)]
    return "".join([unit for piece in units for unit in piece][:size])


@dataclass
class Heard:
    """What a machine said. deltas: each list that feed() and finish() returned."""

    message: Answer
    finish_reason: str
    deltas: list[list[Delta]]
    reasoning: str = ""
    content: str = ""
    begun: tuple[CallBegin, ...] = ()
    arguments: tuple[str, ...] = ()


def hear(
    stream: Sequence[Part],
    tools: Sequence[Tool] = (),
    *,
    thinking: bool = False,
    reason: str = "stop",
    replay: Replay | None = None,
) -> Heard:
    """Feed a stream to a machine; call ids are call_0, call_1 and so on."""
    ids = count()
    prompt = [FORMAT.ids.think if thinking else FORMAT.ids.end_think]
    machine = Machine(FORMAT, prompt, tools, lambda: f"call_{next(ids)}", replay)
    deltas = [machine.feed(*part) for part in stream]
    deltas.append(machine.finish(reason))
    flat = [delta for each in deltas for delta in each]
    begun = tuple(d for d in flat if isinstance(d, CallBegin))
    heard = Heard(machine.message, machine.finish_reason, deltas)
    heard.reasoning = "".join(d.text for d in flat if isinstance(d, Reasoning))
    heard.content = "".join(d.text for d in flat if isinstance(d, Content))
    heard.begun = begun
    heard.arguments = tuple(
        "".join(d.fragment for d in flat if isinstance(d, CallArguments) and d.index == c.index)
        for c in begun
    )
    return heard


def named(heard: Heard) -> list[tuple[str, Any]]:
    """(name, arguments) of each call of the message."""
    return [(call.name, json.loads(call.arguments)) for call in heard.message.calls]
