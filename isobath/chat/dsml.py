"""DSML, the markup of calls: how calls are written into a prompt.

    \\n\\n<｜DSML｜tool_calls>
    <｜DSML｜invoke name="f">
    <｜DSML｜parameter name="k" string="true|false">VALUE</｜DSML｜parameter>
    </｜DSML｜invoke>
    </｜DSML｜tool_calls>

A string stands as it is, without any escaping; everything else is JSON. chat/machine.py reads it.
"""

from __future__ import annotations

import json
from typing import Any

from isobath.chat.conversation import ToolCall
from isobath.chat.replay import Replay

DSML = "｜DSML｜"
BLOCK = "tool_calls"


def to_json(value: Any) -> str:
    """JSON as prompts have it: non-ASCII unescaped, a blank after commas and colons."""
    return json.dumps(value, ensure_ascii=False)


def arguments_of(text: str) -> dict[str, Any]:
    """A call's arguments. Text that is no JSON object is one argument called "arguments", as the
    April encoder has it; no text at all is no argument, so that the model does not learn the
    wrapper from clients that send nothing."""
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"arguments": text}


def write_call(call: ToolCall) -> str:
    """One invoke element."""
    rows = [
        f'<{DSML}parameter name="{name}" string="{"true" if isinstance(value, str) else "false"}">'
        f"{value if isinstance(value, str) else to_json(value)}</{DSML}parameter>"
        for name, value in arguments_of(call.arguments).items()
    ]
    return f'<{DSML}invoke name="{call.name}">\n' + "\n".join(rows) + f"\n</{DSML}invoke>"


def write_block(calls: tuple[ToolCall, ...], replay: Replay | None = None) -> str:
    """All calls of a turn, with the blank line before them. Those that `replay` knows, and whose
    arguments nobody has changed, are written as the model wrote them."""
    blocks = [replay.find(call.id) if replay else None for call in calls]
    if blocks[0] and blocks[0].text and same_calls(calls, blocks[0].calls):
        return blocks[0].text
    pieces = []
    for call, block in zip(calls, blocks, strict=True):
        known = zip(block.calls, block.pieces, strict=True) if block else ()
        own = [piece for sent, piece in known if piece and same_calls((call,), (sent,))]
        pieces.append(own[0] if own else write_call(call))
    return f"\n\n<{DSML}{BLOCK}>\n" + "\n".join(pieces) + f"\n</{DSML}{BLOCK}>"


def same_calls(one: tuple[ToolCall, ...], other: tuple[ToolCall, ...]) -> bool:
    """Whether calls have the same ids, names and arguments, however these are spelled in JSON."""
    return len(one) == len(other) and all(
        a.id == b.id
        and a.name == b.name
        and (a.arguments == b.arguments or _alike(a.arguments, b.arguments))
        for a, b in zip(one, other, strict=True)
    )


def _alike(one: str, other: str) -> bool:
    try:
        return _equal(json.loads(one), json.loads(other))
    except (ValueError, RecursionError):
        return False


def _equal(one: Any, other: Any) -> bool:
    """Equality of JSON values; Python alone would take true for 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
