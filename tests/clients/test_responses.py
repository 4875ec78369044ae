"""/v1/responses as OpenAI's own SDK sends requests and reads answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from isobath import AsyncLLM
from isobath.chat import ChatFormat
from isobath.config import ServerConfig
from isobath.server.state import ServerState
from tests.support.http_server import Served, running

QUESTION = "What does the json module do?"
OFF, ON = {"effort": "none"}, {"effort": "high"}
TOOL = {"type": "function", "name": "read", "parameters": {"type": "object"}}


def sdk(server: Served) -> openai.OpenAI:
    options: dict[str, Any] = {"api_key": "none", "max_retries": 0, "timeout": 120}
    return openai.OpenAI(base_url=server.url + "/v1", **options)


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with sdk(server) as client:
        yield client


def asked(**fields: Any) -> dict[str, Any]:
    """Arguments of create() and stream(): greedy, and without reasoning unless it is asked for."""
    plain = {
        "model": "isobath-tiny",
        "input": QUESTION,
        "max_output_tokens": 6,
        "temperature": 0,
        "reasoning": OFF,
        "store": False,
    }
    return plain | fields


def output_of(response: Any) -> list[dict[str, Any]]:
    """The output without the ids, which differ between two equal requests, and without what the
    SDK itself adds to a stream."""
    items = [item.to_dict() for item in response.output]
    dropped = ("id", "call_id", "parsed_arguments")
    return [{k: v for k, v in item.items() if k not in dropped} for item in items]


def test_a_question_is_answered(client: openai.OpenAI) -> None:
    response = client.responses.create(**asked(metadata={"run": "1"}, instructions="Be brief."))
    assert response.output_text and response.object == "response"
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.metadata == {"run": "1"} and response.instructions == "Be brief."
    usage = response.usage
    assert usage.output_tokens == 6 and usage.output_tokens_details.reasoning_tokens == 0
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


@pytest.mark.parametrize("reasoning", [OFF, ON])
def test_a_stream_adds_up_to_the_whole_response(
    client: openai.OpenAI, reasoning: dict[str, str]
) -> None:
    whole = client.responses.create(**asked(reasoning=reasoning))
    with client.responses.stream(**asked(reasoning=reasoning)) as stream:
        events = list(stream)
    last = events[-1]
    assert last.type == "response.incomplete"
    assert output_of(last.response) == output_of(whole)
    assert whole.output[0].type == ("message" if reasoning is OFF else "reasoning")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert deltas == whole.output_text


def test_events_come_in_the_order_of_the_specification(client: openai.OpenAI) -> None:
    with client.responses.create(**asked(), stream=True) as stream:
        names = [event.type.removeprefix("response.") for event in stream]
    assert re.fullmatch(
        "created in_progress output_item.added content_part.added( output_text.delta)+ "
        "output_text.done content_part.done output_item.done incomplete",
        " ".join(names),
    )


def test_a_response_that_ends_by_itself_is_completed(client: openai.OpenAI) -> None:
    text = client.responses.create(**asked(max_output_tokens=10)).output_text
    stop = {"stop": [text[len(text) // 2 :]]}
    with client.responses.stream(**asked(max_output_tokens=10), extra_body=stop) as stream:
        response = stream.get_final_response()
    assert response.status == "completed" and response.output_text == text[: len(text) // 2]


def test_reasoning_goes_back_to_where_it_came_from(client: openai.OpenAI) -> None:
    """Whether in plain or sealed, the second turn's prompt is the same; without it, it is not."""
    include = ["reasoning.encrypted_content"]
    first = client.responses.create(**asked(reasoning=ON, include=include))
    thought = first.output[0].to_dict()
    assert thought["type"] == "reasoning" and thought["encrypted_content"]
    plain = {k: v for k, v in thought.items() if k != "encrypted_content"}
    sealed = {k: v for k, v in thought.items() if k != "content"}

    def prompt_tokens(*items: dict[str, Any]) -> int:
        turns = [
            {"role": "user", "content": QUESTION},
            *items,
            {"role": "assistant", "content": "It reads JSON."},
            {"role": "user", "content": "And then?"},
        ]
        fields = asked(input=turns, tools=[TOOL], max_output_tokens=1, reasoning=ON)
        return client.responses.create(**fields).usage.input_tokens

    assert prompt_tokens(plain) == prompt_tokens(sealed) > prompt_tokens()


def test_ignoring_the_end_gives_as_many_tokens_as_were_asked_for(client: openai.OpenAI) -> None:
    parts = [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]
    fields = asked(input=parts, max_output_tokens=12)
    with client.responses.stream(**fields, extra_body={"ignore_eos": True}) as stream:
        last = list(stream)[-1]
    assert last.response.usage.output_tokens == 12


def test_what_needs_a_memory_is_refused_with_what_to_do(client: openai.OpenAI) -> None:
    for fields in ({"previous_response_id": "resp_1"}, {"conversation": "conv_1"}):
        with pytest.raises(openai.BadRequestError, match="replay full input instead"):
            client.responses.create(**asked(**fields))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0"),
        ({"input": []}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 9}, "temperature"),
        ({"reasoning": {"effort": "enormous"}}, "enormous"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_request_says_what_is_wrong(
    client: openai.OpenAI, fields: dict[str, Any], words: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**asked(**fields), stream=stream)
    assert words in str(caught.value)


def test_an_unknown_model_is_not_found_and_a_long_prompt_does_not_fit(
    client: openai.OpenAI,
) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.create(**asked(model="gpt-5"))
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**asked(input="word " * 9000))
    assert caught.value.code == "context_length_exceeded"


def test_comments_keep_a_silent_stream_alive(llm: AsyncLLM, chat: ChatFormat) -> None:
    config = ServerConfig(sse_keep_alive_interval=0.02)
    with running(ServerState(config, llm, chat)) as served:
        answer = httpx.post(served.url + "/v1/responses", json=asked(stream=True), timeout=120).text
    frames = answer.split("\n\n")
    assert frames[0].startswith("event: response.created\ndata: {")
    assert ": keep-alive" in frames and "[DONE]" not in answer
