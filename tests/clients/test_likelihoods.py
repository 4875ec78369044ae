"""What evaluation harnesses read from /v1/completions, against the model's own logits: equal, not
close. The requests are those that lm-eval sends."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch

from isobath import LLM, AsyncLLM

SCORING = {"temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True}


@pytest.fixture(scope="module")
def scorer() -> Iterator[LLM]:
    yield LLM(max_batched_tokens=256)


def own(scorer: LLM, ids: list[int]) -> tuple[list[float], list[float]]:
    """(log-probability of each token from the second on, of the best one at its place)."""
    rows = scorer.score(ids).log_softmax(1)
    places = torch.arange(len(ids) - 1)
    return rows[places, torch.tensor(ids[1:])].tolist(), rows[places].max(1).values.tolist()


def scored(http: httpx.Client, prompt: Any, **more: Any) -> list[dict[str, Any]]:
    answer = http.post("/v1/completions", json=SCORING | {"prompt": prompt} | more)
    assert answer.status_code == 200, answer.text
    choices = sorted(answer.json()["choices"], key=lambda choice: choice["index"])
    return [choice["logprobs"] for choice in choices]


def prompts(count: int, sizes: tuple[int, int]) -> list[list[int]]:
    draw = random.Random(11)
    return [[draw.randrange(100, 4000) for _ in range(draw.randint(*sizes))] for _ in range(count)]


def test_echoed_log_probabilities_are_those_of_the_model(http: httpx.Client, scorer: LLM) -> None:
    """Longer than a step (256 tokens), so that a chunk's edge lies in one of them."""
    for ids in [[0, *prompts(1, (300, 300))[0]], *prompts(3, (2, 40))]:
        [told] = scored(http, [ids])
        wanted, best = own(scorer, ids)
        assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None
        assert len(told["token_logprobs"]) == len(told["tokens"]) == len(ids) + 1
        assert told["token_logprobs"][1:-1] == wanted
        tops = [max(top.values()) for top in told["top_logprobs"][1:]]
        assert tops[:-1] == best
        assert told["token_logprobs"][-1] == tops[-1]  # what was generated is greedy
        greedy = [a == b for a, b in zip(told["token_logprobs"][1:-1], tops, strict=False)]
        assert greedy == [a == b for a, b in zip(wanted, best, strict=True)]


def test_a_prompt_seen_before_has_the_same(http: httpx.Client) -> None:
    """Its beginning is in the prefix cache, and is computed again all the same."""
    [ids] = prompts(1, (300, 300))
    assert scored(http, [ids]) == scored(http, [ids])


def test_many_prompts_are_scored_in_their_order(http: httpx.Client, scorer: LLM) -> None:
    given = prompts(12, (2, 60))
    for ids, told in zip(given, scored(http, given), strict=True):
        assert told["token_logprobs"][1:-1] == own(scorer, ids)[0]


def test_texts_are_scored_without_a_bos(http: httpx.Client, llm: AsyncLLM, scorer: LLM) -> None:
    texts = ["The json module", "Grüße, 世界! 🙂"]
    for text, told in zip(texts, scored(http, texts), strict=True):
        ids = llm.text.encode(text, bos=False)
        assert told["token_logprobs"][1:-1] == own(scorer, ids)[0]


def test_an_end_token_that_is_generated_is_there(http: httpx.Client, llm: AsyncLLM) -> None:
    """Dropped, it would take the last token of the prompt with it: [:-1] follows in the client."""
    [told] = scored(http, [[5, 6, 7]], logit_bias={str(llm.text.eos): 100})
    assert len(told["token_logprobs"]) == 4 and told["tokens"][-1] == "<｜end▁of▁sentence｜>"
    assert told["token_logprobs"][-1] is not None


def test_tokens_that_are_no_text_by_themselves_have_names_of_their_own(
    http: httpx.Client, llm: AsyncLLM
) -> None:
    ids = llm.text.encode("🙂", bos=False)
    [told] = scored(http, [ids])
    assert told["tokens"][: len(ids)] == [
        "bytes:" + "".join(f"\\x{byte:02x}" for byte in llm.text.token_bytes(i)) for i in ids
    ]
    [named] = scored(http, [ids], return_tokens_as_token_ids=True)
    assert named["tokens"][: len(ids)] == [f"token_id:{i}" for i in ids]


def test_the_prompt_alone_can_be_scored(http: httpx.Client, scorer: LLM) -> None:
    [ids] = prompts(1, (20, 20))
    [told] = scored(http, [ids], max_tokens=0)
    assert told["token_logprobs"] == [None, *own(scorer, ids)[0]]


def test_completions_of_one_prompt_share_its_scores(http: httpx.Client, scorer: LLM) -> None:
    [ids] = prompts(1, (20, 20))
    for told in scored(http, [ids], n=3, temperature=1):
        assert told["token_logprobs"][1:-1] == own(scorer, ids)[0]


def test_a_stream_scores_the_same(http: httpx.Client) -> None:
    [ids] = prompts(1, (20, 20))
    body = SCORING | {"prompt": ids, "stream": True, "max_tokens": 3}
    lines = http.post("/v1/completions", json=body).text.split("\n\n")[:-2]
    told: dict[str, list[Any]] = {}
    for line in lines:
        part = json.loads(line.removeprefix("data: "))["choices"][0]["logprobs"]
        for name, values in part.items():
            told.setdefault(name, []).extend(values)
    assert [told] == scored(http, ids, max_tokens=3)
