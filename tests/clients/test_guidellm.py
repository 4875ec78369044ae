"""guidellm, the program itself: no failed request, and as many tokens as were asked for.

It lives in an environment of its own (scripts/clients/venv.sh guidellm).
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


@pytest.mark.parametrize("route", ["/v1/completions", "/v1/chat/completions", "/v1/responses"])
def test_guidellm_gets_every_token_it_asks_for(server: Served, tmp_path: Path, route: str) -> None:
    report = tmp_path / "report.json"
    command = [program("guidellm", "guidellm"), "run", "--disable-console"]
    command += ["--backend", f"kind=openai_http,target={server.url},request_format={route}"]
    command += ["--tokenizer", f"kind=huggingface_auto,model={BUNDLED}"]
    command += ["--data", f"kind=synthetic_text,prompt_tokens=24,output_tokens={TOKENS}"]
    command += ["--profile", "kind=concurrent,streams=2"]
    command += ["--constraint", f"kind=max_requests,count={REQUESTS}"]
    command += ["--output", f"kind=json,path={report}"]
    home = {"HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, env=os.environ | home, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    [benchmark] = json.loads(report.read_text(encoding="utf-8"))["benchmarks"]
    requests = benchmark["requests"]
    assert not requests["errored"] and not requests["incomplete"], requests
    asked = [json.loads(row["request_args"])["body"] for row in requests["successful"]]
    assert [body["ignore_eos"] for body in asked] == [True] * REQUESTS
    told = [row["output_metrics"]["text_tokens"] for row in requests["successful"]]
    assert told == [TOKENS] * REQUESTS, "usage.completion_tokens"
