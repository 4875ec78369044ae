"""Inputs for latent_insert: window_insert's rows behind a query latent."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Make
from isobath.ops.operands import normal, uniform
from isobath.ops.window_insert.cases import make as make_window


def make(
    tokens: int,
    latent: int = 256,
    width: int = 512,
    rope: int = 64,
    *,
    plain: bool = False,
    padded: int = 0,
    hostile: str = "",
) -> Make:
    """hostile: of the row, as in window_insert, or "nan_latent". plain: fp32, not quantised."""

    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        of_row = "" if hostile == "nan_latent" else hostile
        window = make_window(tokens, width, rope, plain=plain, padded=padded, hostile=of_row)
        args = window(dialect, device, generator)
        kv = args.pop("kv")
        low = normal(generator, tokens, latent, device=device, dtype=kv.dtype)
        if hostile == "zero":
            low[:, :128], low[0] = 0, 0
        elif hostile == "nan_latent":
            low[0, 3] = torch.nan
        return args | {
            "qa_kv": torch.cat((low, kv), 1),
            "q_norm": (uniform(generator, latent, device=device) + 0.5).to(kv.dtype),
            "kv_norm": args.pop("norm_weight"),
            "dialect": None if plain else dialect,
        }

    return build


CASES = (
    Case("empty", make(0)),
    Case("one", make(1)),
    Case("ragged", make(7)),
    Case("tall", make(131, 128)),
    Case("flash", make(3, 1024)),
    Case("flash_prefill", make(1024, 1024), small=False, large=True),
    Case("small", make(5, 128, 64, 16)),
    Case("plain", make(5, plain=True)),
    Case("plain_small", make(3, 96, 64, 16, plain=True)),
    Case("padded", make(6, padded=3)),
    Case("all_padding", make(3, padded=3)),
    Case("plain_padded", make(6, plain=True, padded=2)),
    Case("zero_block", make(3, hostile="zero")),
    Case("amax_edge", make(3, hostile="edge")),
    Case("nan_row", make(3, hostile="nan")),
    Case("nan_latent", make(3, hostile="nan_latent")),
    Case("far", make(7, padded=1), far=True),
)
