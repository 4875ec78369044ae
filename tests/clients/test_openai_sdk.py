"""OpenAI's own library against the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from isobath import AsyncLLM
from isobath.chat import ChatFormat
from isobath.config import ServerConfig
from isobath.model.text import EOS
from isobath.server.state import ServerState
from tests.support.chat_answers import CLOSE, OPEN, invoke, par
from tests.support.http_server import Served, running
from tests.support.scripted import Scripted

MODEL = "isobath-tiny"
ASKED: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What is json?"}],
    "max_tokens": 16,
    "temperature": 0,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}


@contextmanager
def client(server: Served, key: str = "any") -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key=key, max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def sdk(server: Served) -> Iterator[openai.OpenAI]:
    with client(server) as sdk:
        yield sdk


def test_a_chat_is_answered(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(**ASKED)
    [choice] = answer.choices
    assert choice.finish_reason in ("length", "stop") and choice.message.role == "assistant"
    assert answer.usage.completion_tokens <= 16
    assert choice.message.reasoning_content == choice.message.reasoning


def test_a_chat_stream_joins_to_the_whole(sdk: openai.OpenAI) -> None:
    asked = ASKED | {"extra_body": {"ignore_eos": True}}
    whole = sdk.chat.completions.create(**asked).choices[0].message
    chunks = list(
        sdk.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    assert deltas[0].role == "assistant" and all(d.role is None for d in deltas[1:])
    reasoning = "".join(getattr(d, "reasoning_content", None) or "" for d in deltas)
    assert reasoning == (whole.reasoning_content or "")
    assert "".join(d.content or "" for d in deltas) == (whole.content or "")
    assert [c.choices[0].finish_reason for c in chunks[-2:-1]] == ["length"]
    assert chunks[-1].usage.completion_tokens == 16 and not chunks[-1].choices


def test_two_completions_are_told_apart(sdk: openai.OpenAI) -> None:
    asked = ASKED | {"n": 2, "temperature": 1, "seed": 5, "extra_body": {"ignore_eos": True}}
    answer = sdk.chat.completions.create(**asked)
    assert [c.index for c in answer.choices] == [0, 1]
    first, second = (c.message.reasoning for c in answer.choices)
    assert first != second and answer.usage.completion_tokens == 32
    heard = ["", ""]
    for chunk in sdk.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            heard[choice.index] += getattr(choice.delta, "reasoning", None) or ""
    assert heard == [first, second]


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_come_for_every_token(sdk: openai.OpenAI, stream: bool) -> None:
    asked = ASKED | {"logprobs": True, "top_logprobs": 3, "extra_body": {"ignore_eos": True}}
    if stream:
        chunks = sdk.chat.completions.create(**asked, stream=True)
        told = [c.choices[0].logprobs for c in chunks if c.choices]
        tokens = [token for one in told if one for token in one.content]
    else:
        tokens = sdk.chat.completions.create(**asked).choices[0].logprobs.content
    assert len(tokens) == 16
    for token in tokens:
        assert len(token.top_logprobs) == 3 and token.logprob <= 0
        assert token.top_logprobs[0].token == token.token  # greedy
        assert token.top_logprobs[0].logprob == token.logprob
        assert bytes(token.bytes).decode("utf-8", "replace")


def test_a_completion_is_answered(sdk: openai.OpenAI) -> None:
    answer = sdk.completions.create(
        model=MODEL, prompt=["The json module", "The"], max_tokens=4, logprobs=2, n=2, echo=True
    )
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    assert all(c.text.startswith("The") for c in answer.choices)
    assert len(answer.choices[0].logprobs.tokens) == len(answer.choices[0].logprobs.text_offset)


def test_models_are_listed(sdk: openai.OpenAI) -> None:
    assert [m.id for m in sdk.models.list()] == [MODEL]
    assert sdk.models.retrieve(MODEL).id == MODEL


# ---- tools


@contextmanager
def saying(llm: AsyncLLM, chat: ChatFormat, *answers: str) -> Iterator[openai.OpenAI]:
    """A client of a server whose model says `answers`, one a request."""
    backend = Scripted(llm.text, llm.limits, answers)
    with running(ServerState(ServerConfig(), backend, chat)) as server, client(server) as sdk:
        yield sdk


CALL = (
    "Two calls.</think>Let me look."
    + OPEN
    + invoke("weather", par("city", "Köln"), par("days", "3", "false"))
    + "\n"
    + invoke("weather", par("city", "Ulm"))
    + CLOSE
    + EOS
)


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_tools_arrive_with_their_arguments(
    llm: AsyncLLM, chat: ChatFormat, stream: bool
) -> None:
    asked = ASKED | {"tools": [WEATHER], "max_tokens": 500}
    with saying(llm, chat, CALL) as sdk:
        if stream:
            with sdk.chat.completions.stream(**{k: asked[k] for k in asked}) as events:
                choice = events.get_final_completion().choices[0]
        else:
            choice = sdk.chat.completions.create(**asked).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me look."
    calls = choice.message.tool_calls
    assert [c.function.name for c in calls] == ["weather", "weather"]
    assert [json.loads(c.function.arguments) for c in calls] == [
        {"city": "Köln", "days": 3},
        {"city": "Ulm"},
    ]
    assert all(c.id.startswith("call_") and len(c.id) == 29 for c in calls)
    assert len({c.id for c in calls}) == 2


def test_what_a_stop_text_cuts_off_is_neither_an_answer_nor_a_call(
    llm: AsyncLLM, chat: ChatFormat
) -> None:
    """Reasoning that was cut is no content, and a client does not run a call that was."""
    asked = ASKED | {"tools": [WEATHER], "max_tokens": 500}
    with saying(llm, chat, CALL, CALL) as sdk:
        [thought] = sdk.chat.completions.create(**asked, stop="calls.").choices
        [called] = sdk.chat.completions.create(**asked, stop="öln").choices
    assert thought.finish_reason == "stop" and not thought.message.content
    assert thought.message.reasoning_content == "Two "
    assert called.finish_reason == "stop"
    [call] = called.message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "K"}


def test_the_first_delta_of_a_call_names_it_and_later_ones_do_not(
    llm: AsyncLLM, chat: ChatFormat
) -> None:
    with saying(llm, chat, CALL) as sdk:
        asked = ASKED | {"tools": [WEATHER], "max_tokens": 500, "stream": True}
        chunks = [c.choices[0] for c in sdk.chat.completions.create(**asked)]
    calls = [call for c in chunks for call in c.delta.tool_calls or ()]
    for index in (0, 1):
        first, *later = [c for c in calls if c.index == index]
        assert first.id and first.type == "function" and first.function.name == "weather"
        assert first.function.arguments == ""
        assert all(c.id is None and c.function.name is None for c in later)
    assert chunks[-1].finish_reason == "tool_calls"


def test_a_call_that_comes_back_is_written_as_the_model_wrote_it(
    llm: AsyncLLM, chat: ChatFormat
) -> None:
    """Byte for byte, though its arguments came back in another spelling."""
    backend = Scripted(llm.text, llm.limits, [CALL, "</think>Rain." + EOS])
    with running(ServerState(ServerConfig(), backend, chat)) as server, client(server) as sdk:
        asked = ASKED | {"tools": [WEATHER], "max_tokens": 500}
        message = sdk.chat.completions.create(**asked).choices[0].message.model_dump()
        for call in message["tool_calls"]:
            call["function"]["arguments"] = json.dumps(
                json.loads(call["function"]["arguments"]), indent=3, sort_keys=True
            )
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": "rain"}
            for call in message["tool_calls"]
        ]
        turns = [*ASKED["messages"], message, *results]
        sdk.chat.completions.create(**asked | {"messages": turns})
    first, second = backend.prompts
    whole = first + llm.text.encode(CALL, bos=False)
    assert second[: len(whole)] == whole


# ---- errors, each as the library's own class


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        (openai.NotFoundError, {"model": "gpt-5"}),
        (openai.BadRequestError, {"messages": []}),
        (openai.BadRequestError, {"temperature": 3}),
        (openai.BadRequestError, {"max_tokens": 1 << 20}),
        (openai.BadRequestError, {"response_format": {"type": "json_schema"}}),
        (openai.BadRequestError, {"extra_body": {"top_k": -5}}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_of_the_classes_of_the_library(
    sdk: openai.OpenAI, kind: type[openai.APIStatusError], changed: dict[str, Any], stream: bool
) -> None:
    with pytest.raises(kind) as raised:
        sdk.chat.completions.create(**ASKED | changed, stream=stream)
    assert set(raised.value.body) == {"message", "type", "param", "code"}


def test_a_conversation_that_is_too_long_is_told_in_the_words_that_agents_look_for(
    sdk: openai.OpenAI, llm: AsyncLLM
) -> None:
    long = {"messages": [{"role": "user", "content": "json " * 20_000}]}
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.chat.completions.create(**ASKED | long)
    assert raised.value.code == "context_length_exceeded" and raised.value.param == "messages"
    assert f"maximum context length is {llm.limits.context} tokens" in raised.value.message
    assert "reduce the length of the messages" in raised.value.message
    with pytest.raises(openai.BadRequestError) as raised:
        sdk.completions.create(model=MODEL, prompt="json " * 20_000)
    assert raised.value.code == "context_length_exceeded" and raised.value.param == "prompt"


def test_more_new_tokens_than_there_is_room_for_are_as_many_as_there_is(
    sdk: openai.OpenAI, llm: AsyncLLM
) -> None:
    asked = ASKED | {"max_tokens": llm.limits.context, "stop": [" "]}
    answer = sdk.chat.completions.create(**asked)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].stop_reason in (" ", None)


def test_a_wrong_key_is_an_authentication_error(llm: AsyncLLM, chat: ChatFormat) -> None:
    with (
        running(ServerState(ServerConfig(api_key=("right",)), llm, chat)) as server,
        client(server, "wrong") as sdk,
        pytest.raises(openai.AuthenticationError),
    ):
        sdk.chat.completions.create(**ASKED)


def test_a_full_queue_is_an_internal_server_error_that_may_be_retried(
    llm: AsyncLLM, chat: ChatFormat
) -> None:
    state = ServerState(ServerConfig(max_num_queued_reqs=0), llm, chat)
    with running(state) as server, client(server) as sdk:
        state.load.sequences = llm.limits.max_num_seqs
        with pytest.raises(openai.InternalServerError) as raised:
            sdk.chat.completions.create(**ASKED)
        assert raised.value.status_code == 503 and raised.value.response.headers["retry-after"]
        state.load.sequences = 0
