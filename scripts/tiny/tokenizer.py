"""Train isobath-tiny's tokenizer: byte-level BPE with 4096 entries, DeepSeek-V4's control tokens
included by name.

Owns `tokenizer.json` and `tokenizer_config.json` of the model folder. The control tokens come
first, so BOS is 0 and EOS is 1 as in the published model; then the 256 bytes; then merges. Only BOS
and EOS are flagged special, as there: the others survive `skip_special_tokens`. Digits are split
one by one, which 4096 entries can afford least to waste on numbers. Every byte string survives a
round trip; `main` checks that on the held-out text.

    python scripts/tiny/tokenizer.py --corpus .train --out isobath/models/isobath_tiny
"""

from __future__ import annotations

import argparse
import json
import lzma
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 4096
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
CONTROL = [
    "<｜▁pad▁｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<think>",
    "</think>",
    "｜DSML｜",
    "<｜latest_reminder｜>",
    "<｜action｜>",
    "<｜query｜>",
    "<｜authority｜>",
    "<｜domain｜>",
    "<｜title｜>",
    "<｜read_url｜>",
]
# A word with its leading space, digits alone, runs of punctuation, indentation kept apart from the
# word after it.
_SPLIT = r"\d| ?[^\s\d\p{P}\p{S}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def load_documents(path: Path, limit_bytes: int | None = None) -> list[str]:
    """Read a corpus file: documents separated by NUL."""
    with lzma.open(path) as handle:
        data = handle.read() if limit_bytes is None else handle.read(limit_bytes)
    return data.decode("utf-8", "ignore").split("\0")


def train(texts: list[str]) -> Tokenizer:
    """Train the BPE on `texts` and return it with control tokens in place."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[BOS, EOS, *CONTROL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The trainer flags all of them special; only BOS and EOS are.
    body = json.loads(tokenizer.to_str())
    for entry in body["added_tokens"]:
        entry["special"] = entry["content"] in (BOS, EOS)
    return Tokenizer.from_str(json.dumps(body))


def write(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))

    def token(content: str) -> dict[str, object]:
        return {
            "__type": "AddedToken",
            "content": content,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
        }

    config = {
        "add_bos_token": False,
        "add_eos_token": False,
        "bos_token": token(BOS),
        "eos_token": token(EOS),
        "pad_token": token(CONTROL[0]),
        "clean_up_tokenization_spaces": False,
        "legacy": True,
        "model_max_length": 8192,
        "sp_model_kwargs": {},
        "unk_token": None,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tokenizer of isobath-tiny.")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--limit-mb", type=int, default=60, help="train on the first part of the corpus"
    )
    args = parser.parse_args()
    tokenizer = train(load_documents(args.corpus / "train.txt.xz", args.limit_mb << 20))
    write(tokenizer, args.out)
    assert tokenizer.get_vocab_size() == VOCAB_SIZE, tokenizer.get_vocab_size()
    assert tokenizer.token_to_id(BOS) == 0 and tokenizer.token_to_id(EOS) == 1
    held = [
        *load_documents(args.corpus / "heldout.txt.xz"),
        "".join(map(chr, range(1, 12288))),
        "  a\t\n\n b  ",
    ]
    ids = [e.ids for e in tokenizer.encode_batch(held, add_special_tokens=False)]
    wrong = sum(
        tokenizer.decode(i, skip_special_tokens=False) != t for i, t in zip(ids, held, strict=True)
    )
    size = sum(len(t.encode()) for t in held)
    print(
        f"round trip wrong: {wrong} of {len(held)}; {size / sum(map(len, ids)):.3f} bytes per token"
    )


if __name__ == "__main__":
    main()
