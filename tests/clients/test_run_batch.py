"""`isobath run-batch`: a file in OpenAI's batch format; each line is answered, none is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from isobath.client.batch import BadLine, Job, main, parsed, requests_of
from isobath.config import ServerConfig
from tests.support.http_server import Served

COMPLETION = {"prompt": "The json module", "max_tokens": 4, "ignore_eos": True, "stream": True}


def request(name: str, path: str = "/v1/completions", **body: Any) -> str:
    entry = {"custom_id": name, "method": "POST", "url": path, "body": COMPLETION | body}
    return json.dumps(entry)


LINES = [
    request("first"),
    "{ not json",
    request("unknown model", model="nobody"),
    request("chat", "/v1/chat/completions", messages=[{"role": "user", "content": "hello"}]),
    "",
    request("no route", "/v1/embeddings"),
    request("out of range", temperature=9),
    *[request(f"one of many {i}", seed=i) for i in range(20)],
]


def answered(target: Path) -> dict[str | None, dict[str, Any]]:
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["custom_id"]: row for row in rows}


def test_every_line_has_one_entry_and_bad_ones_say_why(server: Served, tmp_path: Path) -> None:
    lines, target = requests_of("\n".join(LINES)), tmp_path / "out.jsonl"
    outcome = main(Job(lines, target, 8), ServerConfig(), url=server.url, api_key=None)
    rows = answered(target)
    assert len(rows) == len(LINES) - 1 == outcome.good + outcome.bad
    assert outcome.bad == 4
    assert rows["first"]["response"]["status_code"] == 200 and rows["first"]["error"] is None
    body = rows["first"]["response"]["body"]
    assert body["object"] == "text_completion" and body["usage"]["completion_tokens"] == 4
    assert rows["chat"]["response"]["body"]["object"] == "chat.completion"
    assert rows["unknown model"]["response"]["status_code"] == 404
    assert rows["out of range"]["response"]["status_code"] == 400
    assert "line 2 is not JSON" in rows[None]["error"]["message"]
    assert "line 6" in rows["no route"]["error"]["message"]
    assert "/v1/embeddings" not in rows["no route"]["error"]["message"]
    assert rows["no route"]["error"]["code"] == "invalid_request"


def test_only_line_feeds_end_a_line() -> None:
    text = json.dumps({"a": "x\u2028y\x85z"}, ensure_ascii=False)
    assert requests_of(f"{text}\r\n\n{text}") == [(1, text + "\r"), (3, text)]


@pytest.mark.parametrize("line", ["[]", "{}", '{"custom_id": "a"}', '{"custom_id": 3}'])
def test_what_is_no_request_says_which_line(line: str) -> None:
    with pytest.raises(BadLine) as refused:
        parsed(line, 7)
    assert "line 7" in refused.value.message


def test_without_a_server_an_engine_is_loaded_for_the_file(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    lines = requests_of(request("a") + "\n" + request("b", n=2))
    outcome = main(Job(lines, target, 2), ServerConfig(threads=1), url=None, api_key=None)
    rows = answered(target)
    assert (outcome.good, outcome.bad) == (2, 0)
    assert len(rows["b"]["response"]["body"]["choices"]) == 2


def test_a_server_that_is_not_there_becomes_an_entry(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    main(
        Job(requests_of(request("a")), target, 1),
        ServerConfig(),
        url="http://127.0.0.1:9",
        api_key=None,
    )
    assert answered(target)["a"]["error"]["code"] == "failed"
