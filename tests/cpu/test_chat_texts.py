"""The sentences of a chat format: where they are read, which format it is, what is refused."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path

import pytest

from isobath.chat import ChatFormat, Conversation, Message, Tool
from isobath.chat.texts import FILE, HASHES, OURS, read_texts
from isobath.engine.llm import BUNDLED
from isobath.errors import ConfigError, CorruptCheckpoint, RequestError, UnsupportedCheckpoint
from tests.support.chat_streams import TEXT

TEMPLATES = """
TOOLS_TEMPLATE: str = "T {dsml_token} {thinking_start_token}" "|{tool_schemas}|{{x}}"
response_format_template = ("R {schema}")
"""
APRIL = TEMPLATES + 'REASONING_EFFORT_MAX = "most "\n'
JULY = TEMPLATES + 'REASONING_EFFORT_PROMPTS = {"low": "", "high": "much ", "max": "most "}\n'
HELLO = Message("user", "Hello!")


def checkpoint(folder: Path, source: str) -> Path:
    file = folder / FILE
    file.parent.mkdir(parents=True)
    file.write_text(source, encoding="utf-8")
    return folder


def prompt(folder: Path, choice: str | None = None, **more: object) -> str:
    conversation = Conversation((HELLO,), **more)  # type: ignore[arg-type]
    text = ChatFormat.load(folder, TEXT, choice).render(conversation).text
    return text.removeprefix("<｜begin▁of▁sentence｜>")


def test_literals_are_read_as_python_would(tmp_path: Path) -> None:
    texts = read_texts(checkpoint(tmp_path, APRIL), "v4")
    assert texts.tools(["{}", "[]"]) == "T ｜DSML｜ <think>|{}\n[]|{x}"
    assert texts.response_format("true") == "R true"


def test_a_file_is_never_run(tmp_path: Path) -> None:
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit\n"
    assert prompt(checkpoint(tmp_path, trap + APRIL), "v4", effort="max").startswith("most ")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("source", [APRIL, JULY])
def test_the_hash_says_which_format_it_is(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path, source + 'REASONING_EFFORT_PROMPTS = {"high": "", "max": ""}')
    monkeypatch.setitem(HASHES, sha256((folder / FILE).read_bytes()).hexdigest()[:8], "v4-0731")
    assert read_texts(folder).variant == "v4-0731"
    assert {"bdbd57c1": "v4", "abc0d261": "v4-0731"}.items() <= HASHES.items()


@pytest.mark.parametrize(("source", "variant"), [(APRIL, "v4"), (JULY, "v4-0731")])
def test_an_unknown_hash_is_warned_of(
    tmp_path: Path, source: str, variant: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "isobath"):
        assert read_texts(checkpoint(tmp_path, source)).variant == variant
    assert "unknown hash" in caplog.text and "--chat-format" in caplog.text


def test_with_both_efforts_an_unknown_file_is_taken_for_the_newer(tmp_path: Path) -> None:
    assert read_texts(checkpoint(tmp_path, APRIL + JULY)).variant == "v4-0731"


def test_a_choice_goes_before_the_file(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, APRIL + JULY)
    assert read_texts(folder, "v4").variant == "v4"
    with pytest.raises(ConfigError, match="v4-0731"):
        read_texts(folder, "v5")


@pytest.mark.parametrize(
    ("source", "choice", "complaint"),
    [
        ("x = (", None, "not Python"),
        (APRIL.replace("TOOLS_TEMPLATE", "TOOLS"), None, "TOOLS_TEMPLATE should be"),
        (APRIL.replace("response_format_t", "t"), None, "response_format_template should be"),
        (APRIL, "v4-0731", "REASONING_EFFORT_PROMPTS should be"),
        (JULY, "v4", "REASONING_EFFORT_MAX should be"),
        (JULY.replace('"max": ', '"most": '), None, "REASONING_EFFORT_PROMPTS should be"),
        (APRIL.replace('"most "', "str(1)"), None, "should be"),
        (APRIL.replace("{schema}", "{schema.x}"), None, "not a template of this format"),
        (APRIL.replace("{schema}", "schema"), None, "no gap"),
        (APRIL.replace("{schema}", "{schema"), None, "not a template"),
        (APRIL + 'dsml_token = "｜DSML2｜"', None, "of another format"),
        (APRIL + 'tool_calls_block_name = "calls"', None, "of another format"),
    ],
)
def test_a_file_that_lacks_something_is_refused(
    tmp_path: Path, source: str, choice: str | None, complaint: str
) -> None:
    with pytest.raises(CorruptCheckpoint, match=complaint):
        read_texts(checkpoint(tmp_path, source), choice)


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, APRIL)
    (folder / FILE).rename(folder / "encoding" / "encoding_dsv41.py")
    with pytest.raises(UnsupportedCheckpoint, match=r"encoding_dsv41\.py"):
        read_texts(folder)


def test_without_the_file_plain_chat_goes_on(tmp_path: Path) -> None:
    assert prompt(tmp_path) == "<｜User｜>Hello!<｜Assistant｜><think>"
    assert (
        prompt(tmp_path, thinking=False, effort="max") == "<｜User｜>Hello!<｜Assistant｜></think>"
    )
    assert prompt(tmp_path, effort="low") == "<｜User｜>Hello!<｜Assistant｜><think>"


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"tools": (Tool("f", {"name": "f"}),)}, "tools"),
        ({"response_format": {"type": "object"}}, "response_format"),
        ({"effort": "high"}, "reasoning_effort 'high'"),
    ],
)
def test_without_the_file_what_needs_it_is_refused(
    tmp_path: Path, asked: dict[str, object], what: str
) -> None:
    with pytest.raises(RequestError, match=f"{what}: this checkpoint lacks the texts"):
        prompt(tmp_path, **asked)


def test_the_bundled_model_says_which_format_it_has(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "isobath"):
        assert read_texts(BUNDLED).variant == "v4-0731"
    assert not caplog.text
    for variant in ("v4", "v4-0731"):
        texts = read_texts(BUNDLED, variant)
        assert texts.effort_prefix("max") and OURS["dsml_token"] in texts.tools(["{}"])
