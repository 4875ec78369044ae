"""What only those who measure need, and nobody else should find: it takes --server-dev-mode.

vLLM has the same behind VLLM_SERVER_DEV_MODE=1.
"""

from __future__ import annotations

from fastapi import APIRouter, Response

from isobath.server.errors import RESPONSES
from isobath.server.state import ServerState


def router(state: ServerState) -> APIRouter:
    """The routes, if the server was asked for them."""
    routes = APIRouter(tags=["development"])
    if not state.config.server_dev_mode:
        return routes

    @routes.post("/reset_prefix_cache", response_class=Response, responses=RESPONSES)
    async def reset_prefix_cache() -> Response:
        """Requests that come later find nothing cached but what running ones hold."""
        await state.engine.reset_prefix_cache()
        return Response()

    return routes
