"""Text to token ids and back, with the tokenizer.json that lies in a checkpoint's folder.

Special tokens are looked up by name, never by number. A prompt gets one BOS, and keeps the one it
already has. `Detokenizer` turns a growing list of tokens into text without ever splitting a UTF-8
character that spans tokens. A token stands for bytes, and these need not be UTF-8 by themselves;
how the vocabulary spells a byte as a character is GPT-2's table, rebuilt in _byte_letters().
"""

from __future__ import annotations

import json
from codecs import utf_8_decode
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer

from isobath.errors import CorruptCheckpoint, RequestError

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
_NOTHING_ADDED: dict[str, object] = {"added_tokens": [], "post_processor": None}


class Text:
    """A checkpoint's tokenizer. added_ids: tokens beside the vocabulary proper, which stand for
    something other than their letters; special_ids: those of them that decode() leaves out. Raises
    CorruptCheckpoint when the file is missing or unreadable."""

    def __init__(self, folder: Path) -> None:
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise CorruptCheckpoint(
                f"{file}: no tokenizer",
                found="no such file",
                effect="prompts could not be read nor answers written",
                do="copy tokenizer.json of the same checkpoint here, or pass token ids",
            )
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception for a bad file
            raise CorruptCheckpoint(
                f"{file}: not a tokenizer", found=str(error), do="download the file again"
            ) from error
        self.vocab_size: int = self._tokenizer.get_vocab_size()
        self.bos, self.eos = self.token_id(BOS), self.token_id(EOS)
        added = self._tokenizer.get_added_tokens_decoder()
        self.added_ids = frozenset(added)
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        self._bytes: dict[int, bytes] = {}

    def token_id(self, name: str) -> int:
        """Id of a token by its name. Raises RequestError for an unknown one."""
        found: int | None = self._tokenizer.token_to_id(name)
        if found is None:
            raise RequestError(f"token {name!r}: not in this tokenizer", do="check the checkpoint")
        return found

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        """Token ids of `text`; names of special tokens in it become those tokens. bos: beginning
        with exactly one BOS, else just as it stands."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids if not bos or ids[:1] == [self.bos] else [self.bos, *ids]

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of `text`, without a BOS; names of control tokens in it are ordinary text."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    @cached_property
    def _plain(self) -> Tokenizer:
        """The tokenizer without its added tokens: `encode_special_tokens` would still find those
        that are not marked as special, which are most of DeepSeek-V4's."""
        return Tokenizer.from_str(json.dumps(json.loads(self._tokenizer.to_str()) | _NOTHING_ADDED))

    def decode(self, ids: list[int], *, skip_special: bool = True) -> str:
        """Text of `ids`, without BOS and EOS if skip_special; bytes that are no UTF-8 become
        U+FFFD."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=skip_special)
        return text

    def token_bytes(self, token: int) -> bytes:
        """What a token stands for; nothing for an id that is none. Special ones: their name."""
        found = self._bytes.get(token)
        if found is None:
            name: str = self._tokenizer.id_to_token(token) or ""
            try:
                found = bytes(_LETTERS[letter] for letter in name)
            except KeyError:  # an added token, spelled as it reads
                found = name.encode()
            self._bytes[token] = found
        return found

    def token_name(self, token: int) -> str:
        """The token as the vocabulary spells it."""
        return self._tokenizer.id_to_token(token) or ""


class Detokenizer:
    """Text of one growing sequence, piece by piece; the pieces joined are decode() of the whole.
    pending: whether it ends inside a character, whose text comes later."""

    def __init__(self, text: Text, *, skip_special: bool = True) -> None:
        self._text = text
        self._skipped = text.special_ids if skip_special else frozenset()
        self._rest = b""  # the beginning of a character

    @property
    def pending(self) -> bool:
        return bool(self._rest)

    def add(self, token: int) -> str:
        """The text that `token` completes; empty while it ends inside a character."""
        if token in self._skipped:
            return ""
        data = self._rest + self._text.token_bytes(token)
        piece, taken = utf_8_decode(data, "replace", False)
        self._rest = data[taken:]
        return piece

    def finish(self) -> str:
        """What add() still holds back: the incomplete character at the very end, if any."""
        piece, _ = utf_8_decode(self._rest, "replace", True)
        self._rest = b""
        return piece


def _byte_letters() -> dict[str, int]:
    """Letter -> byte: printable bytes stand for themselves, the others, in order, for the letters
    from U+0100 on."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(0x100) if byte not in shown]
    return {chr(b): b for b in shown} | {chr(0x100 + i): b for i, b in enumerate(hidden)}


_LETTERS = _byte_letters()
