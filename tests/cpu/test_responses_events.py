"""Events of a response: their order and numbers, and that they add up to the response."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given

from isobath.chat import Answer, CallArguments, CallBegin, Content, Delta, Reasoning
from isobath.engine.sampling import SamplingParams
from isobath.server.dialect import deltas_of
from isobath.server.responses_events import ResponseEvents, response_of
from isobath.server.responses_request import ResponsesRequest
from isobath.server.responses_tools import Origin, arguments_of
from isobath.server.sealed import unseal
from isobath.server.turns import Ended, Usage
from tests.cpu.test_messages_events import answers

USAGE = Usage(prompt_tokens=20, cached_tokens=16, completion_tokens=5, reasoning_tokens=2)
ORIGINS = {"patch": Origin("patch", custom=True), "ns__read": Origin("read", "ns")}
PARAMS = SamplingParams(temperature=0.5)
REQUEST = ResponsesRequest.model_validate({"model": "m", "input": "Hi"})


def events_of(
    deltas: list[Delta], reason: str = "stop", *, sealed: bool = False
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    events = ResponseEvents(
        response_of(REQUEST, PARAMS, "resp_1", "m", 1.0), ORIGINS, sealed=sealed
    )
    whole = events.start()
    for delta in deltas:
        whole += events.take([delta])
    return whole + events.end(Ended(0, reason, None, USAGE, Answer()), 2.0), events.response


def output_of(response: dict[str, Any]) -> list[dict[str, Any]]:
    """The output without the ids of its items, which are drawn."""
    return [{k: v for k, v in item.items() if k != "id"} for item in response["output"]]


def folded(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The output that a client makes of the events; checks their order and numbers on the way."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    created, progress, *middle, last = events
    assert created["type"] == "response.created" and progress["type"] == "response.in_progress"
    assert created["response"]["status"] == "in_progress" and created["response"]["output"] == []
    done: list[dict[str, Any]] = []
    item: dict[str, Any] | None = None
    grown = ""
    for event in middle:
        assert event["output_index"] == len(done)
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert item is None and event["item"]["status"] == "in_progress"
            item, grown = event["item"], ""
            continue
        assert item is not None
        if kind == "output_item.done":
            assert event["item"]["id"] == item["id"]
            done.append({k: v for k, v in event["item"].items() if k != "id"})
            item = None
            continue
        assert event["item_id"] == item["id"]
        if kind.endswith(".delta"):
            grown += event["delta"]
        elif kind.endswith("arguments.done"):
            assert event["arguments"] == grown
        elif kind.endswith("_text.done"):
            assert event["text"] == grown
    assert item is None
    assert output_of(last["response"]) == done
    return done


@given(answers())
def test_events_add_up_to_the_response_of_a_request_that_does_not_stream(
    made: tuple[list[Delta], Answer],
) -> None:
    deltas, answer = made
    streamed, response = events_of(deltas)
    _, whole = events_of(list(deltas_of(answer)))
    assert folded(streamed) == output_of(response) == output_of(whole)
    kinds = [item["type"] for item in whole["output"]]
    assert kinds == (
        ["reasoning"] * bool(answer.reasoning)
        + ["message"] * bool(answer.content)
        + ["function_call"] * len(answer.calls)
    )


def test_the_order_is_the_one_of_the_specification() -> None:
    deltas: list[Delta] = [
        Reasoning("Hm."),
        Content("I read."),
        CallBegin(0, "call_1", "read"),
        CallArguments(0, "{}"),
    ]
    events, _ = events_of(deltas)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]


def test_a_response_that_met_its_limit_is_incomplete() -> None:
    events, response = events_of([Reasoning("Hm.")], "length")
    assert events[-1]["type"] == "response.incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"


def test_a_response_that_an_error_ended_has_failed() -> None:
    events = ResponseEvents(response_of(REQUEST, PARAMS, "resp_1", "m", 1.0), {})
    whole = [*events.start(), *events.take([Content("a")]), *events.fail("server_error", "gone")]
    assert whole[-1]["type"] == "response.failed"
    assert whole[-1]["response"]["error"] == {"code": "server_error", "message": "gone"}
    assert [e["sequence_number"] for e in whole] == list(range(len(whole)))


def test_usage_tells_cached_and_reasoning_tokens() -> None:
    _, response = events_of([Content("a")])
    usage = response["usage"]
    assert usage["input_tokens"] == 20 and usage["input_tokens_details"]["cached_tokens"] == 16
    assert usage["output_tokens_details"]["reasoning_tokens"] == 2 and usage["total_tokens"] == 25


def test_sealed_reasoning_carries_its_text() -> None:
    _, response = events_of([Reasoning("Hm.")], sealed=True)
    assert unseal(response["output"][0]["encrypted_content"]) == "Hm."
    assert "encrypted_content" not in json.dumps(events_of([Reasoning("Hm.")]))


def test_what_was_asked_is_echoed() -> None:
    asked = {
        "model": "m",
        "input": "Hi",
        "instructions": "S",
        "metadata": {"a": "b"},
        "tools": [{"type": "function", "name": "read", "parameters": {}}],
        "tool_choice": {"type": "function", "name": "read"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
        "reasoning": {"effort": "high"},
    }
    response = response_of(ResponsesRequest.model_validate(asked), PARAMS, "resp_1", "m", 1.0)
    for name in ("instructions", "metadata", "tools", "tool_choice", "text"):
        assert response[name] == asked[name]
    assert response["temperature"] == 0.5
    assert response["reasoning"]["effort"] == "high" and response["store"] is False


def test_calls_go_back_in_the_shape_in_which_their_tools_were_declared() -> None:
    text = '*** Begin "Patch"\n'
    written = arguments_of(text)
    deltas: list[Delta] = [
        CallBegin(0, "call_1", "patch"),
        CallArguments(0, written[:9]),
        CallArguments(0, written[9:]),
        CallBegin(1, "call_2", "ns__read"),
        CallArguments(1, "{}"),
    ]
    events, response = events_of(deltas, "tool_calls")
    assert output_of(response) == folded(events)
    patch, read = response["output"]
    assert (patch["type"], patch["name"], patch["input"]) == ("custom_tool_call", "patch", text)
    assert (read["type"], read["name"], read["namespace"]) == ("function_call", "read", "ns")
    assert text in [event.get("delta") for event in events]
