"""Ops against their pass marks at the marks' sizes, most of them a decode step of 1,024 sequences.

    python -m isobath.bench.marks [--op NAME] [--json PATH]

V4-Flash's widths and, as in vLLM's figures, tokens at positions 570 to 850. Every backend of an op
is first held against the reference, on a few rows where all would take too long: a wrong one has no
time. A time is that of one call replayed from a graph with cold caches. Bytes and operations are
the least that the contract lets a call do; a share of bytes is of this machine's own copy rate. The
routed experts and the whole layer have benchmarks of their own. The last line of stdout is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from isobath.bench.decode_layer import CONTEXTS, KINDS, layer_mean
from isobath.bench.rows import append
from isobath.cache.pool import PAGE_TOKENS
from isobath.config import ModelConfig
from isobath.ops.attend.cases import Raw
from isobath.ops.ceilings import copy_rate
from isobath.ops.collect import collect
from isobath.ops.contract import Arguments, Backend, Case, Make
from isobath.ops.fp8_linear import cases as fp8_linear
from isobath.ops.hyper_enter import cases as hyper_enter
from isobath.ops.index_logits import cases as index_logits
from isobath.ops.latent_insert import cases as latent_insert
from isobath.ops.measure import Subject, expected, judge, time_subject
from isobath.ops.query_norm_rope import cases as query_norm_rope
from isobath.ops.sparse_attention.cases import Inputs
from isobath.ops.table import contract
from isobath.plan import flash_config
from isobath.target import Target, detect

TOKENS, PREFILL, LONG = 1024, 8192, ((1024, 4096), (64, 16384))
"""Tokens of a decode step, of a prefill; sequences and context of steps over long contexts: the
engine scores entries only where there are more than index_topk."""
ATTENTION_US = 156.0
"""Sparse decode in the mean over the layers; the other goals stand in marks()."""
JUDGED, BUDGET_S, SEED = 4, 0.1, 20261127

Unit = Literal["us", "of copy", "TFLOP/s"]


@dataclass(frozen=True, slots=True)
class Mark:
    """What an op must reach on `make`'s arguments: at most so many us, at least so much of the rest
    (goals[backend], or goals[""] for each that it does not name). No goals: only shown."""

    op: str
    what: str
    make: Make
    unit: Unit
    goals: dict[str, float] = field(default_factory=dict)

    def goal(self, backend: str) -> float | None:
        return self.goals.get(backend, self.goals.get(""))


@dataclass(frozen=True, slots=True)
class Row:
    """One backend on one mark. value: in `unit`, as goal is. error: against the reference, in the
    unit of the op's agreement."""

    bench: str
    op: str
    backend: str
    what: str
    us: float
    value: float
    unit: Unit
    goal: float | None
    error: float
    device: str
    torch: str

    @property
    def reached(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value <= self.goal if self.unit == "us" else self.value >= self.goal

    def __str__(self) -> str:
        text = f"{self.op:15} {self.backend:10} {self.what:18} {self.us:8.1f} us"
        text += "" if self.unit == "us" else f" = {_shown(self.value, self.unit)}"
        if self.goal is not None:
            said = "reached" if self.reached else "missed"
            text += f", {said}: {_shown(self.goal, self.unit)}"
        return text


def marks(config: ModelConfig, tokens: int = TOKENS) -> list[Mark]:
    """Every mark, for steps of so many sequences."""
    draw = torch.Generator().manual_seed(SEED)
    low, high = CONTEXTS
    positions = torch.randint(low, high + 1, (tokens,), generator=draw).tolist()
    hidden, heads = config.hidden_size, config.num_attention_heads
    latent, joined = config.q_lora_rank, config.o_groups * config.o_lora_rank
    width, rope = config.head_dim, config.qk_rope_head_dim
    found = [Mark("hyper_enter", "", hyper_enter.make(tokens, hidden), "us", {"": 25})]
    for ratio, kind in KINDS.items():
        topk = config.index_topk if ratio == 4 else 0
        page_rows = PAGE_TOKENS // ratio if ratio else 1
        inputs = Inputs(
            tuple((p, 1) for p in positions), ratio, topk, heads, width, rope,
            config.sliding_window, page_rows,
        )  # fmt: skip
        found.append(Mark("attend", kind, Raw(inputs), "us"))
    share: dict[str, float] = {"": 0.6}
    for count in (tokens, PREFILL):
        row = latent_insert.make(count, latent, width, rope)
        found.append(Mark("latent_insert", f"{count} tokens", row, "of copy", share))
    queries = query_norm_rope.make(tokens, heads, width, rope)
    found.append(Mark("query_norm_rope", f"{tokens} tokens", queries, "of copy", share))
    scored = partial(index_logits.make, heads=config.index_n_heads, width=config.index_head_dim)
    page_rows = PAGE_TOKENS // 4
    for what, seen in (
        (f"{tokens} of {low}-{high}", tuple((p + 1) // 4 for p in positions)),
        *((f"{count} of {context}", (context // 4,) * count) for count, context in LONG),
    ):
        make = scored((1,) * len(seen), seen, page_rows=page_rows)
        found.append(Mark("index_logits", what, make, "of copy", share))
    rate = {"": 700.0, "cublas": 1000.0}
    for what, n, k in (
        ("wq_b", heads * config.head_dim, latent),
        ("wo_b", hidden, joined),
        ("shared gate_up", 2 * config.moe_intermediate_size, hidden),
    ):
        product = fp8_linear.make(tokens, n, k)
        found.append(Mark("fp8_linear", what, product, "TFLOP/s", rate))
    return found


def run(target: Target, wanted: Sequence[Mark]) -> list[Row]:
    """Judge and time every backend that this machine loads on every mark; prints as it goes."""
    copy = copy_rate(target.device)
    print(f"{target.name}: copies {copy / 1e12:.2f} TB/s", flush=True)
    rows = []
    for mark in wanted:
        for backend in backends(mark.op, target):
            rows.append(measure(mark, backend, target, copy))
            print(rows[-1], flush=True)
    means = attention_means(rows)
    for row in means:
        print(row, flush=True)
    return rows + means


def backends(op: str, target: Target) -> list[Backend]:
    """Those that `isobath bench ops` measures on this machine."""
    return list({s.backend.name: s.backend for s in collect(target, op).subjects}.values())


@torch.inference_mode()
def measure(mark: Mark, backend: Backend, target: Target, copy: float) -> Row:
    """Raises AssertionError with the first difference where the backend is wrong."""
    op = contract(mark.op)
    case = Case(mark.what, mark.make, large=target.kind != "cpu")
    subject = Subject(op, backend, case, target.dialect, target.device)
    error = _judged(subject)
    timing = time_subject(subject, replay=target.kind != "cpu", budget_s=BUDGET_S)
    assert op.work is not None, f"{op.name} does not say what a call must do"
    work = op.work(subject.build())
    value = {
        "us": timing.median,
        "of copy": work.nbytes / copy / timing.median * 1e6,
        "TFLOP/s": work.flops / timing.median / 1e6,
    }[mark.unit]
    return Row("marks", op.name, backend.name, mark.what, timing.median, value, mark.unit,
               mark.goal(backend.name), error, target.name, torch.__version__)  # fmt: skip


def _judged(subject: Subject) -> float:
    """The worst error of the whole call, or of its JUDGED rows where rows can be had alone."""
    op = subject.op
    got = subject.observe(subject.prepared(subject.build()))
    if op.select is None:
        want = expected(subject)
    else:
        count = min(len(t) for t in got.values())
        rows = sorted({i * (count - 1) // max(JUDGED - 1, 1) for i in range(JUDGED)})
        some: Arguments = op.select(subject.build(subject.judged_on), rows)
        got = {name: t[rows] for name, t in got.items()}
        want = dict(op.observe(op.reference()(**some), some))
    right, worst, note = judge(op, got, want)
    assert right, f"{op.name}/{subject.backend.name}, {subject.case.name}: {note}"
    return worst


def _shown(value: float, unit: Unit) -> str:
    return f"{100 * value:.0f} % of copy" if unit == "of copy" else f"{value:.1f} {unit}"


def attention_means(rows: Sequence[Row]) -> list[Row]:
    """A row for each backend that has every kind: its mean over the model's layers, worst error."""
    found = []
    for backend in dict.fromkeys(row.backend for row in rows if row.op == "attend"):
        mine = [row for row in rows if row.op == "attend" and row.backend == backend]
        us = layer_mean({row.what: row.us for row in mine})
        if us is not None:
            error = max(row.error for row in mine)
            mean = replace(mine[0], what="mean of layers", us=us, value=us, error=error)
            found.append(replace(mean, goal=ATTENTION_US))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print; the last line of stdout is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m isobath.bench.marks")
    parser.add_argument("--op", help="only this op's marks")
    parser.add_argument("--json", type=Path, help="append rows to this file")
    options = parser.parse_args(arguments)
    wanted = [mark for mark in marks(flash_config()) if options.op in (None, mark.op)]
    rows = run(detect("gpu"), wanted)
    append(options.json, rows)
    print(json.dumps({"rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
