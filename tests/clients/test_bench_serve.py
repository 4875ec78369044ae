"""`isobath bench serve`: the commands that it prints are of the server that is there, and run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from isobath import AsyncLLM
from isobath.config import ServerConfig
from isobath.engine.llm import BUNDLED
from isobath.server.state import ServerState
from tests.support.client_venv import program
from tests.support.http_server import Served, running
from tests.support.serve_command import free_port

LOAD = ["--input-len", "24", "--output-len", "8", "--num-prompts", "4", "--max-concurrency", "2"]


def bench(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "isobath", "bench", "serve", *words]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True)


def commands(done: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    """Of each program, the words that a shell would hand it."""
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    return {words[0]: words for words in map(shlex.split, printed)}


def after(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_where_no_client_is_found_all_are_named_with_how_to_install_them(server: Served) -> None:
    done = bench("--url", server.url + "/v1", PATH="")
    assert set(commands(done)) == {"vllm", "guidellm", "aiperf"}
    assert done.stdout.count("not on the PATH: pip install ") == 3


def test_the_reference_load_and_the_servers_own_names_are_filled_in(server: Served) -> None:
    found = commands(bench("--url", server.url, PATH=""))
    vllm, guidellm, aiperf = found["vllm"], found["guidellm"], found["aiperf"]
    assert after(vllm, "--base-url") == after(aiperf, "--url") == server.url
    assert after(vllm, "--model") == after(aiperf, "--model") == "isobath-tiny"
    assert after(vllm, "--tokenizer") == after(aiperf, "--tokenizer") == str(BUNDLED)
    assert after(vllm, "--random-input-len") == after(vllm, "--random-output-len") == "512"
    assert after(vllm, "--num-prompts") == after(aiperf, "--request-count") == "10240"
    assert after(vllm, "--max-concurrency") == after(aiperf, "--concurrency") == "1024"
    assert "--ignore-eos" in vllm and after(aiperf, "--extra-inputs") == "ignore_eos:true"
    backend = f"kind=openai_http,target={server.url},model=isobath-tiny"
    assert after(guidellm, "--backend").startswith(backend)
    assert after(guidellm, "--data").endswith("prompt_tokens=512,output_tokens=512")
    assert after(guidellm, "--profile") == "kind=concurrent,streams=1024"
    assert after(guidellm, "--constraint") == "kind=max_requests,count=10240"


def test_run_becomes_the_client_that_is_installed(server: Served, tmp_path: Path) -> None:
    """The program here says what it was given."""
    there = tmp_path / "aiperf"
    there.write_text('#!/bin/sh\nfor word in aiperf "$@"; do echo "got $word"; done\nexit 7\n')
    there.chmod(0o755)
    path = f"{tmp_path}:/bin:/usr/bin"
    done = bench("--url", server.url, *LOAD, "--run", PATH=path)
    comment, command, *got = done.stdout.splitlines()
    assert done.returncode == 7 and comment == "# aiperf, found here"
    assert [f"got {word}" for word in shlex.split(command)] == got
    assert list(commands(bench("--url", server.url, PATH=path))) == ["aiperf"]
    refused = bench("--url", server.url, "--client", "guidellm", "--run", PATH=path)
    assert refused.returncode == 1 and "not on the PATH" in refused.stderr
    assert "pip install guidellm" in refused.stderr


def test_a_key_opens_the_server_and_is_not_printed(llm: AsyncLLM) -> None:
    with running(ServerState(ServerConfig(api_key=("a secret",)), llm)) as keyed:
        refused = bench("--url", keyed.url, PATH="")
        assert refused.returncode == 1 and "401" in refused.stderr
        done = bench("--url", keyed.url, PATH="", ISOBATH_API_KEY="a secret")
    assert done.returncode == 0 and "a secret" not in done.stdout
    shell = ["sh", "-c", 'eval "set -- $1"; for word; do echo "$word"; done', "sh"]
    for line in done.stdout.splitlines()[1::2]:
        env = os.environ | {"ISOBATH_API_KEY": "a secret"}
        told = subprocess.run([*shell, line], env=env, capture_output=True, text=True).stdout
        assert any(word.endswith("a secret") for word in told.splitlines()), line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--url", f"http://127.0.0.1:{free_port()}"], "isobath serve"),
        (["--model-name", "nobody"], "serves isobath-tiny"),
        (["--client", "ab"], "known: vllm, guidellm, aiperf"),
    ],
    ids=["no server", "no such model", "no such client"],
)
def test_what_cannot_be_is_said(server: Served, words: list[str], expected: str) -> None:
    done = bench("--url", server.url, *words)
    assert done.returncode == 1 and expected in done.stderr and not done.stdout


@pytest.mark.nightly
@pytest.mark.parametrize("client", ["guidellm", "aiperf"])
def test_the_command_puts_the_load_on_the_server(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    monkeypatch.chdir(tmp_path)
    place = str(Path(program(client, client)).parent)
    before = counted(server)
    env = {"PATH": f"{place}:{os.environ['PATH']}", "HF_HOME": str(tmp_path / "home")}
    done = bench("--url", server.url, *LOAD, "--client", client, "--run", **env)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    requests, tokens = (now - then for now, then in zip(counted(server), before, strict=True))
    assert (requests, tokens) == (4, 4 * 8)


def counted(server: Served) -> tuple[float, float]:
    """Requests that ended well and tokens that were generated, so far."""
    families = text_string_to_metric_families(httpx.get(server.url + "/metrics").text)
    total: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            total[sample.name] = total.get(sample.name, 0) + sample.value
    return total["vllm:request_success_total"], total["vllm:generation_tokens_total"]
