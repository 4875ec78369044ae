"""The application: every route over one ServerState.

    app = create_app(ServerState(config, backend, chat))

A part of the interface is a module with `router(state)`, named in ROUTERS. Starting and stopping is
not done here.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, FastAPI

from isobath import __version__
from isobath.server import (
    chat_completions,
    completions,
    development,
    errors,
    messages,
    metrics,
    models,
    responses,
    status,
    tokenizing,
)
from isobath.server.guard import Guard
from isobath.server.state import ServerState

ROUTERS: tuple[Callable[[ServerState], APIRouter], ...] = (
    completions.router,
    chat_completions.router,
    models.router,
    tokenizing.router,
    metrics.router,
    status.router,
    messages.router,
    responses.router,
    development.router,
)

__all__ = ["ROUTERS", "ServerState", "create_app"]


def create_app(state: ServerState) -> FastAPI:
    """The routes over `state`, which stays the caller's to change (the backend, say)."""
    app = FastAPI(title="isobath", version=__version__, docs_url=None, redoc_url=None)
    app.state.isobath = state
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router(state))
    app.add_middleware(Guard, state=state)
    return app
