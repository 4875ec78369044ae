"""Sample from the exported checkpoint with transformers, as a check from outside the engine.

Decodes the file's weights to float32, puts them into `DeepseekV4ForCausalLM` and generates on the
CPU. What it prints is what the model card shows. With `--check` it compares transformers' logits
with the training forward's instead.

    python scripts/tiny/sample.py --model isobath/models/isobath_tiny
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from export import decode_file
from fastpath import FastForward
from quant import published_name, stored_as
from shape import hf_config
from tokenizers import Tokenizer
from transformers import DeepseekV4ForCausalLM

PROMPTS = (
    "The `with` statement is used to",
    "def read_lines(path):\n",
    "A transaction is a sequence of",
    "class Stack:\n    ",
    "To install the package, run",
    "<｜User｜>What is a list comprehension?<｜Assistant｜></think>",
    "<｜User｜>Write a Python function `gcd`. Return the greatest common divisor of a and b."
    "<｜Assistant｜></think>",
)


@torch.no_grad()
def load(folder: Path) -> DeepseekV4ForCausalLM:
    """A float32 transformers model holding the file's decoded weights."""
    decoded = decode_file(folder)
    model = DeepseekV4ForCausalLM(hf_config()).float().eval()
    state = dict(model.named_parameters()) | {
        n: b for n, b in model.named_buffers() if n.endswith(("tid2eid", "e_score_correction_bias"))
    }
    for name, target in state.items():
        new = published_name(name)
        if stored_as(name) != "mxfp4":
            target.copy_(decoded[new])
            continue
        stem = new.rsplit(".", 1)[0]
        for expert in range(target.shape[0]):
            parts = ("w2",) if new.endswith("down_proj") else ("w1", "w3")
            target[expert] = torch.cat([decoded[f"{stem}.{expert}.{p}.weight"] for p in parts])
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Sample from isobath-tiny with transformers.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    model = load(args.model)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    if args.check:
        text = (args.model / "tokenizer.json").read_text()[:4000] + __doc__ * 4
        ids = torch.tensor([[0, *tokenizer.encode(text).ids][:1024]])
        ids = ids[:, : ids.shape[1] // 128 * 128]
        with torch.no_grad():
            theirs = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            ours = FastForward(model, torch.float32, compiled=False).logits(ids)
        gap, same = (theirs - ours).abs(), (theirs.argmax(-1) == ours.argmax(-1)).float().mean()
        print(f"{ids.shape[1]} tokens: largest gap {gap.max():.2e} of logits to "
              f"{theirs.abs().max():.1f}, argmax equal {same:.4f}")  # fmt: skip
        return
    for prompt in PROMPTS:
        torch.manual_seed(0)
        ids = torch.tensor([[0, *tokenizer.encode(prompt, add_special_tokens=False).ids]])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=args.tokens,
            do_sample=True, temperature=args.temperature, top_p=0.95, top_k=0,
            eos_token_id=1, pad_token_id=2,
        )  # fmt: skip
        print(f"=== {tokenizer.decode(out[0].tolist(), skip_special_tokens=False)}\n", flush=True)


if __name__ == "__main__":
    main()
