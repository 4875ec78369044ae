"""What a structure costs a token, on this CPU: microseconds of following the grammar and its mask.

    python -m isobath.bench.structure [--tokenizer FOLDER] [--repeat 20]

The engine's own path (Constraint.accept: matcher, mask, bits) along fixed texts that are of their
structures: a nested JSON object, a DSML call. Compiling is timed apart, import and vocabulary
once a backend. --tokenizer: a folder with a tokenizer.json; the bundled model's by default, whose
4,096 tokens are a 32nd of V4-Flash's. The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from isobath.engine.constraint import Constraint
from isobath.engine.grammar import BACKENDS, Backend
from isobath.engine.grammar_vocabulary import Vocabulary, vocabulary_of
from isobath.engine.llm import BUNDLED
from isobath.engine.structure import Structure
from isobath.model.text import Text

_PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["new", "old", "paid"]}},
        "address": {"type": "object", "properties": {"street": {"type": "string"}}},
    },
    "required": ["name", "age"],
}
_JSON = (
    '{"name": "Grace Brewster Hopper", "age": 85, "tags": ["old", "paid"], '
    '"address": {"street": "17 Compiler Lane, apartment \\"COBOL\\", Arlington"}}'
)
_CALL = (
    '\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="add">\n'
    '<｜DSML｜parameter name="name" string="true">Grace Brewster Hopper</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="age" string="false">85</｜DSML｜parameter>\n'
    "</｜DSML｜invoke>\n</｜DSML｜tool_calls>"
)
CASES = {
    "json": (Structure.json_schema(_PERSON), _JSON),
    "call": (Structure.tools([{"name": "add", "parameters": _PERSON}]), _CALL),
}


@dataclass(frozen=True, slots=True)
class Row:
    """load_s: import and the vocabulary's tables. compile_ms: of the structure. us: a token,
    median; us_max: the slowest place, median of its repetitions."""

    backend: str
    case: str
    vocabulary: int
    tokens: int
    load_s: float
    compile_ms: float
    us: float
    us_max: float


def run(text: Text, repeat: int, say: Callable[[str], None]) -> list[Row]:
    """Every backend on every case, in turn."""
    vocabulary = vocabulary_of(text, text.vocab_size)
    rows = []
    for module, kind in BACKENDS.values():
        begin = time.perf_counter()
        backend: Backend = getattr(import_module(module), kind)(vocabulary)
        load = time.perf_counter() - begin
        for case in CASES:
            rows.append(_row(backend, case, vocabulary, text, load, repeat))
            say(
                "{backend:9} {case:5} {us:8.1f} us a token, at most {us_max:8.1f}".format(
                    **asdict(rows[-1])
                )
            )
    return rows


def _row(
    backend: Backend, case: str, vocabulary: Vocabulary, text: Text, load: float, repeat: int
) -> Row:
    structure, written = CASES[case]
    tokens = text.encode(written, bos=False)
    begin = time.perf_counter()
    grammar = backend.compile(structure)
    compiled = time.perf_counter() - begin
    times: list[list[float]] = [[] for _ in tokens]
    for _ in range(repeat):
        calls = structure.kind == "tools"
        constraint = Constraint(grammar, vocabulary, reasoning=False, calls=calls)
        for token, taken in zip(tokens, times, strict=True):
            assert constraint.allowed[token], (backend.name, case, text.token_name(token))
            begin = time.perf_counter()
            constraint.accept(token)
            taken.append((time.perf_counter() - begin) * 1e6)
        assert constraint.allowed[vocabulary.eos], (backend.name, case)
    medians = [statistics.median(taken) for taken in times]
    return Row(
        backend.name,
        case,
        vocabulary.size,
        len(tokens),
        round(load, 2),
        round(compiled * 1e3, 1),
        round(statistics.median(medians), 1),
        round(max(medians), 1),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print; the last line of stdout is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m isobath.bench.structure")
    parser.add_argument("--tokenizer", type=Path, default=BUNDLED)
    parser.add_argument("--repeat", type=int, default=20)
    options = parser.parse_args(arguments)
    rows = run(Text(options.tokenizer), options.repeat, print)
    print(json.dumps({"rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
