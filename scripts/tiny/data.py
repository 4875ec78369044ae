"""Tokens for training: encode the corpus once, then draw rows from it.

Documents are joined as BOS text EOS and cut into rows. Three rows in four tile the token stream, at
an offset that changes every pass; one row in four starts at a document's BOS, because that is where
every prompt starts. Attention is not cut at document borders inside a row. Order and offsets depend
on the seed and the step alone, so a resumed run sees the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizer import load_documents
from tokenizers import Tokenizer

BOS, EOS = 0, 1


def encode(corpus: Path, tokenizer_json: Path, cache: Path | None = None) -> np.ndarray:
    """All documents of a corpus file as one uint16 stream; `cache` is written on the first call."""
    if cache is not None and cache.exists():
        return np.load(cache)
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    texts = load_documents(corpus)
    parts: list[np.ndarray] = []
    for start in range(0, len(texts), 2048):
        for item in tokenizer.encode_batch_fast(
            texts[start : start + 2048], add_special_tokens=False
        ):
            parts.append(np.array([BOS, *item.ids, EOS], dtype=np.uint16))
    stream = np.concatenate(parts)
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.save(cache, stream)
    return stream


def text_bytes(corpus: Path) -> int:
    """UTF-8 bytes of all documents: the denominator of bits per byte."""
    return sum(len(text.encode()) for text in load_documents(corpus))


@dataclass
class Rows:
    """Draws batches of `batch` rows of `length` + 1 tokens from a stream kept on the device."""

    stream: torch.Tensor
    batch: int
    length: int
    seed: int

    def __post_init__(self) -> None:
        self.starts = (self.stream[: -self.length - 1] == BOS).nonzero().flatten()
        self.tiled = self.batch - self.batch // 4
        self.per_pass = (self.stream.numel() - 2 * self.length - 1) // (self.tiled * self.length)
        self._pass = -1
        self._order = torch.empty(0, dtype=torch.long)

    def at(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets [batch, length], int64, of one step."""
        number, within = divmod(step, self.per_pass)
        device = self.stream.device
        if number != self._pass:
            generator = torch.Generator().manual_seed(self.seed * 1000 + number)
            offset = int(torch.randint(self.length, (), generator=generator))
            order = torch.randperm(self.per_pass * self.tiled, generator=generator)
            self._order, self._pass = (order * self.length + offset).to(device), number
        tiles = self._order[within * self.tiled : (within + 1) * self.tiled]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        pick = torch.randint(self.starts.numel(), (self.batch - self.tiled,), generator=generator)
        first = torch.cat((tiles, self.starts[pick.to(device)]))
        rows = self.stream[first.unsqueeze(1) + torch.arange(self.length + 1, device=device)].long()
        return rows[:, :-1], rows[:, 1:]


def held_out_rows(stream: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The stream cut into rows, every token predicted once; the tail is padded and ignored."""
    count = -(-(stream.numel() - 1) // length)
    padded = torch.nn.functional.pad(
        stream.long(), (0, count * length + 1 - stream.numel()), value=-100
    )
    inputs, targets = padded[:-1].view(count, length), padded[1:].view(count, length)
    return inputs.clamp_min(0), targets
