"""/v1/completions over HTTP: what evaluation and benchmark clients send, and what they read."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from isobath import AsyncLLM

IDS = [0, 86, 87, 235, 5, 235, 3]


def completed(http: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = http.post("/v1/completions", json={"max_tokens": 6, "temperature": 0} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def chunks(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    body = {"max_tokens": 6, "temperature": 0, "stream": True} | body
    answer = http.post("/v1/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def test_a_text_is_completed(http: httpx.Client) -> None:
    answer = completed(http, prompt="The json module")
    [choice] = answer["choices"]
    assert choice["text"] and choice["finish_reason"] in ("length", "stop")
    assert answer["usage"]["completion_tokens"] <= 6


@pytest.mark.parametrize(
    "prompt", ["Hi", ["Hi"], IDS, [IDS]], ids=["text", "texts", "ids", "lists"]
)
def test_every_form_of_a_prompt_is_taken(http: httpx.Client, prompt: Any) -> None:
    answer = completed(http, prompt=prompt, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 6


def test_a_stream_joins_to_the_whole(http: httpx.Client) -> None:
    asked = {"prompt": "The json module", "ignore_eos": True, "max_tokens": 20}
    whole = completed(http, **asked)
    told = chunks(http, **asked, stream_options={"include_usage": True})
    assert "".join(c["text"] for one in told for c in one["choices"]) == whole["choices"][0]["text"]
    assert told[-1]["choices"] == [] and told[-1]["usage"]["completion_tokens"] == 20
    assert len(told) == 21  # a chunk for every token


def test_only_allowed_tokens_are_generated(http: httpx.Client) -> None:
    answer = completed(
        http, prompt="Hi", allowed_token_ids=[86, 87], temperature=1, return_token_ids=True
    )
    assert set(answer["choices"][0]["token_ids"]) <= {86, 87}


def test_bad_words_are_not_generated_in_either_spelling(http: httpx.Client) -> None:
    asked = {"prompt": "The json module", "max_tokens": 20, "ignore_eos": True}
    words = [word for word in completed(http, **asked)["choices"][0]["text"].split() if word]
    for word in (words[0], " " + words[-1]):
        text = completed(http, **asked, bad_words=[word])["choices"][0]["text"]
        assert word.strip() not in text.split(), (word, text)


def test_a_salt_keeps_beginnings_apart(http: httpx.Client) -> None:
    body = {"prompt": [3, *range(900, 1156)], "max_tokens": 1}

    def cached(**fields: str) -> int:
        answer = http.post("/v1/completions", json=body | fields)
        return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])

    salts = ["mine", "mine", "yours"]
    assert [cached(cache_salt=salt) for salt in salts] == [0, 256, 0]
    assert http.post("/v1/completions", json=body | {"cache_salt": ""}).status_code == 400


def test_models_and_health_answer(http: httpx.Client, llm: AsyncLLM) -> None:
    assert http.get("/health").status_code == 200
    [card] = http.get("/v1/models").json()["data"]
    assert card["root"] and card["max_model_len"] == llm.limits.context
    assert http.get("/v1/models/isobath-tiny").json() == card
    assert http.get("/v1/models/nope").status_code == 404


def test_the_tokenizer_answers(http: httpx.Client, llm: AsyncLLM) -> None:
    told = http.post("/tokenize", json={"prompt": "The json module"}).json()
    assert told["tokens"] == llm.text.encode("The json module", bos=False)
    assert told["count"] == len(told["tokens"]) and told["max_model_len"] == llm.limits.context
    back = http.post("/detokenize", json={"tokens": told["tokens"]}).json()
    assert back == {"prompt": "The json module"}
    assert http.get("/tokenizer_info").json()["eos_token"]


def test_a_conversation_is_tokenized_as_it_would_be_completed(http: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": "What is json?"}]}
    tokens = http.post("/tokenize", json=body).json()["tokens"]
    assert http.post("/v1/chat/completions/render", json=body).json()["token_ids"] == tokens
    answer = http.post("/v1/chat/completions", json=body | {"max_tokens": 1}).json()
    assert answer["usage"]["prompt_tokens"] == len(tokens)
