"""Counting the least that a call must do, for contracts' `work`: bytes once each, products."""

from __future__ import annotations

import math
from typing import Any

import torch

from isobath.cache.view import CacheView, Pages
from isobath.ops.contract import Arguments, Work
from isobath.ops.placement import tensors


def nbytes(*values: Any) -> int:
    """Bytes of every tensor in `values`. A quantised operand's float source is not one of them."""
    found = 0
    for value in values:
        source = getattr(value, "source", None)
        found += sum(t.numel() * t.element_size() for t in tensors(value) if t is not source)
    return found


def product(tokens: int, outputs: int, inputs: int) -> int:
    """Operations of a matrix product [tokens, inputs] x [inputs, outputs]."""
    return 2 * tokens * outputs * inputs


def streamed(args: Arguments, *outputs: tuple[tuple[int, ...], int]) -> Work:
    """Of an op that reads its arguments and writes tensors of these (shape, element bytes)."""
    return Work(nbytes(args) + sum(math.prod(shape) * size for shape, size in outputs))


def rows_of(cache: CacheView | None, rows: int) -> int:
    """Bytes of so many rows of a cache."""
    return rows * cache.layout.row_bytes if cache is not None else 0


def attended(args: Arguments) -> Work:
    """Of attention over `window` and `compressed`; a row that several tokens attend counts once
    a token, for a decode step has one token a sequence."""
    q: torch.Tensor = args["q"]
    near = int((args["window_rows"] >= 0).sum())
    far = 0
    if args["selected"] is not None:
        far = int((args["selected"] >= 0).sum())
    elif args["visible"] is not None:
        far = int(args["visible"].sum())
    moved = rows_of(args["window"], near) + rows_of(args["compressed"], far) + 2 * nbytes(q)
    return Work(moved, 4 * (near + far) * q.shape[1] * q.shape[2])


def scored(args: Arguments) -> Work:
    """Of the indexer's logits: every visible entry of a token is read and multiplied by each head,
    every place of a row of logits written."""
    q, pages, visible = args["q"], args["pages"], int(args["visible"].sum())
    assert isinstance(pages, Pages)
    written = 4 * len(q) * pages.capacity
    moved = rows_of(args["cache"], visible) + nbytes(q, args["weights"]) + written
    is_fp8 = q.element_size() == 1
    return Work(moved, 2 * visible * q.shape[1] * q.shape[2], is_fp8)
