"""OpTable: one bound backend an op, chosen once at start and passed down as an argument.

The model asks no question about machines or backends; it calls `ops.fp8_linear(...)`. The CPU
engine, a GPU engine and the all-reference engine are the same model with another table.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from isobath.errors import ConfigError
from isobath.ops.contract import Backend, Op

PARTS: tuple[str, ...] = (
    "hyper_mix",
    "hyper_collapse",
    "quantize_act",
    "rms_norm",
    "window_insert",
    "query_norm_rope",
    "sparse_attention",
    "grouped_linear",
    "route",
    "router",
    "shared_expert",
    "experts",
    "swiglu",
)
"""Ops with contract, reference and cases that the model does not call: parts of fused ones."""


@dataclass(frozen=True, slots=True)
class OpTable:
    """The ops of a forward pass in the order in which a token meets them; a decode step begins with
    its metadata."""

    decode_metadata: Backend
    embed: Backend
    hyper_enter: Backend
    attention_in: Backend
    fp8_linear: Backend
    linear: Backend
    latent_insert: Backend
    compress_insert: Backend
    compress_insert_pair: Backend
    index_query: Backend
    index_logits: Backend
    index_topk: Backend
    attend: Backend
    grouped_project: Backend
    moe: Backend
    hyper_expand: Backend
    hyper_head: Backend

    def __iter__(self) -> Iterator[Backend]:
        return (getattr(self, f.name) for f in fields(self))


def contract(name: str) -> Op:
    """The contract of the op called `name`. Raises ConfigError for an unknown one."""
    if name not in op_names():
        raise ConfigError(f"no op is called {name!r}", found=", ".join(op_names()))
    op: Op = importlib.import_module(f"isobath.ops.{name}").OP
    assert op.name == name, (op.name, name)
    return op


def table_names() -> tuple[str, ...]:
    """Names of the ops that the model calls, in the order of the table."""
    return tuple(f.name for f in fields(OpTable))


def op_names() -> tuple[str, ...]:
    """Names of all ops: those of the table in its order, then PARTS."""
    return table_names() + PARTS


def bind(default: str, overrides: Mapping[str, str] | None = None) -> OpTable:
    """Bind every op to the backend `default`, those in `overrides` (op -> backend) to theirs.

    Raises ConfigError for an unknown op or a part, BackendUnavailable for a backend that an op
    lacks or that cannot be loaded.
    """
    choices = dict(overrides or {})
    names = table_names()
    for name in choices:
        if contract(name).name not in names:
            raise ConfigError(
                f"bind({name}={choices[name]!r})",
                found=f"{name} is only a part of other ops",
                effect="the model never calls it, so the choice would have none",
                do=f"bind one of {', '.join(names)}",
            )
    return OpTable(**{n: contract(n).backend(choices.get(n, default)) for n in names})
