"""Inputs for index_topk: ties at the edge of the selection, NaN, infinities, fewer than k."""

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Case, Make


def make(tokens: int, count: int, k: int, hostile: str = "") -> Make:
    def build(dialect: Dialect, device: torch.device, generator: torch.Generator) -> Arguments:
        logits = torch.randn(tokens, count, generator=generator)
        visible = torch.randint(0, count + 1, (tokens,), generator=generator)
        visible[:1] = count
        visible[1:2] = 0
        if hostile == "ties":
            logits = logits.round()
            logits[logits == 0] *= -1  # some zeros are negative: they tie with the others
        elif hostile == "all_equal":
            logits[:] = 0
        elif hostile == "nan":
            logits[0, ::5] = torch.nan
            logits[2, 1] = -torch.tensor(torch.nan)
            logits[2, 3] = torch.inf
        elif hostile == "infinite":  # a visible -inf still beats what is not visible
            logits[0, ::2] = -torch.inf
            logits[2:] = -torch.inf
            logits[2:, 1] = torch.inf
        hidden = torch.arange(count) >= visible.unsqueeze(1)
        if hostile != "poison":
            logits[hidden] = -torch.inf
        else:
            logits[hidden] = torch.nan
        return {"logits": logits.to(device), "visible": visible.to(device), "k": k}

    return build


CASES = (
    Case("empty", make(0, 16, 4)),
    Case("no_entries", make(3, 0, 4)),
    Case("one", make(1, 1, 4)),
    Case("fewer_than_k", make(5, 7, 64)),
    Case("exactly_k", make(5, 64, 64)),
    Case("one_more_than_k", make(5, 65, 64)),
    Case("ragged", make(13, 301, 64)),
    Case("real", make(3, 2100, 512)),
    Case("two_levels", make(3, 20_000, 64)),
    Case("two_levels_ties", make(3, 17_000, 512, "ties")),
    Case("ties", make(9, 200, 32, "ties")),
    Case("all_equal", make(4, 130, 64, "all_equal")),
    Case("nan_in", make(5, 60, 8, "nan")),
    Case("infinite", make(6, 60, 40, "infinite")),
    Case("poisoned_hidden", make(9, 100, 16, "poison")),
)
