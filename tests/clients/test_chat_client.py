"""`isobath chat` against the real server: what is sent, what is shown, what Ctrl-C does."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from isobath import AsyncLLM
from isobath.chat import ChatFormat
from isobath.client.chat import Conversation, talk
from isobath.client.connection import Answer, Connection, ServerRefused
from isobath.config import ServerConfig
from isobath.engine.process import Limits
from isobath.server.observe import Observed
from isobath.server.state import ServerState
from tests.support.http_server import Served, running, until


class Screen(Console):
    """A terminal that can be read. interrupt_after: parts of an answer after which Ctrl-C comes."""

    def __init__(self) -> None:
        self.shown = io.StringIO()
        super().__init__(file=self.shown, width=100, force_terminal=False)

    @property
    def text(self) -> str:
        return self.shown.getvalue()


class Brief(Observed):
    """The engine with little context: a conversation cannot ask for few tokens, and a small model
    may go on until there is no room."""

    @property
    def limits(self) -> Limits:
        return replace(super().limits, context=160)


@pytest.fixture(scope="module")
def brief(llm: AsyncLLM, chat: ChatFormat) -> Iterator[Served]:
    with running(ServerState(ServerConfig(), Brief(llm, ()), chat)) as served:
        yield served


@pytest.fixture
def connection(brief: Served) -> Iterator[Connection]:
    connection = Connection(brief.url)
    yield connection
    connection.close()


@pytest.fixture
def dialogue(connection: Connection) -> Conversation:
    return Conversation(connection, Screen(), system_prompt="Be brief.", stats=True)


def shown(dialogue: Conversation) -> str:
    assert isinstance(dialogue.console, Screen)
    return dialogue.console.text


def test_an_answer_is_shown_remembered_and_measured(dialogue: Conversation) -> None:
    dialogue.kwargs = {"thinking": False}
    answer = dialogue.say("What does the json module do?")
    assert answer.finish_reason in ("stop", "length") and answer.tokens > 0
    assert answer.content.strip() in shown(dialogue)
    assert [m["role"] for m in dialogue.messages] == ["system", "user", "assistant"]
    pattern = (
        r"\d+ prompt tokens \(\d+ cached\), \d+ tokens(, [\d.]+ tokens/s)?, first after [\d.]+ s"
    )
    assert re.search(pattern, shown(dialogue).replace("\n", " "))


def test_a_script_of_lines_is_followed_until_quit(dialogue: Conversation, tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("The difflib module")
    lines = iter(["/nothink", f"/read {file}", "/read /nowhere", "/what", "", "/quit", "never"])
    talk(dialogue, lambda _: next(lines))
    assert list(lines) == ["never"]
    users = [m["content"] for m in dialogue.messages if m["role"] == "user"]
    assert users == ["The difflib module"]
    assert "No such file" in shown(dialogue) and "/think-max" in shown(dialogue)


@pytest.mark.parametrize(
    ("command", "kwargs"),
    [
        ("/think", {"thinking": True}),
        ("/nothink", {"thinking": False}),
        ("/think-max", {"thinking": True, "reasoning_effort": "max"}),
    ],
)
def test_modes_are_what_the_next_request_asks_for(
    dialogue: Conversation, command: str, kwargs: dict[str, object]
) -> None:
    assert dialogue.take(command) and dialogue.kwargs == kwargs


def test_ctrl_c_stops_the_answer_in_the_engine_and_nothing_else(
    dialogue: Conversation, brief: Served
) -> None:
    real = dialogue.console.print
    seen = []

    def interrupted(*args: object, **more: object) -> None:
        seen.append(args)
        if len(seen) == 3:
            raise KeyboardInterrupt
        real(*args, **more)  # type: ignore[arg-type]

    dialogue.console.print = interrupted  # type: ignore[method-assign]
    dialogue.kwargs = {"thinking": False}
    dialogue.say("The json module, at length")
    dialogue.console.print = real  # type: ignore[method-assign]
    backend = brief.state.backend
    assert backend is not None
    until(lambda: backend.statistics()[0].idle, 10)
    assert "stopped" in shown(dialogue)
    assert [m["role"] for m in dialogue.messages] == ["system", "user", "assistant"]
    assert dialogue.say("And now?").finish_reason


def test_ctrl_c_at_the_prompt_and_the_end_of_input(dialogue: Conversation) -> None:
    inputs = iter([KeyboardInterrupt, EOFError])

    def read(_: str) -> str:
        raise next(inputs)

    talk(dialogue, read)
    assert "/quit leaves" in shown(dialogue)


def test_refusals_are_told_and_the_question_is_taken_back(dialogue: Conversation) -> None:
    refused = Connection("http://127.0.0.1:9", model="m")
    broken = Conversation(refused, Screen())
    broken.say("hello")
    assert broken.messages == [] and "isobath serve" in shown(broken)
    assert dialogue.connection.model == "isobath-tiny"
    with pytest.raises(ServerRefused, match="404"):
        wrong = Connection(str(dialogue.connection._http.base_url), model="nobody")
        list(wrong.stream([{"role": "user", "content": "x"}], {}, Answer()))


def test_reasoning_under_either_name_is_shown_apart(dialogue: Conversation) -> None:
    lines = [
        'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}',
        ": comment",
        'data: {"choices":[{"delta":{"reasoning":"so"}}]}',
        'data: {"choices":[{"delta":{"reasoning_content":" it is"}}]}',
        'data: {"choices":[{"delta":{"content":"yes"},"finish_reason":"stop"}]}',
        'data: {"choices":[],"usage":{"completion_tokens":4,"prompt_tokens":9}}',
        "data: [DONE]",
    ]
    answers = httpx.MockTransport(lambda _: httpx.Response(200, text="\n\n".join(lines)))
    other = Connection("http://x", model="m")
    other._http = httpx.Client(transport=answers, base_url="http://x/v1")
    conversation = Conversation(other, Screen())
    before = time.monotonic()
    answer = conversation.say("?")
    assert (answer.reasoning, answer.content, answer.tokens) == ("so it is", "yes", 4)
    assert "so it is\n\nyes" in shown(conversation) and answer.sent >= before
