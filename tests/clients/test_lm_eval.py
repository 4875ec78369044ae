"""lm-eval's local-completions, the program itself: multiple choice and rolling log-likelihoods are
those of LLM.score, to the last bit, whichever way the client tokenizes.

lm-eval lives in an environment of its own (scripts/clients/venv.sh lm-eval). With the server's own
tokenizer and nothing said it begins rolling texts with EOS, because BOS has the id 0, which it
takes for none: compared with that, too.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from isobath import LLM
from isobath.engine.llm import BUNDLED
from isobath.model.text import Text
from tests.support.client_venv import program
from tests.support.http_server import Served

pytestmark = pytest.mark.nightly

QUESTIONS = [
    {"q": "The json module", "choices": ["encodes objects", "sings", "is a compiler"], "gold": 0},
    {"q": "def add(a, b):\n    return", "choices": ["a + b", "a", "None"], "gold": 0},
    {"q": "Grüße an die 世界:", "choices": ["hallo", "🙂 hello", "x"], "gold": 1},
]
TEXTS = ["The difflib module compares sequences.\n", "x = [1, 2, 3]  # three\nprint(x)\n" * 9]
TASKS = {
    "isobath_choice": """
task: isobath_choice
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/questions.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{gold}}"
metric_list: [{metric: acc}]
""",
    "isobath_rolling": """
task: isobath_rolling
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/texts.jsonl}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}]
""",
}
HUGGINGFACE = f"tokenizer_backend=huggingface,tokenizer={BUNDLED}"
WAYS = {
    "remote": ("", "eos"),
    "remote with a BOS": ("custom_prefix_token_id=0", "bos"),
    "huggingface": (HUGGINGFACE, "bos"),
    "texts in batches": (f"{HUGGINGFACE},tokenized_requests=False", "bos"),
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tasks and their data."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, rows in (("questions", QUESTIONS), ("texts", [{"text": text} for text in TEXTS])):
        lines = [json.dumps(row) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, task in TASKS.items():
        (folder / f"{name}.yaml").write_text(task.replace("FOLDER", str(folder)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def scorer() -> Iterator[LLM]:
    yield LLM(max_batched_tokens=256)


def evaluated(server: Served, tasks: Path, way: str, out: Path) -> dict[str, list[Any]]:
    """What lm-eval was told, by task: a document's responses in the order of its choices."""
    batch = "4" if "tokenized_requests=False" in way else "1"
    said = f"base_url={server.url}/v1/completions,model=isobath-tiny,num_concurrent=1,{way}"
    command = [program("lm-eval", "lm-eval"), "run", "--model", "local-completions"]
    command += ["--model_args", said.rstrip(","), "--tasks", ",".join(TASKS)]
    command += ["--include_path", str(tasks), "--output_path", str(out), "--log_samples"]
    command += ["--batch_size", batch]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tasks / "home")}
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    told = {}
    for task in TASKS:
        [file] = out.rglob(f"samples_{task}_*.jsonl")
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        told[task] = [row["filtered_resps"] for row in sorted(rows, key=lambda r: r["doc_id"])]
    return told


def likelihood(scorer: LLM, context: Sequence[int], ids: Sequence[int]) -> tuple[float, bool]:
    """Of `ids` after `context`: the sum of their log-probabilities, and whether all are greedy."""
    rows = scorer.score([*context, *ids]).log_softmax(1)[len(context) - 1 : -1]
    own = [float(row[token]) for row, token in zip(rows, ids, strict=True)]
    return sum(own), own == [float(row.max()) for row in rows]


@pytest.mark.parametrize("way", list(WAYS))
def test_likelihoods_are_those_of_score(
    server: Served, tasks: Path, scorer: LLM, tmp_path: Path, way: str
) -> None:
    arguments, prefix = WAYS[way]
    told = evaluated(server, tasks, arguments, tmp_path)
    text: Text = scorer.text
    for question, responses in zip(QUESTIONS, told["isobath_choice"], strict=True):
        context = text.encode(str(question["q"]), bos=False)
        for choice, (value, greedy) in zip(question["choices"], responses, strict=True):  # type: ignore[call-overload]
            whole = text.encode(f"{question['q']} {choice}", bos=False)
            wanted = likelihood(scorer, context, whole[len(context) :])
            assert (float(value), str(greedy) == "True") == wanted
    start = text.bos if prefix == "bos" else text.eos
    for written, [value] in zip(TEXTS, told["isobath_rolling"], strict=True):
        ids = text.encode(written, bos=False)
        assert float(value) == likelihood(scorer, [start], ids)[0]
