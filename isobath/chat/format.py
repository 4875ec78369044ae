"""ChatFormat: a checkpoint's chat format, from conversations to prompts.

There are two formats for one tokenizer, told apart by the hash of the checkpoint's own encoder
file (chat/texts.py). Control tokens are looked up in the tokenizer by name. chat/render.py makes
the text, here it becomes token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isobath.chat.conversation import Conversation, Rendered
from isobath.chat.dsml import DSML
from isobath.chat.render import ASSISTANT, END_THINK, TASKS, THINK, USER, render
from isobath.chat.replay import Replay
from isobath.chat.texts import VARIANTS, Texts, read_texts
from isobath.errors import RequestError
from isobath.model.text import Text

__all__ = ["VARIANTS", "ChatFormat", "ControlIds"]


@dataclass(frozen=True, slots=True)
class ControlIds:
    """Ids of the tokens that a machine watches for. closed: those after which no reasoning is open
    in a prompt."""

    think: int
    end_think: int
    dsml: int
    eos: int
    closed: frozenset[int]

    @classmethod
    def of(cls, text: Text) -> ControlIds:
        """Looked up by name; raises RequestError for a tokenizer without one of them."""
        closers = (END_THINK, USER, ASSISTANT, *TASKS.values())
        return cls(
            text.token_id(THINK),
            text.token_id(END_THINK),
            text.token_id(DSML),
            text.eos,
            frozenset(text.token_id(name) for name in closers),
        )

    def reasoning_open(self, prompt_ids: Sequence[int]) -> bool:
        """Whether a prompt ends inside reasoning. Its last token says so, except where the last
        message is to be continued; then the last of these tokens does."""
        for token in reversed(prompt_ids):
            if token == self.think:
                return True
            if token in self.closed:
                return False
        return False


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How conversations with one checkpoint are written. sanitize: what users and tools say is
    encoded as plain text, even where it spells control tokens."""

    texts: Texts
    ids: ControlIds
    text: Text
    sanitize: bool = False

    @property
    def variant(self) -> str:
        """Which of VARIANTS."""
        return self.texts.variant

    @classmethod
    def load(
        cls,
        folder: Path,
        text: Text,
        choice: str | None = None,
        *,
        sanitize_user_text: bool = False,
    ) -> ChatFormat:
        """The format of a checkpoint. choice: one of VARIANTS overrides what the file's hash says.

        Raises ConfigError, CheckpointError, or RequestError for a tokenizer without V4's control
        tokens.
        """
        return cls(read_texts(folder, choice), ControlIds.of(text), text, sanitize_user_text)

    def render(self, conversation: Conversation, replay: Replay | None = None) -> Rendered:
        """The prompt of a conversation. replay: how the model itself wrote the calls it is sent.
        Raises RequestError for a conversation that has no prompt in this format."""
        try:
            segments = render(conversation, self.texts, replay)
            prompt = "".join(segment.text for segment in segments)
            prompt.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RequestError(
                "messages: text that is no Unicode",
                found=f"half of a surrogate pair, {error.object[error.start]!r}",
                do="send valid UTF-8",
                param="messages",
            ) from error
        except RecursionError as error:
            raise RequestError("messages or tools: nested too deeply", param="messages") from error
        if not self.sanitize:
            ids = self.text.encode(prompt)
            return Rendered(prompt, ids, self.ids.reasoning_open(ids))
        ids = []
        own = ""
        for segment in segments:
            if not segment.foreign:
                own += segment.text
                continue
            ids += self.text.encode(own, bos=False) + self.text.encode_plain(segment.text)
            own = ""
        ids += self.text.encode(own, bos=False)
        return Rendered(prompt, ids, self.ids.reasoning_open(ids))
