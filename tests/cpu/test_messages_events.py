"""Events of an Anthropic message: their order, and that they add up to the message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isobath.chat import Answer, CallArguments, CallBegin, Content, Delta, Reasoning, ToolCall
from isobath.server.dialect import deltas_of
from isobath.server.messages_events import MessageEvents, frame
from isobath.server.sealed import unseal
from isobath.server.turns import Ended, Usage

USAGE = Usage(prompt_tokens=20, cached_tokens=16, completion_tokens=5, reasoning_tokens=2)


def ended(answer: Answer, reason: str = "stop", stop_text: str | None = None) -> Ended:
    return Ended(0, reason, stop_text, USAGE, answer)


def events_of(deltas: list[Delta], last: Ended, *, hide: bool = False) -> tuple[Any, Any]:
    """(all events, the message they were made beside)."""
    events = MessageEvents("msg_1", "m", hide=hide)
    whole = events.start(Usage(20, 0, 0, 0))
    for delta in deltas:
        whole += events.take([delta])
    return whole + events.end(last), events.message


def folded(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a client makes of the events; checks their order on the way."""
    first, *middle, delta, stop = events
    assert first["type"] == "message_start" and stop == {"type": "message_stop"}
    message = dict(first["message"], content=[])
    assert message["type"] == "message" and message["role"] == "assistant"
    content, pieces, inside = message["content"], "", False
    for event in middle:
        assert event["index"] == len(content) - (1 if inside else 0)
        match event["type"]:
            case "content_block_start":
                assert not inside
                content.append(dict(event["content_block"]))
                inside, pieces = True, ""
            case "content_block_delta":
                assert inside
                for field, value in event["delta"].items():
                    if field == "partial_json":
                        pieces += value
                    elif field != "type":
                        content[-1][field] += value
            case "content_block_stop":
                assert inside
                inside = False
                if content[-1]["type"] == "tool_use":
                    assert content[-1]["input"] == {}
                    content[-1]["input"] = json.loads(pieces or "{}")
    assert not inside and delta["type"] == "message_delta"
    return message | delta["delta"] | {"usage": delta["usage"]}


TEXTS = st.lists(st.text(), max_size=4)
ARGUMENTS = st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=9), max_size=3)


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[Delta], Answer]:
    """Deltas in the order in which a machine gives them, and the answer they make up."""
    thoughts, said = draw(TEXTS), draw(TEXTS)
    deltas: list[Delta] = [*map(Reasoning, thoughts), *map(Content, said)]
    calls = []
    for index, wanted in enumerate(draw(st.lists(ARGUMENTS, max_size=3))):
        arguments = json.dumps(wanted)
        cut = draw(st.integers(0, len(arguments)))
        deltas.append(CallBegin(index, f"call_{index}", "read"))
        deltas += [CallArguments(index, arguments[:cut]), CallArguments(index, arguments[cut:])]
        calls.append(ToolCall(f"call_{index}", "read", arguments))
    return deltas, Answer("".join(thoughts), "".join(said), tuple(calls))


@given(answers(), st.booleans())
def test_events_add_up_to_the_message_of_a_request_that_does_not_stream(
    made: tuple[list[Delta], Answer], hide: bool
) -> None:
    deltas, answer = made
    last = ended(answer, "tool_calls" if answer.calls else "stop")
    streamed, beside = events_of(deltas, last, hide=hide)
    _, whole = events_of(list(deltas_of(answer)), last, hide=hide)
    assert folded(streamed) == beside == whole
    kinds = [block["type"] for block in whole["content"]]
    assert kinds == (
        ["thinking"] * bool(answer.reasoning)
        + ["text"] * bool(answer.content)
        + ["tool_use"] * len(answer.calls)
    )


def test_the_order_is_the_one_measured_with_the_sdk() -> None:
    deltas: list[Delta] = [
        Reasoning("Hm."),
        Reasoning(" So."),
        CallBegin(0, "call_1", "read"),
        CallArguments(0, '{"path":'),
        CallArguments(0, '"a"}'),
    ]
    events, _ = events_of(deltas, ended(Answer(), "tool_calls"))
    told = [event.get("delta", {}).get("type") or event["type"] for event in events]
    assert told == [
        "message_start",
        "content_block_start",
        "thinking_delta",
        "thinking_delta",
        "signature_delta",
        "content_block_stop",
        "content_block_start",
        "input_json_delta",
        "input_json_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


@pytest.mark.parametrize(
    ("reason", "stop_text", "expected"),
    [
        ("stop", None, ("end_turn", None)),
        ("stop", "\n\n", ("stop_sequence", "\n\n")),
        ("length", None, ("max_tokens", None)),
        ("tool_calls", None, ("tool_use", None)),
    ],
)
def test_the_end_is_told_in_anthropics_words(
    reason: str, stop_text: str | None, expected: tuple[str, str | None]
) -> None:
    _, message = events_of([Content("a")], ended(Answer("", "a"), reason, stop_text))
    assert (message["stop_reason"], message["stop_sequence"]) == expected


def test_input_tokens_are_those_that_did_not_come_from_the_cache() -> None:
    events, message = events_of([Content("a")], ended(Answer("", "a")))
    assert events[0]["message"]["usage"]["input_tokens"] == 20
    assert message["usage"]["input_tokens"] == 4
    assert message["usage"]["cache_read_input_tokens"] == 16
    assert message["usage"]["output_tokens"] == 5


def test_hidden_thinking_travels_in_the_signature() -> None:
    events, message = events_of([Reasoning("Hm.")], ended(Answer("Hm.")), hide=True)
    (block,) = message["content"]
    assert block["thinking"] == "" and unseal(block["signature"]) == "Hm."
    assert "thinking_delta" not in json.dumps(events)


def test_a_frame_names_its_event_twice_and_keeps_unicode() -> None:
    framed = frame({"type": "ping", "text": "ä"})
    assert framed == 'event: ping\ndata: {"type":"ping","text":"ä"}\n\n'.encode()
