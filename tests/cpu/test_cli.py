"""The command line as a user meets it: what it prints where, exit codes, errors and start time."""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import isobath
from isobath.cli import main
from isobath.engine.llm import BUNDLED
from isobath.model.text import Text
from tests.support.checkpoints import random_checkpoint

START_SECONDS = 0.5
"""Of CPU time, which other load on the machine does not change; measured 0.25 on a 2-core CPU."""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the entry point in this process, with a terminal wide enough for a table row."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["isobath", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random small checkpoint with the bundled tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    random_checkpoint(folder, vocab_size=Text(BUNDLED).vocab_size, compress_ratios=[0, 4])
    for file in BUNDLED.glob("tokenizer*"):
        shutil.copy(file, folder)
    return str(folder)


def test_help_starts_quickly() -> None:
    def cpu_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "isobath", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)

    assert statistics.median(cpu_seconds() for _ in range(3)) < START_SECONDS


@pytest.mark.parametrize("module", ["isobath", "isobath.cli", "isobath.plan"])
def test_import_does_not_load_torch(module: str) -> None:
    script = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_generate_prints_text_to_stdout_and_speed_to_stderr(run: Run, model: str) -> None:
    args = ("--model", model, "--prompt", "import", "--max-tokens", "9", "--ignore-eos")
    got = run("generate", *args)
    facts = json.loads(run("generate", *args, "--json").out)
    assert got.code == 0
    assert got.out == "import" + facts["text"] + "\n"
    loaded, size, basis, speed = got.err.splitlines()
    assert loaded.startswith("Loading weights took ")
    assert size.startswith("GPU KV cache size: ") and basis.startswith("caches: ")
    assert speed.startswith("9 tokens in ") and speed.endswith("tokens/s (native, OCP, length)")
    assert len(facts["token_ids"]) == 9 and facts["finish_reason"] == "length"


def test_generate_says_the_same_as_the_library(run: Run, model: str) -> None:
    sampled = ("--temperature", "0.8", "--top-k", "50", "--top-p", "0.9", "--seed", "7")
    got = run(
        "generate", "--model", model, "--prompt", "def", "--max-tokens", "12", *sampled, "--json"
    )
    params = isobath.SamplingParams(max_tokens=12, temperature=0.8, top_k=50, top_p=0.9, seed=7)
    [want] = isobath.LLM(model).generate(["def"], params)
    assert json.loads(got.out)["token_ids"] == want.token_ids


@pytest.mark.parametrize("numerics", ["native", "exact"])
def test_generate_does_not_depend_on_dialect(run: Run, model: str, numerics: str) -> None:
    args = ("--model", model, "--prompt", "class", "--max-tokens", "16", "--ignore-eos", "--json")
    ocp, fnuz = (
        json.loads(run("generate", *args, "--numerics", numerics, "--dialect", d).out)
        for d in ("ocp", "fnuz")
    )
    assert ocp["token_ids"] == fnuz["token_ids"]
    assert (ocp["dialect"], fnuz["dialect"]) == ("ocp", "fnuz")


def test_generate_reads_prompt_from_stdin_and_streams(model: str) -> None:
    """The answer arrives in several writes, not in one at the end."""
    command = [sys.executable, "-m", "isobath", "generate", "--model", model, "--prompt", "-"]
    command += ["--max-tokens", "64", "--ignore-eos"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin and child.stdout
    child.stdin.write("größer".encode())
    child.stdin.close()
    chunks = []
    while chunk := os.read(child.stdout.fileno(), 1 << 16):
        chunks.append(chunk)
    child.stdout.close()
    assert child.wait() == 0
    assert b"".join(chunks).decode().startswith("größer")
    assert len(chunks) > 4


def test_error_is_shown_in_its_parts_without_traceback(run: Run, tmp_path: Path) -> None:
    got = run("generate", "--model", str(tmp_path), "--prompt", "x")
    lines = got.err.splitlines()
    assert got.code == 1 and not got.out
    assert lines[0].startswith("CorruptCheckpoint: ") and "config.json" in lines[0]
    assert [line.split(":")[0] for line in lines[1:]] == ["  found", "  effect", "  do"]


def test_debug_shows_the_traceback(run: Run, tmp_path: Path) -> None:
    with pytest.raises(isobath.CheckpointError):
        run("--debug", "inspect", str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("generate", "--promt", "x"), "--prompt"),
        (("genrate",), "generate"),
        (("plan", "--contxt", "8k"), "--context"),
        (("generate",), "--prompt"),
        (("plan", "--gpu", "h100", "--memory-gib", "80"), "exclude each other"),
    ],
)
def test_wrong_usage_exits_2_and_names_the_nearest(
    run: Run, arguments: tuple[str, ...], hint: str
) -> None:
    got = run(*arguments)
    assert got.code == 2 and hint in got.err


