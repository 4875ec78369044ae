"""GET /v1/models, /health, /version: what is served here, and whether it is."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from fastapi import APIRouter, Response

from isobath import __version__
from isobath.server.errors import RESPONSES
from isobath.server.state import ServerState


def router(state: ServerState) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["models"])
    since = int(time.time())

    def card(name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": since,
            "owned_by": "isobath",
            "root": state.root,
            "parent": None,
            "max_model_len": state.engine.limits.context,
        }

    @routes.get("/v1/models", responses=RESPONSES)
    async def list_models() -> Response:
        return answer({"object": "list", "data": [card(n) for n in state.models.served]})

    @routes.get("/v1/models/{name:path}", responses=RESPONSES)
    async def retrieve_model(name: str) -> Response:
        return answer(card(state.models.resolve(name).name))

    @routes.head("/health", include_in_schema=False)
    @routes.get("/health", response_class=Response, responses={503: {"description": "Not ready."}})
    async def health() -> Response:
        alive = state.backend is not None and state.backend.alive
        return Response(status_code=200 if alive else 503)

    @routes.get("/version")
    async def version() -> dict[str, str]:
        return {"version": __version__}

    @routes.get("/load")
    async def load() -> dict[str, int]:
        return {"server_load": state.load.sequences}

    return routes


def answer(payload: Any) -> Response:
    """JSON, encoded by msgspec."""
    return Response(msgspec.json.encode(payload), media_type="application/json")
