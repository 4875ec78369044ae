"""Inputs for route: those of router as products of x and a gate, padding lanes, both dtypes."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.operands import normal

VOCAB = 11
BF16, FP32 = torch.bfloat16, torch.float32


def make(
    tokens: int,
    num_experts: int,
    k: int,
    hostile: str = "",
    *,
    width: int = 256,
    hashed: bool = False,
    dtype: torch.dtype = BF16,
) -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        x = normal(generator, tokens, width, device=device, dtype=dtype)
        gate = normal(generator, num_experts, width, device=device, std=3 * width**-0.5)
        bias = 8.1 + 0.05 * normal(generator, num_experts, device=device)
        ids = torch.randint(0, VOCAB, (tokens,), generator=generator).to(device)
        ids[:2] = torch.tensor([0, VOCAB - 1])[:tokens]
        if hostile == "all_tied":
            gate.zero_(), bias.fill_(8.1)
        elif hostile == "pairs_tied":
            gate[1::2], bias[1::2] = gate[0::2], bias[0::2]
        elif hostile == "bias_decides":  # the k highest scores lose to the k highest biases
            bias[-k:] += 100
        elif hostile == "extremes":  # logits of -40 and 40; e^-40 is still a normal float32
            x.zero_(), gate.zero_()
            x[:, 0], gate[0::2, 0], gate[1::2, 0] = 1.0, -40.0, 40.0
        elif hostile == "nan":
            x[0, 1] = float("nan")
        elif hostile == "padding":  # poisoned lanes, the first and the last
            ids[0], ids[-1] = -1, -1
            x[0], x[-1] = float("nan"), float("inf")
        chosen = {"bias": bias, "table": None}
        if hashed:
            order = torch.rand(VOCAB, num_experts, generator=generator).argsort(-1)
            chosen = {"bias": None, "table": order[:, :k].contiguous().to(device)}
        return {
            "x": x,
            "gate": gate.to(dtype),
            "token_ids": ids,
            "k": k,
            "scale": 1.5,
            **chosen,
        }

    return build


CASES = (
    Case("empty", make(0, 16, 4)),
    Case("one", make(1, 16, 4)),
    Case("ragged", make(5, 24, 6)),
    Case("tall", make(67, 16, 4)),
    Case("odd_experts", make(7, 13, 3)),
    Case("odd_width", make(5, 16, 4, width=200)),
    Case("flash", make(5, 256, 6, width=512)),
    Case("all_experts", make(3, 4, 4)),
    Case("all_tied", make(3, 16, 4, "all_tied")),
    Case("pairs_tied", make(5, 16, 3, "pairs_tied")),
    Case("bias_decides", make(3, 16, 4, "bias_decides")),
    Case("extremes", make(3, 16, 4, "extremes")),
    Case("nan_in", make(3, 16, 4, "nan")),
    Case("padding", make(5, 16, 4, "padding")),
    Case("exact", make(5, 16, 4, dtype=FP32)),
    Case("exact_padding", make(5, 16, 4, "padding", dtype=FP32)),
    Case("hash_empty", make(0, 16, 4, hashed=True)),
    Case("hash_one", make(1, 16, 4, hashed=True)),
    Case("hash_ragged", make(13, 16, 6, hashed=True)),
    Case("hash_extremes", make(3, 16, 4, "extremes", hashed=True)),
    Case("hash_padding", make(5, 16, 4, "padding", hashed=True)),
)
