"""index_topk in plain terms: Python's stable sort, one token at a time."""

import math

import torch


def index_topk(logits: torch.Tensor, visible: torch.Tensor, *, k: int) -> torch.Tensor:
    width = min(k, logits.shape[1])
    rows = []
    for scores, count in zip(logits.tolist(), visible.tolist(), strict=True):
        # (0, 0) for NaN sorts before (1, -score) of any number; equal keys keep index order.
        keys = [(0, 0.0) if math.isnan(s) else (1, -s) for s in scores[:count]]
        best = sorted(range(len(keys)), key=keys.__getitem__)[:width]
        rows.append(sorted(best) + [-1] * (width - len(best)))
    return torch.tensor(rows, dtype=torch.int64, device=logits.device).view(len(rows), width)
