"""aiperf, the program itself: no failed request, and as many tokens as were asked for.

It lives in an environment of its own (scripts/clients/venv.sh aiperf).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from isobath.engine.llm import BUNDLED
from tests.support.client_venv import program
from tests.support.http_server import Served

pytestmark = pytest.mark.nightly

REQUESTS, TOKENS = 4, 8


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_aiperf_gets_every_token_it_asks_for(server: Served, tmp_path: Path, endpoint: str) -> None:
    command = [program("aiperf", "aiperf"), "profile", "--model", "isobath-tiny"]
    command += ["--url", server.url, "--endpoint-type", endpoint, "--streaming"]
    command += ["--tokenizer", str(BUNDLED), "--concurrency", "2", "--ui", "none"]
    command += ["--request-count", str(REQUESTS), "--isl", "24", "--osl", str(TOKENS)]
    command += ["--extra-inputs", "ignore_eos:true", "--use-server-token-count"]
    command += ["--artifact-dir", str(tmp_path)]
    home = {"HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, env=os.environ | home, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    [file] = tmp_path.rglob("profile_export.jsonl")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == REQUESTS and not any(row.get("error") for row in rows)
    lengths = [row["metrics"]["output_sequence_length"]["value"] for row in rows]
    assert lengths == [TOKENS] * REQUESTS
