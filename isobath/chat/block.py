"""BlockReader: the calls of one block, from behind the first invoke tag to the block's end.

A block that was opened properly speaks at once. One that was not (no opener, or no DSML tokens at
all) is an attempt: what it says is held until its first call closes, and if something stands there
that belongs into no call, the text is given back as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from isobath.chat.arguments import Arguments
from isobath.chat.conversation import Tool, ToolCall
from isobath.chat.deltas import CallArguments, CallBegin, Delta
from isobath.chat.tags import (
    INVOKE,
    MARK,
    OPENERS,
    PARAMETER,
    Look,
    Tag,
    blanks_from,
    literal,
    overlap,
    tag_at,
)


@dataclass(slots=True)
class _Call:
    """A call being read. begin, end: where it stands in the block's text; end 0 until it closes."""

    id: str
    name: str
    arguments: Arguments
    begin: int
    end: int = 0
    written: list[str] = field(default_factory=list)


class BlockReader:
    """Reads one block. tools: by name. marked: tags carry the DSML token. attempt: may turn out to
    be text. first: index of its first call in the message.

    After feed(): deltas() is what has become certain. given_back, if not None, is text that is
    content after all, and rest what follows it; the block is then over.
    """

    def __init__(
        self,
        tools: Mapping[str, Tool],
        ids: Callable[[], str],
        first: int,
        *,
        marked: bool,
        attempt: bool,
    ) -> None:
        self.marked, self.attempt = marked, attempt
        self.given_back: str | None = None
        self.rest = ""
        self._tools, self._ids, self._first = tools, ids, first
        self._calls: list[_Call] = []
        self._deltas: list[Delta] = []
        self._buffer = ""
        self._raw: list[str] = []  # all that was read, spelled out
        self._read, self._last = 0, 0  # its length, and that up to the last closing tag
        self._step: Callable[[], bool] = self._between
        self._closer = f"</{MARK}" if marked else f"</{PARAMETER}"

    def begin(self, before: str, tag: str, name: str) -> None:
        """Start with what stands before the first invoke tag, that tag, and the name in it."""
        self._buffer = before + tag
        self._take(len(before))
        self._invoke(len(tag), name)

    def feed(self, text: str) -> None:
        """Take more text."""
        self._buffer += text
        while self.given_back is None and self._step():
            pass

    def deltas(self) -> list[Delta]:
        """What has become certain since the last time."""
        if self.attempt:
            return []
        out, self._deltas = self._deltas, []
        return out

    def finish(self, complete: bool) -> None:
        """The answer has ended. complete: because the model ended it."""
        if self.given_back is not None:
            return
        if self.attempt:
            self._give_back(len(self._buffer))
            return
        if self._step == self._value and MARK not in self._buffer:
            self._argue(self._calls[-1].arguments.add(self._buffer))
        if self.open:
            self._argue(self._calls[-1].arguments.cut(complete))

    @property
    def open(self) -> bool:
        """Whether a call has begun and not closed."""
        return self._step in (self._value, self._body)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls so far; none of an attempt."""
        if self.attempt:
            return ()
        return tuple(ToolCall(c.id, c.name, "".join(c.written)) for c in self._calls)

    @property
    def text(self) -> str:
        """The block as the model wrote it, up to its last closing tag; empty if a call is open."""
        whole = self._calls and self._calls[-1].end
        return "".join(self._raw)[: self._last] if whole else ""

    @property
    def pieces(self) -> tuple[str, ...]:
        """Each call as the model wrote it, empty for one that did not close."""
        raw = "".join(self._raw)
        return tuple(raw[call.begin : call.end] if call.end else "" for call in self._calls)

    def _between(self) -> bool:
        """Behind a call: another one, or the end of the block; other text is dropped."""
        if not self._to_tag():
            return False
        tag = tag_at(self._buffer, 0, self.marked)
        if tag is Look.MORE:
            return False
        if tag is Look.NO:
            return self._take(1)
        name = tag.attributes.get("name", "")
        if tag.word == INVOKE and not tag.closing:
            if name not in self._tools:
                self._give_back(0)
                return False
            return self._invoke(tag.end, name)
        self._take(tag.end)
        if tag.word in OPENERS and tag.closing:
            self._last = self._read
            self._step = self._done
        return True

    def _body(self) -> bool:
        """Inside a call, outside its values."""
        if self.attempt and blanks_from(self._buffer, 0) < len(self._buffer.split("<", 1)[0]):
            self._give_back(0)
            return False
        if not self._to_tag():
            return False
        tag = tag_at(self._buffer, 0, self.marked)
        if tag is Look.MORE:
            return False
        if isinstance(tag, Tag):
            if tag.word == PARAMETER and not tag.closing and "name" in tag.attributes:
                name, string = tag.attributes["name"], tag.attributes.get("string")
                self._argue(self._calls[-1].arguments.begin(name, string))
                self._step = self._value
                return self._take(tag.end)
            if tag.closing and tag.word != PARAMETER:
                return self._close(tag)
            if tag.word == INVOKE and not tag.closing and not self.attempt:
                return self._close(None)
        if self.attempt:
            self._give_back(0)
            return False
        return self._take(1)

    def _value(self) -> bool:
        """Inside a value, which only a closing tag with the DSML token ends (in a block without
        them: a parameter's closing tag). One of a call or block ends it, too: a model that forgot
        the parameter's meant that."""
        at = self._buffer.find(self._closer)
        if at < 0:
            kept = overlap(self._buffer, self._closer)
            self._add(len(self._buffer) - kept)
            return False
        self._add(at)
        tag = tag_at(self._buffer, 0, self.marked)
        if tag is Look.MORE:
            return False
        if tag is Look.NO:
            self._add(1)
            return True
        self._argue(self._calls[-1].arguments.end())
        self._step = self._body
        return self._take(tag.end) if tag.word == PARAMETER else True

    def _done(self) -> bool:
        """Behind the block: dropped."""
        self._buffer = ""
        return False

    def _invoke(self, end: int, name: str) -> bool:
        """A call begins, with a tag that ends there."""
        schema = self._tools[name].parameters
        self._calls.append(_Call(self._ids(), name, Arguments(schema), self._read))
        index = self._first + len(self._calls) - 1
        self._deltas.append(CallBegin(index, self._calls[-1].id, name))
        self._step = self._body
        return self._take(end)

    def _close(self, tag: Tag | None) -> bool:
        """The open call ends: with its own tag, the block's, or with none before another call."""
        call = self._calls[-1]
        self._argue(call.arguments.close())
        self.attempt = False
        self._step = self._between
        if tag is not None and tag.word == INVOKE:
            self._take(tag.end)
        call.end = self._last = self._read
        return True

    def _argue(self, fragment: str) -> None:
        if fragment:
            self._calls[-1].written.append(fragment)
            index = self._first + len(self._calls) - 1
            self._deltas.append(CallArguments(index, fragment))

    def _add(self, size: int) -> None:
        """So many characters belong to the open value."""
        if size:
            self._argue(self._calls[-1].arguments.add(literal(self._buffer[:size])))
            self._take(size)

    def _to_tag(self) -> bool:
        """Read up to the next `<`; whether there is one."""
        at = self._buffer.find("<")
        self._take(len(self._buffer) if at < 0 else at)
        return at >= 0

    def _take(self, size: int) -> bool:
        """Read so many characters. Returns True, as the step that calls it has come further."""
        text = literal(self._buffer[:size])
        self._buffer = self._buffer[size:]
        self._raw.append(text)
        self._read += len(text)
        return True

    def _give_back(self, size: int) -> None:
        """The block is over. An attempt gives back what was read and so many characters more; the
        rest is to be read as content."""
        self._take(size)
        self.given_back = "".join(self._raw) if self.attempt else ""
        self.rest, self._buffer = self._buffer, ""
