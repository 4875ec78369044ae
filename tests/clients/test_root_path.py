"""A server behind a proxy's prefix is the same server, whether the proxy strips it or not."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from isobath import AsyncLLM
from isobath.config import ServerConfig
from isobath.server.state import ServerState
from tests.support.http_server import Served, running

KEY = {"authorization": "Bearer one"}


@pytest.fixture(scope="module")
def prefixed(llm: AsyncLLM) -> Iterator[Served]:
    config = ServerConfig(root_path="/isobath", api_key=("one",))
    with running(ServerState(config, llm)) as server:
        yield server


@pytest.mark.parametrize("prefix", ["", "/isobath"])
def test_paths_mean_the_same_with_and_without_the_prefix(prefixed: Served, prefix: str) -> None:
    with httpx.Client(base_url=prefixed.url + prefix) as http:
        for path in ("/health", "/metrics", "/version"):
            assert http.get(path).status_code == 200, path
        assert http.get("/v1/models").status_code == 401
        assert http.get("/v1/models", headers=KEY).status_code == 200
        assert http.get("/nothing", headers=KEY).status_code == 404
        assert http.post("/v1/messages", json={}).json()["type"] == "error"
        assert http.post("/v1/messages", json={}, headers=KEY).json()["type"] == "error"


@pytest.mark.parametrize("prefix", ["", "/isobath"])
def test_what_is_shown_while_a_model_loads_is_shown_behind_a_prefix(
    prefixed: Served, prefix: str
) -> None:
    prefixed.state.phase = "loading"
    try:
        with httpx.Client(base_url=prefixed.url + prefix, headers=KEY) as http:
            assert http.get("/version").status_code == 200
            assert http.get("/health").status_code == 503
    finally:
        prefixed.state.phase = "ready"


def test_the_document_names_the_prefix(prefixed: Served) -> None:
    document = httpx.get(prefixed.url + "/openapi.json", headers=KEY).json()
    assert document["servers"] == [{"url": "/isobath"}]
