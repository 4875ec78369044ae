"""Text to token ids and back, with the tokenizer.json that lies in a checkpoint's folder.

Special tokens are looked up by name, never by number. A prompt gets one BOS, and keeps the one it
already has. `Detokenizer` turns a growing list of tokens into text without ever splitting a UTF-8
character that spans tokens.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from isobath.errors import CorruptCheckpoint, RequestError

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"


class Text:
    """A checkpoint's tokenizer. Raises CorruptCheckpoint when the file is missing or unreadable."""

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

    def token_id(self, name: str) -> int:
        """Id of a token by its name. Raises RequestError for an unknown one."""
        found: int | None = self._tokenizer.token_to_id(name)
        if found is None:
            raise RequestError(f"token {name!r}: not in this tokenizer", do="check the checkpoint")
        return found

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, beginning with exactly one BOS."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids if ids[:1] == [self.bos] else [self.bos, *ids]

    def decode(self, ids: list[int]) -> str:
        """Text of `ids` without BOS and EOS; bytes that are no UTF-8 become U+FFFD."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text


class Detokenizer:
    """Text of one growing sequence, piece by piece; the pieces joined are decode() of the whole."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._ids: list[int] = []
        self._begin = 0  # tokens before this one cannot influence what is still to come
        self._sent = 0  # tokens before this one have been returned as text

    def add(self, token: int) -> str:
        """The text that `token` completes; empty while it ends inside a character."""
        self._ids.append(token)
        before = self._text.decode(self._ids[self._begin : self._sent])
        after = self._text.decode(self._ids[self._begin :])
        if len(after) <= len(before) or after.endswith("\ufffd"):
            return ""
        self._begin, self._sent = self._sent, len(self._ids)
        return after[len(before) :]

    def finish(self) -> str:
        """What add() still holds back: the incomplete character at the very end, if any."""
        before = self._text.decode(self._ids[self._begin : self._sent])
        return self._text.decode(self._ids[self._begin :])[len(before) :]
