"""The same model by the CPU's engine and by this machine's GPU: greedy texts and logits of both.

    python -m isobath.bench.agreement [--model PATH] [--prompts 50] [--tokens 24] [--json PATH]

Each prompt is continued greedily by both engines, the GPU's decode steps through graphs. Exact
numerics (fp32, nothing quantised) have to give equal texts, wherever the best two logits are
further apart than the engines are. Native numerics cannot promise that: where two sums round apart
a code of FP8 flips, a code is 2^-4 of its value, and the next quantisation turns a difference d
into one of sqrt(d) / 4, whose fixed point, 2^-4, a few layers reach from any first bit. So the GPU
is compared with the CPU's own engine from which it differs in one bit: the last of each embedding.
The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from isobath.bench.rows import append
from isobath.engine.llm import BUNDLED, LLM
from isobath.engine.sampling import SamplingParams
from isobath.model.weights import ModelWeights

NAMES = [
    "json",
    "re",
    "os",
    "sys",
    "math",
    "time",
    "random",
    "string",
    "itertools",
    "functools",
    "collections",
    "pathlib",
    "typing",
    "asyncio",
    "socket",
    "ssl",
    "email",
    "html",
    "http",
    "urllib",
    "csv",
    "sqlite3",
    "zlib",
    "gzip",
    "bz2",
    "tarfile",
    "zipfile",
    "pickle",
    "copy",
    "heapq",
    "bisect",
    "array",
    "struct",
    "codecs",
    "datetime",
    "calendar",
    "locale",
    "decimal",
    "fractions",
    "statistics",
    "operator",
    "io",
    "logging",
    "argparse",
    "subprocess",
    "threading",
    "queue",
    "signal",
    "shutil",
    "tempfile",
]
PROMPTS = tuple(f"The {name} module" for name in NAMES)


@dataclass(frozen=True, slots=True)
class Row:
    """Two engines of the same numerics. texts_equal: of `prompts` greedy completions. argmax_equal:
    of `positions`, where both continued the first one's text. worst, mean: relative distance of a
    position's logits. decided: positions where the first engine's best two logits are further apart
    than twice the largest difference of a logit there, so that both must choose alike.
    decided_equal: how many did."""

    bench: str
    numerics: str
    first: str
    second: str
    prompts: int
    texts_equal: int
    positions: int
    argmax_equal: int
    decided: int
    decided_equal: int
    worst: float
    mean: float
    torch: str


def compare(first: LLM, second: LLM, names: tuple[str, str], prompts: int, tokens: int) -> Row:
    """Greedy texts of both, and their logits on the first one's texts."""
    params = SamplingParams(max_tokens=tokens, ignore_eos=True)
    texts = [llm.generate(list(PROMPTS[:prompts]), params) for llm in (first, second)]
    equal = sum(a.token_ids == b.token_ids for a, b in zip(*texts, strict=True))
    far, same, decided, decided_same = [], 0, 0, 0
    for done in texts[0]:
        ids = [*done.prompt_token_ids, *done.token_ids]
        a, b = (llm.score(ids).double().cpu() for llm in (first, second))
        far.append((a - b).norm(dim=-1) / a.norm(dim=-1))
        alike = a.argmax(-1) == b.argmax(-1)
        best = a.topk(2, dim=-1).values
        sure = best[:, 0] - best[:, 1] > 2 * (a - b).abs().amax(-1)
        same += int(alike.sum())
        decided += int(sure.sum())
        decided_same += int((alike & sure).sum())
    distance = torch.cat(far)
    return Row(
        "agreement",
        first.numerics,
        *names,
        prompts,
        equal,
        len(distance),
        same,
        decided,
        decided_same,
        float(distance.max()),
        float(distance.mean()),
        torch.__version__,
    )


class Nudged(LLM):
    """An LLM whose embeddings differ in the last bit of one value of each row."""

    def __init__(self, path: Path, *, numerics: str) -> None:
        super().__init__(path, numerics=numerics, device="cpu")
        config, weights, table, device = self._parts
        self._parts = (config, nudged(weights), table, device)


def nudged(weights: ModelWeights) -> ModelWeights:
    """The weights with the last bit of the first value of each embedding flipped."""
    embed = weights.embed.clone()
    kind = torch.int16 if embed.dtype == torch.bfloat16 else torch.int32
    embed.view(kind)[:, 0] ^= 1
    return replace(weights, embed=embed)


def run(model: Path, prompts: int, tokens: int) -> list[Row]:
    """All comparisons; prints each."""
    rows = []
    for numerics in ("exact", "native"):
        cpu = LLM(model, numerics=numerics, device="cpu")
        pairs: list[tuple[str, LLM]] = [("nudged CPU", Nudged(model, numerics=numerics))]
        if torch.cuda.is_available():
            pairs.append(
                (torch.cuda.get_device_name(), LLM(model, numerics=numerics, device="gpu"))
            )
        for name, other in pairs:
            rows.append(compare(cpu, other, ("CPU", name), prompts, tokens))
            print(line(rows[-1]), flush=True)
    return rows


def line(row: Row) -> str:
    """A row for people."""
    return (
        f"{row.numerics}: CPU and {row.second}: {row.texts_equal} of {row.prompts} texts equal; "
        f"best token equal at {row.argmax_equal} of {row.positions} positions, at "
        f"{row.decided_equal} of {row.decided} decided ones; logits apart {row.mean:.2e} "
        f"(worst {row.worst:.2e})"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, compare, print; the last line of stdout is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m isobath.bench.agreement")
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--json", type=Path, help="append rows to this file")
    options = parser.parse_args(arguments)
    rows = run(options.model, options.prompts, options.tokens)
    append(options.json, rows)
    print(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
