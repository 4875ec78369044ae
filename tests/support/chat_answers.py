"""Answers and what they mean: well-formed ones, and the ways in which real ones are not.

The numbers are those of a list of deviations that servers have met; names without one are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from isobath.chat import Tool
from isobath.model.text import EOS
from tests.support.chat_streams import tool

BASH = tool("bash", command="string", timeout="integer", quiet="boolean")
READ = tool("read", path="string", lines={"type": ["integer", "null"]}, any={})
TOOLS = (BASH, READ)

OPEN, CLOSE = "\n\n<｜DSML｜tool_calls>\n", "\n</｜DSML｜tool_calls>"


def par(name: str, value: str, string: str | None = "true") -> str:
    attribute = "" if string is None else f' string="{string}"'
    return f'<｜DSML｜parameter name="{name}"{attribute}>{value}</｜DSML｜parameter>'


def invoke(name: str, *parameters: str) -> str:
    return f'<｜DSML｜invoke name="{name}">\n' + "\n".join(parameters) + "\n</｜DSML｜invoke>"


def bare(text: str) -> str:
    return text.replace("｜DSML｜", "")


LS = invoke("bash", par("command", "ls"))
LSED: list[tuple[str, Any]] = [("bash", {"command": "ls"})]


@dataclass(frozen=True)
class Case:
    """An answer and its meaning. streamed: the content of a stream, where it differs."""

    answer: str
    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    finish: str = "stop"
    thinking: bool = False
    tools: tuple[Tool, ...] = TOOLS
    reason: str = "stop"
    streamed: tuple[str, str] | None = None


def called(answer: str, calls: list[tuple[str, Any]], content: str = "", **more: Any) -> Case:
    return Case(answer + EOS, content, calls=calls, finish="tool_calls", **more)


MENTION = 'Write <｜DSML｜invoke name="bash"> to run it, or <｜DSML｜tool_calls>, as in 1 < 2.'
NOPE = "Let me." + OPEN + invoke("nope", par("a", "b")) + CLOSE
LONG = "x" * 1000
UNCLOSED = LS.removesuffix("</｜DSML｜invoke>")
CLOSERS = 'a 2>&1 </parameter></invoke> "\\<｜DSML｜x>'
BASH_TAG = '<｜DSML｜invoke name="bash">\n'

CASES = {
    "plain": Case("Hello <b>you</b>.\n\n" + EOS, "Hello <b>you</b>.\n\n"),
    "thinking": Case("hm</think>Hi" + EOS, "Hi", "hm", thinking=True),
    "thinking, cut": Case("hm, so", "", "hm, so", thinking=True, reason="length", finish="length"),
    "think token repeated": Case("\n<think>hm</think>Hi", "Hi", "\nhm", thinking=True),
    "thinks unasked": Case("<think>hm</think>Hi", "Hi", "hm"),
    "closes unasked": Case("</think>Hi </think> there", "Hi </think> there"),
    "two calls": called(
        "Sure." + OPEN + LS + "\n" + invoke("read", par("path", "a"), par("lines", "3", "false")),
        [*LSED, ("read", {"path": "a", "lines": 3})],
        "Sure.",
    ),
    "no arguments": called(OPEN + invoke("bash", "") + CLOSE, [("bash", {})]),
    "after reasoning": called(
        "hm</think>" + OPEN + LS + CLOSE, LSED, thinking=True, reasoning="hm"
    ),
    "1 block inside reasoning": called(
        "hm" + OPEN + LS + CLOSE, LSED, thinking=True, reasoning="hm"
    ),
    "2 opener misspelt": called(OPEN.replace("tool_calls", "toolcalls") + LS + CLOSE, LSED),
    "2 opener shortened": called(OPEN.replace("tool_calls", "tool") + LS + CLOSE, LSED),
    "3 opener missing": called("Now.\n\n" + LS + CLOSE, LSED, "Now."),
    "3 opener missing, two": called(LS + "\n" + LS, LSED * 2),
    "3 opener missing, not declared": Case(invoke("nope") + EOS, invoke("nope")),
    "3 opener missing, never closed": Case(
        "a " + LS.removesuffix("</｜DSML｜invoke>") + EOS,
        "a " + LS.removesuffix("</｜DSML｜invoke>"),
    ),
    "3 not inside reasoning": Case(f"{LS} no</think>Hi", "Hi", f"{LS} no", thinking=True),
    "4 prose that mentions it": Case(MENTION + EOS, MENTION),
    "4 prose, then a call": called(MENTION + OPEN + LS + CLOSE, LSED, MENTION),
    "5 string= missing": called(
        OPEN
        + invoke(
            "bash",
            par("command", "3", None),
            par("timeout", "3", None),
            par("quiet", "true", None),
            par("other", "[1]", None),
            par("text", "a b", None),
        )
        + CLOSE,
        [("bash", {"command": "3", "timeout": 3, "quiet": True, "other": [1], "text": "a b"})],
    ),
    "6 markers missing": called(bare("So:" + OPEN + LS + CLOSE), LSED, "So:"),
    "6 markers missing, opener too": called("So:\n" + bare(LS), LSED, "So:"),
    "6 not declared": Case(bare(NOPE) + EOS, bare(NOPE)),
    "6 in a line of prose": Case("as " + bare(LS) + EOS, "as " + bare(LS)),
    "6 never closed": Case(bare(LS)[:-9] + EOS, bare(LS)[:-9]),
    "7 arguments wrapper": called(
        OPEN + invoke("bash", par("arguments", '{"command": "ls"}', "false")) + CLOSE, LSED
    ),
    "7 input wrapper, a string": called(
        OPEN + invoke("bash", par("input", ' {"command": "ls"}\n')) + CLOSE, LSED
    ),
    "7 no wrapper, as declared": called(
        OPEN + invoke("f", par("input", '{"a": 1}', "false")) + CLOSE,
        [("f", {"input": {"a": 1}})],
        tools=(tool("f", input="object"),),
    ),
    "7 no wrapper, not alone": called(
        OPEN + invoke("bash", par("input", "{}", "false"), par("command", "ls")) + CLOSE,
        [("bash", {"input": {}, "command": "ls"})],
    ),
    "7 no wrapper, no object": called(
        OPEN + invoke("bash", par("input", "3")) + CLOSE, [("bash", {"input": "3"})]
    ),
    "8 declared otherwise": called(
        OPEN
        + invoke("bash", par("timeout", "3"), par("quiet", "true"), par("command", "true"))
        + CLOSE,
        [("bash", {"timeout": 3, "quiet": True, "command": "true"})],
    ),
    "8 declared otherwise, but text": called(
        OPEN + invoke("bash", par("timeout", "soon"), par("quiet", "3")) + CLOSE,
        [("bash", {"timeout": "soon", "quiet": "3"})],
    ),
    "9 closers as text": called(
        OPEN
        + invoke("bash", par("command", 'a 2>&1 </parameter></invoke> "\\<｜DSML｜x>'))
        + CLOSE,
        [("bash", {"command": 'a 2>&1 </parameter></invoke> "\\<｜DSML｜x>'})],
    ),
    "9 closer forgotten": called(
        OPEN + '<｜DSML｜invoke name="bash"><｜DSML｜parameter name="command" string="true">ls'
        "</｜DSML｜invoke></｜DSML｜tool_calls>",
        LSED,
    ),
    "10 a long string": called(
        OPEN + invoke("bash", par("command", LONG)) + CLOSE, [("bash", {"command": LONG})]
    ),
    "11 cut inside a string": Case(
        OPEN
        + '<｜DSML｜invoke name="bash">\n<｜DSML｜parameter name="command" string="true">ls "-l',
        calls=[("bash", {"command": 'ls "-l'})],
        reason="length",
        finish="length",
    ),
    "11 cut inside a number": Case(
        OPEN + BASH_TAG + '<｜DSML｜parameter name="timeout" string="false">12',
        calls=[("bash", {})],
        reason="length",
        finish="length",
    ),
    "11 cut inside a closer": Case(
        OPEN + LS.split("rameter>\n</", 1)[0],
        calls=LSED,
        reason="length",
        finish="length",
    ),
    "11 cut inside a tag": Case(
        OPEN + '<｜DSML｜invoke name="ba',
        OPEN + '<｜DSML｜invoke name="ba',
        reason="length",
        finish="length",
    ),
    "12 answers without </think>": Case(
        "Hi there" + EOS, "Hi there", thinking=True, streamed=("Hi there", "Hi there")
    ),
    "12 but not when a stop text cut the reasoning": Case(
        "Hi there", "", "Hi there", thinking=True, reason="stop_text"
    ),
    "a stop text inside a string": Case(
        OPEN + BASH_TAG + '<｜DSML｜parameter name="command" string="true">rm -r /tmp',
        calls=[("bash", {"command": "rm -r /tmp"})],
        reason="stop_text",
    ),
    "a stop text inside a number": Case(
        OPEN + BASH_TAG + '<｜DSML｜parameter name="timeout" string="false">12',
        calls=[("bash", {})],
        reason="stop_text",
    ),
    "a stop text behind a call": Case(
        OPEN + LS, calls=LSED, reason="stop_text", finish="tool_calls"
    ),
    "13 text after the block": called(OPEN + LS + CLOSE + "\n\nDone. <｜DSML｜x> <br>", LSED),
    "14 no tools": Case("a" + OPEN + LS + CLOSE + EOS, "a" + OPEN + LS + CLOSE, tools=()),
    "16 the end as text": Case("Hi" + EOS, "Hi"),
    "17 not declared": Case(NOPE + EOS, NOPE),
    "17 not declared, then declared": called(
        NOPE.removesuffix(CLOSE) + "\n" + LS + CLOSE, LSED, NOPE.removesuffix(CLOSE)
    ),
    "17 declared, then not": called(
        OPEN + LS + "\n" + invoke("nope") + CLOSE, LSED, invoke("nope") + CLOSE
    ),
    "a parameter twice": called(
        OPEN + invoke("bash", par("command", "ls"), par("command", "rm")) + CLOSE, LSED
    ),
    "a call without its closer": called(
        OPEN + LS.removesuffix("\n</｜DSML｜invoke>") + "\n" + LS + CLOSE, LSED * 2
    ),
    "not JSON, though it says so": called(
        OPEN + invoke("read", par("any", "NaN", "false"), par("path", "[", "false")) + CLOSE,
        [("read", {"any": "NaN", "path": "["})],
    ),
    "blanks before a call": called("a" + " " * 40 + LS, LSED, "a" + " " * 24),
}
