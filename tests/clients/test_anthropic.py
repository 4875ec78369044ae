"""/v1/messages as Anthropic's own SDK sends requests and reads answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest

from isobath import AsyncLLM
from isobath.chat import ChatFormat
from isobath.config import ServerConfig
from isobath.server.state import ServerState
from tests.support.http_server import Served, running

GREEDY = {"temperature": 0}
QUESTION = [{"role": "user", "content": "What does the json module do?"}]
OFF = {"type": "disabled"}
ON = {"type": "enabled", "budget_tokens": 1024}


def sdk(server: Served, **options: Any) -> anthropic.Anthropic:
    options = {"api_key": "none", "max_retries": 0, "timeout": 120} | options
    return anthropic.Anthropic(base_url=server.url, **options)


@pytest.fixture
def client(server: Served) -> Iterator[anthropic.Anthropic]:
    with sdk(server) as client:
        yield client


def asked(**fields: Any) -> dict[str, Any]:
    """Arguments of create() and stream(): greedy, and without thinking unless it is asked for."""
    plain = {
        "model": "isobath-tiny",
        "max_tokens": 6,
        "messages": QUESTION,
        "thinking": OFF,
        "extra_body": GREEDY,
    }
    return plain | fields


def told(message: Any) -> dict[str, Any]:
    """A message without what differs between two equal requests."""
    kept = {name: value for name, value in message.to_dict().items() if value is not None}
    kept.pop("id")
    kept["usage"] = {"output_tokens": kept["usage"]["output_tokens"]}
    for block in kept["content"]:
        block.pop("parsed_output", None)
    return kept


def test_a_question_is_answered(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**asked())
    [block] = message.content
    assert block.type == "text" and block.text
    assert message.role == "assistant" and message.type == "message"
    assert message.model == "isobath-tiny"
    assert message.stop_reason == "max_tokens" and message.usage.output_tokens == 6


@pytest.mark.parametrize("thinking", [OFF, ON, {"type": "adaptive", "display": "omitted"}])
def test_a_stream_adds_up_to_the_whole_message(
    client: anthropic.Anthropic, thinking: dict[str, Any]
) -> None:
    whole = client.messages.create(**asked(thinking=thinking))
    with client.messages.stream(**asked(thinking=thinking)) as stream:
        assert told(stream.get_final_message()) == told(whole)
    assert whole.content[0].type == ("text" if thinking is OFF else "thinking")


def test_events_come_in_the_order_that_the_sdk_was_measured_to_take(
    client: anthropic.Anthropic,
) -> None:
    names, sequence = [], ""
    with client.messages.create(**asked(thinking=ON), stream=True) as stream:
        for event in stream:
            names.append(event.type)
            if event.type == "content_block_delta":
                names[-1] = event.delta.type
    letters = {
        "message_start": "a",
        "content_block_start": "b",
        "thinking_delta": "t",
        "signature_delta": "s",
        "text_delta": "x",
        "content_block_stop": "e",
        "message_delta": "d",
        "message_stop": "z",
    }
    sequence = "".join(letters[name] for name in names)
    assert re.fullmatch("a(bt+se)(bx+e)?dz", sequence), sequence


def test_thinking_comes_with_a_signature_and_is_taken_back(client: anthropic.Anthropic) -> None:
    first = client.messages.create(**asked(thinking=ON))
    block = first.content[0]
    assert block.type == "thinking" and block.thinking and block.signature
    turns = [*QUESTION, {"role": "assistant", "content": first.content}, *QUESTION]
    second = client.messages.create(**asked(thinking=ON, messages=turns, max_tokens=1))
    assert second.usage.output_tokens == 1


@pytest.mark.parametrize("thinking", [OFF, ON])
def test_counted_tokens_are_the_prompt_tokens_of_the_request(
    client: anthropic.Anthropic, thinking: dict[str, Any]
) -> None:
    tool = {"name": "read", "description": "Reads.", "input_schema": {"type": "object"}}
    fields = {"system": "Be brief.", "tools": [tool], "thinking": thinking, "messages": QUESTION}
    counted = client.messages.count_tokens(model="isobath-tiny", **fields).input_tokens
    usage = client.messages.create(**asked(max_tokens=1, **fields)).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    fewer = client.messages.count_tokens(model="isobath-tiny", messages=QUESTION, thinking=OFF)
    assert fewer.input_tokens < counted


def test_a_stop_sequence_ends_the_message_and_is_named(client: anthropic.Anthropic) -> None:
    text = client.messages.create(**asked(max_tokens=10)).content[0].text
    stop = text[len(text) // 2 :]
    message = client.messages.create(**asked(max_tokens=10, stop_sequences=["\0", stop]))
    assert message.stop_reason == "stop_sequence" and message.stop_sequence == stop
    assert message.content[0].text == text[: len(text) // 2]


@pytest.mark.parametrize("thinking", [OFF, ON])
def test_an_assistant_message_at_the_end_is_gone_on_with(
    client: anthropic.Anthropic, thinking: dict[str, Any]
) -> None:
    begun = [*QUESTION, {"role": "assistant", "content": "The json module"}]
    message = client.messages.create(**asked(messages=begun, thinking=thinking, max_tokens=3))
    assert [block.type for block in message.content] == ["text"]


def test_what_clients_append_to_the_model_name_is_ignored(client: anthropic.Anthropic) -> None:
    assert client.messages.create(**asked(model="isobath-tiny[1m]", max_tokens=1)).content


def test_more_tokens_than_there_is_room_for_are_no_error(client: anthropic.Anthropic) -> None:
    with client.messages.create(**asked(max_tokens=32000), stream=True) as stream:
        assert next(iter(stream)).type == "message_start"


def test_a_billing_header_is_no_part_of_the_prompt(client: anthropic.Anthropic) -> None:
    def count(*texts: str) -> int:
        system = [{"type": "text", "text": text} for text in texts]
        fields = asked(system=system)
        del fields["max_tokens"], fields["extra_body"]
        return client.messages.count_tokens(**fields).input_tokens

    plain = count("Be brief.")
    assert plain == count("x-anthropic-billing-header: cc_version=2.1; cch=0f3a1;", "Be brief.")
    assert plain < count("Be brief.", "Be kind.")


def test_inline_system_messages_leave_the_beginning_of_the_prompt_alone(
    client: anthropic.Anthropic,
) -> None:
    page = 128  # tokens; what the prefix cache keeps is whole pages
    story = " ".join(f"Line {number} of the story." for number in range(60))
    tool = {"name": "read", "description": "Reads.", "input_schema": {"type": "object"}}
    turns: list[dict[str, Any]] = [{"role": "user", "content": story}]
    before = 0
    for left in (4000, 3000, 2000):
        turns.append({"role": "system", "content": f"<total_tokens>{left} left</total_tokens>"})
        message = client.messages.create(**asked(messages=turns, tools=[tool], max_tokens=1))
        cached, usage = message.usage.cache_read_input_tokens or 0, message.usage
        assert cached >= before // page * page
        before = cached + usage.input_tokens
        turns += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": story}]
    assert before > 3 * page


@pytest.fixture(scope="module")
def guarded(llm: AsyncLLM, chat: ChatFormat) -> Iterator[Served]:
    """A server with a key, that gives a sign of life all the time."""
    config = ServerConfig(api_key=("secret",), sse_keep_alive_interval=0.02)
    with running(ServerState(config, llm, chat)) as served:
        yield served


@pytest.mark.parametrize("name", ["api_key", "auth_token"])
def test_a_key_is_taken_from_either_header(guarded: Served, name: str) -> None:
    with sdk(guarded, **({"api_key": None} | {name: "secret"})) as client:
        assert client.messages.create(**asked(max_tokens=1)).content
    with (
        sdk(guarded, **({"api_key": None} | {name: "wrong"})) as client,
        pytest.raises(anthropic.AuthenticationError) as caught,
    ):
        client.messages.create(**asked(max_tokens=1))
    assert caught.value.type == "authentication_error"


def test_pings_keep_a_silent_stream_alive_and_never_come_first(guarded: Served) -> None:
    fields = asked(stream=True, max_tokens=8) | GREEDY
    del fields["extra_body"]
    headers = {"x-api-key": "secret", "anthropic-version": "2026-10-21"}
    answer = httpx.post(
        guarded.url + "/v1/messages", json=fields, headers=headers, timeout=120
    ).text
    names = [line for line in answer.split("\n") if line.startswith("event: ")]
    assert names[0] == "event: message_start" and names[-1] == "event: message_stop"
    assert "event: ping" in names and "[DONE]" not in answer and "\r" not in answer
