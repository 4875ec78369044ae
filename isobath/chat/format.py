"""ChatFormat: a checkpoint's chat format, from conversations to prompts.

There are two formats for one tokenizer, told apart by the hash of the checkpoint's own encoder
file (chat/texts.py). Control tokens are looked up in the tokenizer by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isobath.chat.conversation import Conversation, Rendered
from isobath.chat.replay import Replay
from isobath.model.text import Text

VARIANTS = ("v4", "v4-0731")


@dataclass(frozen=True, slots=True)
class ControlIds:
    """Ids of the tokens that a machine watches for."""

    think: int
    end_think: int
    dsml: int
    eos: int


class ChatFormat:
    """How conversations with one checkpoint are written. variant: one of VARIANTS. sanitize: user
    text that spells control tokens is encoded as plain text."""

    variant: str
    ids: ControlIds
    text: Text
    sanitize: bool

    @classmethod
    def load(
        cls,
        folder: Path,
        text: Text,
        choice: str | None = None,
        *,
        sanitize_user_text: bool = False,
    ) -> ChatFormat:
        """The format of a checkpoint. choice: one of VARIANTS overrides what the hash says."""
        raise AssertionError("lands next")

    def render(self, conversation: Conversation, replay: Replay | None = None) -> Rendered:
        """The prompt of a conversation. replay: how the model itself wrote the calls it is sent.
        Raises RequestError for a conversation that has no prompt in this format."""
        raise AssertionError("lands next")
