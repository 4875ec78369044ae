"""The server under schemathesis: whatever its OpenAPI document lets a client send, and whatever it
does not, the answer is no 5xx, is what the document says, and is an error of the right shape."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from isobath import AsyncLLM, EngineConfig
from isobath.chat import ChatFormat
from isobath.config import ServerConfig
from isobath.engine.llm import BUNDLED
from isobath.server.state import ServerState
from tests.support import schemathesis_hooks as hooks
from tests.support.http_server import Served, running

CHECKS = (
    "not_a_server_error",
    "response_schema_conformance",
    "content_type_conformance",
    "error_shape",
)


@pytest.fixture(scope="module")
def short() -> Iterator[Served]:
    """A server whose longest answer is short: a fuzzer asks for the longest often."""
    options = EngineConfig(
        max_batched_tokens=256, max_num_seqs=16, max_model_len=hooks.CONTEXT, check="step"
    )
    llm = AsyncLLM(max_batched_tokens=256, engine=options)
    try:
        with running(
            ServerState(ServerConfig(), llm, ChatFormat.load(BUNDLED, llm.text))
        ) as served:
            yield served
    finally:
        llm.process.close()


def fuzz(served: Served, folder: Path, phases: str, examples: int) -> None:
    """Run schemathesis; its report is the failure's message."""
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "run", f"{served.url}/openapi.json", "--phases", phases]
    command += ["--checks", ",".join(CHECKS), "--max-examples", str(examples), "--seed", "1"]
    command += ["--request-timeout", "120", "--continue-on-failure", "--no-color"]
    root = str(Path(__file__).parents[2])
    found = {"SCHEMATHESIS_HOOKS": hooks.__name__, "PYTHONPATH": root}
    done = subprocess.run(
        command, env=os.environ | found, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_requests_at_random_are_answered_as_documented(short: Served, tmp_path: Path) -> None:
    fuzz(short, tmp_path, "examples,fuzzing", 3)


@pytest.mark.nightly
def test_every_edge_of_the_document_is_answered_as_documented(
    short: Served, tmp_path: Path
) -> None:
    fuzz(short, tmp_path, "examples,coverage,fuzzing", 40)
