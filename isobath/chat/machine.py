"""Machine: from an answer's tokens to reasoning, content and calls, while they arrive.

One machine belongs to one completion. It is fed (token id, text) parts, knows control tokens by
their ids, and says the same whatever the text was cut into. Text that may become a call is held
until it has, or is released unchanged. What is a call:

    a block    opener with the DSML token (or a known misspelling of it), then an invoke of a
               declared tool: at once, also inside reasoning, which it ends
    an invoke  without an opener, or at the beginning of a line without any DSML tokens: in content
               only, and only once it has closed; until then it is held

Everything else that looks like markup is content: prose about it, calls of tools that were not
declared, all of it when no tools were. What follows a block is dropped. An answer that ended inside
its reasoning by its own will is content: the model answered at once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isobath.chat.block import BlockReader
from isobath.chat.conversation import Tool, ToolCall
from isobath.chat.deltas import Answer, Content, Delta, Reasoning, joined
from isobath.chat.format import ChatFormat
from isobath.chat.replay import Block, Replay, call_id
from isobath.chat.tags import (
    BLANKS,
    INVOKE,
    LITERALS,
    MARK,
    OPENERS,
    THINKING,
    THOUGHT,
    Look,
    blanks_from,
    literal,
    tag_at,
)
from isobath.model.text import EOS

log = logging.getLogger(__name__)

MAX_LEAD = 16
"""Blanks before a call that belong to it and not to the content; also how many are held at most."""
_MARKS = re.compile(f"[<{THINKING}{THOUGHT}]")


@dataclass(frozen=True, slots=True)
class _Opening:
    """Where a call begins. tag, end: of its invoke tag. name: whose call it is."""

    tag: int
    end: int
    name: str
    marked: bool
    attempt: bool


class Machine:
    """Reads one completion. prompt_ids: the rendered prompt, whose end says whether the answer
    begins inside reasoning. tools: those that may be called; without any, nothing is parsed
    as a call. replay: remembers the calls as they were written.

    reasoning_tokens: how many tokens were reasoning.
    """

    def __init__(
        self,
        format: ChatFormat,
        prompt_ids: Sequence[int],
        tools: Sequence[Tool] = (),
        ids: Callable[[], str] = call_id,
        replay: Replay | None = None,
    ) -> None:
        self.reasoning_tokens = 0
        self._atoms = {
            format.ids.think: THINKING,
            format.ids.end_think: THOUGHT,
            format.ids.dsml: MARK,
        }
        self._eos = format.ids.eos
        self._tools = {tool.name: tool for tool in tools}
        self._ids, self._replay = ids, replay
        self._reasons = format.ids.reasoning_open(prompt_ids)
        self._unclosed = self._reasons  # no end of the reasoning has come
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._blocks: list[BlockReader] = []
        self._block: BlockReader | None = None
        self._buffer = ""
        self._blank, self._line_start = True, True  # of what has been said in this part
        self._deltas: list[Delta] = []
        self._finish_reason = ""

    def feed(self, token_id: int, text: str) -> list[Delta]:
        """Take one part of a Piece: what has become certain with it."""
        assert not self._finish_reason, "the answer has ended"
        self.reasoning_tokens += self._reasons
        if atom := self._atoms.get(token_id):
            text = text.removesuffix(LITERALS[atom]) + atom
        elif token_id == self._eos:
            text = text.removesuffix(EOS)
        self._buffer += text
        self._run()
        return self._said()

    def finish(self, reason: str) -> list[Delta]:
        """The answer has ended: by the model itself ("stop"), by a stop text or token of the
        request ("stop_text"), or "length" or "abort". Call once."""
        assert not self._finish_reason, "the answer has ended"
        whole = reason == "stop" or not (self._block and self._block.open)
        if self._block:
            self._block.finish(complete=reason == "stop")
            self._deltas += self._block.deltas()
            self._say(self._block.given_back or "")
            self._block = None
        self._say(self._buffer)
        self._buffer = ""
        if self._unclosed and reason == "stop":
            self._deltas += [Content(text) for text in self._reasoning]
            self._content += self._reasoning
            self._reasoning = []
            self.reasoning_tokens = 0
        calls = self._calls()
        stopped = reason in ("stop", "stop_text")
        self._finish_reason = "stop" if stopped else reason
        if stopped and calls and whole:
            self._finish_reason = "tool_calls"
        if self._replay is not None and calls:
            self._remember(self._replay, calls)
        return self._said()

    @property
    def message(self) -> Answer:
        """The message so far; the whole one after finish()."""
        return Answer("".join(self._reasoning), "".join(self._content), self._calls())

    @property
    def finish_reason(self) -> str:
        """After finish(): "stop", "length", "tool_calls" (an answer with calls, none of them cut
        off by a stop text or the length limit) or "abort"."""
        return self._finish_reason

    def _run(self) -> None:
        while True:
            if self._block is None:
                if not self._scan():
                    return
                continue
            text, self._buffer = self._buffer, ""
            self._block.feed(text)
            self._deltas += self._block.deltas()
            if self._block.given_back is None:
                return
            if not self._block.calls:
                self._blocks.remove(self._block)
            self._buffer = self._block.rest
            self._say(self._block.given_back)
            self._block = None

    def _scan(self) -> bool:
        """Read reasoning or content up to what changes it; whether something did."""
        buffer = self._buffer
        for found in _MARKS.finditer(buffer):
            at = found.start()
            if buffer[at] != "<":
                if self._turns(at):
                    return True
                continue
            opening = self._opening(at)
            if opening is Look.NO:
                continue
            lead = self._lead(at)
            self._say(buffer[:lead])
            self._buffer = buffer[lead:]
            if opening is Look.MORE:
                return False
            self._open(opening, lead)
            return True
        end = self._lead(len(buffer)) if self._tools else len(buffer)
        self._say(buffer[:end])
        self._buffer = buffer[end:]
        return False

    def _turns(self, at: int) -> bool:
        """A token of reasoning: its end, or one that repeats what the prompt said. Others are text;
        whether it was not."""
        before, atom, behind = self._buffer[:at], self._buffer[at], self._buffer[at + 1 :]
        first = self._blank and not before.strip()
        if not first and not (self._reasons and atom == THOUGHT):
            return False
        self._say(before)
        self._buffer = behind
        if self._reasons and atom == THOUGHT:
            self._part(reasons=False)
        elif not self._reasons and atom == THINKING:
            self._part(reasons=True)
        return True

    def _part(self, reasons: bool) -> None:
        """Reasoning or content begins."""
        self._reasons = self._unclosed = reasons
        self._blank = self._line_start = True

    def _opening(self, at: int) -> _Opening | Look:
        """Whether a call begins with the `<` at a position."""
        buffer = self._buffer
        if not self._tools:
            return Look.NO
        if at + 1 == len(buffer):
            return Look.MORE
        marked = buffer[at + 1] == MARK
        if not marked and (self._reasons or not self._begins_line(at)):
            return Look.NO
        tag = tag_at(buffer, at, marked)
        if isinstance(tag, Look) or tag.closing:
            return Look.NO if tag is not Look.MORE else tag
        attempt = not marked or tag.word == INVOKE
        if attempt and self._reasons:
            return Look.NO
        if tag.word in OPENERS:
            at = blanks_from(buffer, tag.end)
            if at - tag.end > MAX_LEAD:
                return Look.NO
            if at == len(buffer):
                return Look.MORE
            if buffer[at] != "<":
                return Look.NO
            tag = tag_at(buffer, at, marked)
            if isinstance(tag, Look):
                return tag
        name = tag.attributes.get("name")
        if tag.word != INVOKE or tag.closing or name is None:
            return Look.NO
        if name not in self._tools:
            log.info("a call of %r, which was not declared, is given as content", name)
            return Look.NO
        return _Opening(at, tag.end, name, marked, attempt)

    def _open(self, opening: _Opening, lead: int) -> None:
        """A call begins; what the buffer had before `lead` has been said."""
        if self._reasons:
            self._part(reasons=False)
        self._unclosed = False
        first = sum(len(block.calls) for block in self._blocks)
        self._block = BlockReader(
            self._tools, self._ids, first, marked=opening.marked, attempt=opening.attempt
        )
        self._blocks.append(self._block)
        tag, end = opening.tag - lead, opening.end - lead
        self._block.begin(self._buffer[:tag], self._buffer[tag:end], opening.name)
        self._buffer = self._buffer[end:]

    def _begins_line(self, at: int) -> bool:
        before = self._buffer[:at].rstrip(" \t")
        return before.endswith("\n") if before else self._line_start

    def _lead(self, at: int) -> int:
        """Where the blanks before a position begin, MAX_LEAD of them at most."""
        start = at
        while start > 0 and at - start < MAX_LEAD and self._buffer[start - 1] in BLANKS:
            start -= 1
        return start

    def _say(self, text: str) -> None:
        if not text:
            return
        text = literal(text)
        self._blank = self._blank and not text.strip()
        if line := text.rstrip(" \t"):
            self._line_start = line.endswith("\n")
        (self._reasoning if self._reasons else self._content).append(text)
        self._deltas.append(Reasoning(text) if self._reasons else Content(text))

    def _said(self) -> list[Delta]:
        """The deltas since the last time, those of one kind joined."""
        out, self._deltas = self._deltas, []
        return joined(out) if len(out) > 1 else out

    def _calls(self) -> tuple[ToolCall, ...]:
        return tuple(call for block in self._blocks for call in block.calls)

    def _remember(self, replay: Replay, calls: tuple[ToolCall, ...]) -> None:
        """Keep the calls as they were written; those without DSML tokens are better forgotten."""
        blocks = [block for block in self._blocks if block.calls]
        marked = [block for block in blocks if block.marked]
        pieces = {c.id: p for b in marked for c, p in zip(b.calls, b.pieces, strict=True)}
        whole = marked[0].text if len(marked) == len(blocks) == 1 else ""
        replay.remember(Block(whole, calls, tuple(pieces.get(call.id, "") for call in calls)))
