"""A tool loop: what the model wrote comes back byte for byte, so that prompts only grow."""

from __future__ import annotations

import json
from itertools import pairwise, repeat
from typing import Any

import pytest

from isobath.chat import Answer, Block, Machine, Replay, ToolCall, call_id, conversation_of
from isobath.chat.conversation import Rendered
from tests.support.chat_answers import BASH, CLOSE, LS, OPEN, READ, invoke, par
from tests.support.chat_streams import FORMAT, TEXT, parts

TOOLS = [{"type": "function", "function": tool.function} for tool in (BASH, READ)]
TURNS = (
    # what the model writes, in ways that JSON does not keep
    "think </think>I look." + OPEN + LS + CLOSE,
    "again</think>" + OPEN + invoke("read", par("any", '{"b":1,\n "a": 2.50}', "false")) + CLOSE,
    "</think>\n\nTwo.\n" + OPEN + LS + "\n\n" + invoke("bash", par("timeout", "3")) + CLOSE,
    "x</think>" + OPEN.replace("tool_calls", "toolcalls") + invoke("bash", "") + "\n" + CLOSE,
    "y</think>" + invoke("read", par("path", 'é "\\'), par("lines", "null", None)),
)


def answer(prompt: Rendered, text: str, replay: Replay) -> Answer:
    tools = conversation_of([{"role": "user"}], TOOLS).tools
    machine = Machine(FORMAT, prompt.token_ids, tools, replay=replay)
    for part in parts(text, repeat(4)):
        machine.feed(*part)
    machine.finish("stop")
    assert machine.finish_reason == "tool_calls"
    return machine.message


def returned(said: Answer) -> list[dict[str, Any]]:
    """An answer as a client sends it back: its JSON read and written again, sorted even."""
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": json.dumps(json.loads(call.arguments), sort_keys=True),
            },
        }
        for call in said.calls
    ]
    message = {
        "role": "assistant",
        "content": said.content or None,
        "reasoning": said.reasoning,
        "tool_calls": calls,
    }
    results = [{"role": "tool", "tool_call_id": c.id, "content": "done"} for c in said.calls]
    return [message, *reversed(results)]


def loop(replay: Replay) -> list[tuple[str, str]]:
    """(prompt, what the model then wrote) of five turns and the sixth's prompt."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Go."}]
    out = []
    for text in (*TURNS, ""):
        prompt = FORMAT.render(conversation_of(messages, TOOLS), replay)
        out.append((prompt.text, text))
        if text:
            messages += returned(answer(prompt, text, replay))
    return out


def test_prompts_of_a_tool_loop_only_grow() -> None:
    turns = loop(Replay())
    for (prompt, text), (after, _) in pairwise(turns):
        assert after.startswith(prompt + text)
        ids = TEXT.encode(prompt + text)
        assert TEXT.encode(after)[: len(ids)] == ids


def test_without_memory_they_would_not() -> None:
    turns = loop(Replay(capacity=0))
    kept = [b.startswith(a + text) for (a, text), (b, _) in pairwise(turns)]
    assert kept == [True, False, False, False, False]  # the first is written as JSON would be


def test_calls_that_a_client_changed_are_written_anew() -> None:
    replay = Replay()
    messages: list[Any] = [{"role": "user", "content": "Go."}]
    prompt = FORMAT.render(conversation_of(messages, TOOLS), replay)
    two = returned(answer(prompt, TURNS[2], replay))

    def text() -> str:
        return FORMAT.render(conversation_of([*messages, *two], TOOLS), replay).text

    own = OPEN + LS + "\n\n" + invoke("bash", par("timeout", "3")) + CLOSE
    assert own in text()
    two[0]["tool_calls"][0]["function"]["arguments"] = '{"command": "pwd"}'
    changed = OPEN + invoke("bash", par("command", "pwd")) + "\n"
    assert changed + invoke("bash", par("timeout", "3")) + CLOSE in text()
    del two[0]["tool_calls"][0]
    assert OPEN + invoke("bash", par("timeout", "3")) + CLOSE in text()
    two[0]["tool_calls"][0]["id"] = "call_foreign"
    assert OPEN + invoke("bash", par("timeout", "3", "false")) + CLOSE in text()


def test_a_call_that_was_cut_off_is_written_whole() -> None:
    replay = Replay()
    prompt = FORMAT.render(conversation_of([{"role": "user"}], TOOLS), replay)
    cut = (
        OPEN
        + LS
        + '\n<｜DSML｜invoke name="bash">\n<｜DSML｜parameter name="command" string="true">r'
    )
    machine = Machine(FORMAT, prompt.token_ids, (BASH,), replay=replay)
    for part in parts("</think>" + cut, repeat(3)):
        machine.feed(*part)
    machine.finish("length")
    back = [{"role": "user"}, *returned(machine.message)]
    text = FORMAT.render(conversation_of(back, TOOLS), replay).text
    assert OPEN + LS + "\n" + invoke("bash", par("command", "r")) + CLOSE in text


def block(number: int) -> Block:
    calls = tuple(ToolCall(f"{number}.{i}", "f", "{}") for i in range(2))
    return Block("text", calls, ("a", "b"))


def test_the_calls_used_longest_ago_are_forgotten() -> None:
    replay = Replay(capacity=4)
    for number in range(2):
        replay.remember(block(number))
    assert replay.find("0.0") and replay.find("0.1")
    replay.remember(block(2))
    assert len(replay) == 4
    assert [bool(replay.find(f"{n}.0")) for n in range(3)] == [True, False, True]


def test_what_is_kept_is_bounded_in_characters() -> None:
    """A call of 10 * size characters: its text, its arguments and its piece."""

    def long(number: int, size: int) -> Block:
        call = ToolCall(str(number), "f", "a" * size)
        return Block("t" * 8 * size, (call,), ("p" * size,))

    replay = Replay(characters=1000)
    for number, size in enumerate([40, 30, 30, 20]):
        replay.remember(long(number, size))
    assert [bool(replay.find(str(n))) for n in range(4)] == [False, True, True, True]
    replay.remember(long(2, 20))  # anew, and shorter: counted once
    replay.remember(long(4, 30))
    replay.remember(long(5, 101))  # too long for all of it: nobody has to go for it
    assert [bool(replay.find(str(n))) for n in range(6)] == [False, True, True, True, True, False]


@pytest.mark.parametrize("_", range(3))
def test_ids_cannot_be_guessed(_: int) -> None:
    one, other = call_id(), call_id()
    assert one != other and len(one) == len("call_") + 24
    assert int(one.removeprefix("call_"), 16) >= 0
