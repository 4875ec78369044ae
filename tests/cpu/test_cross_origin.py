"""Pages of other origins: what a browser needs to read an answer, whichever part gave it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from isobath.config import ServerConfig
from isobath.server.lifecycle import application
from isobath.server.state import Phase, ServerState

ORIGIN = "https://page.example"


def answer(method: str, path: str, *, phase: Phase = "ready", **request: Any) -> httpx.Response:
    """Of a server without a model, with a key and a small limit, to a page of ORIGIN."""
    config = ServerConfig(allowed_origins=(ORIGIN,), api_key=("key",), max_body_bytes=100)
    transport = httpx.ASGITransport(application(ServerState(config, phase=phase)))

    async def run() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            headers = {"origin": ORIGIN} | request.pop("headers", {})
            return await client.request(method, path, headers=headers, **request)

    return asyncio.run(run())


KEY = {"authorization": "Bearer key"}


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (200, {"path": "/version"}),
        (401, {"path": "/v1/models"}),
        (404, {"path": "/no", "headers": KEY}),
        (413, {"path": "/tokenize", "headers": KEY, "content": b" " * 101}),
        (415, {"path": "/tokenize", "headers": KEY | {"content-encoding": "gzip"}}),
        (503, {"path": "/v1/models", "phase": "loading"}),
        (503, {"path": "/v1/models", "phase": "draining"}),
    ],
)
def test_a_page_of_an_allowed_origin_may_read_every_answer(
    status: int, request_: dict[str, Any]
) -> None:
    told = answer("POST" if "content" in request_ else "GET", **request_)
    assert told.status_code == status
    assert told.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize("phase", ["loading", "ready"])
def test_a_browser_may_ask_first_in_every_phase_and_without_a_key(phase: Phase) -> None:
    asks = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    told = answer("OPTIONS", "/v1/chat/completions", phase=phase, headers=asks)
    assert told.status_code == 200
    assert "authorization" in told.headers["access-control-allow-headers"]


def test_other_origins_are_told_nothing() -> None:
    told = answer("GET", "/version", headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in told.headers