@pytest.mark.parametrize(
    ("flag", "value", "word"),
    [
        ("--temperature", "-1", "temperature"),
        ("--top-p", "0", "top_p"),
        ("--max-tokens", "0", "max_tokens"),
        ("--numerics", "fp32", "numerics"),
        ("--dialect", "e4m3", "dialect"),
    ],
)
def test_impossible_value_exits_1(run: Run, model: str, flag: str, value: str, word: str) -> None:
    got = run("generate", "--model", model, "--prompt", "x", flag, value)
    assert got.code == 1 and word in got.err


def test_inspect_describes_a_checkpoint_that_would_load(run: Run, model: str) -> None:
    got = run("inspect", model)
    assert got.code == 0 and "would load" in got.out and "MXFP4" in got.out
    facts = json.loads(run("inspect", model, "--json").out)
    weights = sum(file.stat().st_size for file in Path(model).glob("*.safetensors"))
    assert 0 < facts["bytes"] < weights and facts["problems"] == []


def test_inspect_exits_1_when_a_checkpoint_would_not_load(
    run: Run, model: str, tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["compress_ratios"] = [0, 128]
    (tmp_path / "config.json").write_text(json.dumps(config))
    got = run("inspect", str(tmp_path))
    assert got.code == 1 and "problem: " in got.out and "would load" not in got.out


def test_plan_covers_every_gpu_and_says_what_limits(run: Run) -> None:
    got = run("plan", "--context", "128k", "--concurrency", "64")
    assert got.code == 0
    assert "the weights alone need 4.90 GiB more" in got.out
    for name in ("MI300X", "MI325X", "MI355X", "H100", "H200", "B200"):
        assert name in got.out


def test_plan_of_one_gpu_as_json(run: Run) -> None:
    got = run("plan", "--gpu", "mi300x", "--context", "1m", "--json")
    [(name, row)] = json.loads(got.out).items()
    assert name == "MI300X" and row["sequence_bytes"] == 4_052_700_160


def test_plan_of_a_checkpoint_on_another_device(run: Run, model: str) -> None:
    got = run("plan", "--model", model, "--memory-gib", "0.5", "--context", "1k", "--json")
    [(name, row)] = json.loads(got.out).items()
    assert name == "0.5 GiB" and not row["fits"]
    assert row["weight_bytes"] < 1 << 24


def test_bench_ops_ends_with_one_json_object(run: Run) -> None:
    got = run("bench", "ops", "--op", "rms_norm", "--device", "cpu")
    counts = json.loads(got.out.splitlines()[-1])
    assert counts["rows"] == counts["agree"] > 0


def test_version_names_what_a_report_needs(run: Run) -> None:
    assert run("version").out.startswith(f"isobath {isobath.__version__}, torch 2.")


def test_completion_can_be_installed(run: Run) -> None:
    assert "--install-completion" in run("--help").out


def test_version_and_environment_say_what_a_report_needs(run: Run) -> None:
    assert run("--version").out.startswith(f"isobath {isobath.__version__}, torch ")
    told = run("collect-env")
    assert told.code == 0
    for word in ("isobath", "python", "torch", "device", "FP8 dialect", "uvicorn"):
        assert any(line.startswith(f"{word} ") for line in told.out.splitlines()), word


def test_a_serve_flag_that_is_misspelt_names_the_nearest(run: Run) -> None:
    refused = run("serve", "--max-num-sequences", "4")
    assert refused.code == 2 and "--max-num-seqs" in refused.err.replace("\n", " ")
