"""One server over the bundled model for all clients of a session."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from isobath import AsyncLLM, EngineConfig
from isobath.chat import ChatFormat
from isobath.config import ServerConfig
from isobath.engine.llm import BUNDLED
from isobath.server.state import ServerState
from tests.support.http_server import Served, running

OPTIONS = EngineConfig(max_batched_tokens=256, max_num_seqs=16, check="step")


@pytest.fixture(scope="session")
def llm() -> Iterator[AsyncLLM]:
    """The bundled model in its process; pages and slots are counted after every step."""
    llm = AsyncLLM(max_batched_tokens=256, engine=OPTIONS)
    yield llm
    llm.process.close()


@pytest.fixture(scope="session")
def chat(llm: AsyncLLM) -> ChatFormat:
    """How the bundled model's conversations are written."""
    return ChatFormat.load(BUNDLED, llm.text)


@pytest.fixture(scope="session")
def server(llm: AsyncLLM, chat: ChatFormat) -> Iterator[Served]:
    """The server that everybody shares; leave its state as it is."""
    with running(ServerState(ServerConfig(), llm, chat)) as served:
        yield served


@pytest.fixture
def http(server: Served) -> Iterator[httpx.Client]:
    """A plain client of it."""
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client
