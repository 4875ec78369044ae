"""Inputs for router: learned and hashed, ties, biases that swallow a score's last bits, NaN."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.operands import normal

VOCAB = 11


def make(tokens: int, num_experts: int, k: int, hostile: str = "", *, hashed: bool = False) -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        logits = normal(generator, tokens, num_experts, device=device, std=3.0)
        bias = 8.1 + 0.05 * normal(generator, num_experts, device=device)
        if hostile == "all_tied":
            logits.zero_(), bias.fill_(8.1)
        elif hostile == "pairs_tied":
            logits[:, 1::2], bias[1::2] = logits[:, 0::2], bias[0::2]
        elif hostile == "bias_decides":  # the k highest scores lose to the k highest biases
            bias[-k:] += 100
        elif hostile == "extremes":  # e^-40 is still a normal float32
            logits[:, 0::2], logits[:, 1::2] = -40.0, 40.0
        elif hostile == "nan":
            logits[0, 1] = float("nan")
        chosen = {"bias": bias, "table": None, "token_ids": None}
        if hashed:
            order = torch.rand(VOCAB, num_experts, generator=generator).argsort(-1)
            ids = torch.randint(0, VOCAB, (tokens,), generator=generator)
            ids[:2] = torch.tensor([0, VOCAB - 1])[:tokens]
            table = order[:, :k].contiguous().to(device)
            chosen = {"bias": None, "table": table, "token_ids": ids.to(device)}
        return {"logits": logits, "k": k, "scale": 1.5, **chosen}

    return build


CASES = (
    Case("empty", make(0, 16, 4)),
    Case("one", make(1, 16, 4)),
    Case("ragged", make(5, 24, 6)),
    Case("tall", make(67, 16, 4)),
    Case("odd_experts", make(7, 13, 3)),
    Case("flash", make(5, 256, 6)),
    Case("all_experts", make(3, 4, 4)),
    Case("all_tied", make(3, 16, 4, "all_tied")),
    Case("pairs_tied", make(5, 16, 3, "pairs_tied")),
    Case("bias_decides", make(3, 16, 4, "bias_decides")),
    Case("extremes", make(3, 16, 4, "extremes")),
    Case("nan_in", make(3, 16, 4, "nan")),
    Case("hash_empty", make(0, 16, 4, hashed=True)),
    Case("hash_one", make(1, 16, 4, hashed=True)),
    Case("hash_ragged", make(13, 16, 6, hashed=True)),
    Case("hash_extremes", make(3, 16, 4, "extremes", hashed=True)),
)
