"""Two OpTables side by side: every op of a forward pass also by the reference, on equal inputs.

Where the logits of a model are wrong, this says which op in which layer was wrong first. Both
tables get the inputs of the one that is judged, so an error does not travel on. The reference runs
on the CPU on copies, and keeps each weight unprepared there: a model must fit into that memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from isobath.doctor.whole import PROMPTS, Finding
from isobath.engine.llm import LLM
from isobath.engine.score import score
from isobath.model.load import load
from isobath.ops.contract import Backend
from isobath.ops.measure import judge
from isobath.ops.placement import copied
from isobath.ops.table import OpTable, contract

CPU = torch.device("cpu")
BLOCKS_A_LAYER = 2
"""Calls of hyper_enter in a layer: one before attention, one before the experts."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A weight twice: as the judged backend wants it, and as it was loaded, on the CPU."""

    prepared: Any
    loaded: Any


@dataclass
class Shadow:
    """Owner of what was seen. calls: (layer, op, error, note) of every call; note "" if right."""

    calls: list[tuple[int, str, float, str]] = field(default_factory=list)
    entered: int = 0

    def table(self, judged: OpTable) -> OpTable:
        """`judged` with every op also run by its reference."""
        return OpTable(**{f.name: self._both(getattr(judged, f.name)) for f in fields(OpTable)})

    def _both(self, backend: Backend) -> Backend:
        def prepare(weight: Any) -> Pair:
            loaded = copied({"weight": weight}, CPU)["weight"]
            return Pair(backend.prepare(weight), loaded)

        return Backend(backend.op, f"{backend.name}+reference", self._call(backend), prepare)

    def _call(self, backend: Backend) -> Callable[..., Any]:
        op = contract(backend.op)
        reference, parameters = op.reference(), signature(vars(op.signature)["__call__"])

        def call(*args: Any, **kwargs: Any) -> Any:
            self.entered += op.name == "hyper_enter"
            bound = dict(parameters.bind(None, *args, **kwargs).arguments)
            del bound["self"]
            mine = {n: v.prepared if isinstance(v, Pair) else v for n, v in bound.items()}
            other = {n: v.loaded if isinstance(v, Pair) else v for n, v in bound.items()}
            other = copied(other, CPU)
            result = backend(**mine)
            want = op.observe(reference(**other), other)
            got = {n: t.detach().cpu() for n, t in op.observe(result, mine).items()}
            right, error, note = judge(op, got, want)
            layer = (self.entered - 1) // BLOCKS_A_LAYER
            self.calls.append((layer, op.name, error, "" if right else note))
            return result

        return call


def check_layers(
    path: Path, llm: LLM, *, reproduce: str, table: OpTable | None = None
) -> list[Finding]:
    """A finding for every op of `table` (by default llm's), over all its calls while the first of
    PROMPTS is scored."""
    shadow, device = Shadow(), llm.target.device
    table = shadow.table(table or llm.ops)
    config, weights = load(path, numerics="native", dialect=llm.dialect, device=device, ops=table)
    ids = llm.text.encode(PROMPTS[0])
    score(config, weights, table, device, ids, len(ids))
    names = dict.fromkeys(call[1] for call in shadow.calls)
    return [_finding(name, shadow.calls, reproduce) for name in names]


def _finding(name: str, calls: list[tuple[int, str, float, str]], reproduce: str) -> Finding:
    mine = [call for call in calls if call[1] == name]
    wrong = [call for call in mine if call[3]]
    if wrong:
        layer, _, _, note = wrong[0]
        detail = f"{len(wrong)} of {len(mine)} calls wrong, first in layer {layer}: {note}"
    else:
        detail = f"{len(mine)} calls agree, worst error {max(call[2] for call in mine):.2g}"
    return Finding(f"layers: {name}", not wrong, detail, reproduce)
