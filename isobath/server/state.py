"""What all routes share: the backend, the chat format, the names of the model, what is open.

Nothing here is global: a server is an app made from one ServerState; a process may hold several.
All of it is used from one event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from isobath.chat import ChatFormat, Replay
from isobath.config import ServerConfig
from isobath.server.backend import Backend
from isobath.server.errors import ApiError, unavailable

ALIASES = {
    "deepseek-v4-flash": None,
    "deepseek-ai/DeepSeek-V4-Flash": None,
    "deepseek-chat": False,
    "deepseek-reasoner": True,
}
"""Names that are accepted beside the served ones, and the thinking mode that each implies."""
Phase = Literal["loading", "ready", "draining"]
BUNDLED_NAME = "isobath-tiny"


class Counts(Protocol):
    """What routes tell the metrics; all else is measured around the backend."""

    def empty_completion(self) -> None:
        """A chat ended with neither content nor a call."""


@dataclass(slots=True)
class Load:
    """What is open now. sequences: completions. queued_tokens: prompt tokens of those that have not
    been told their first token."""

    sequences: int = 0
    queued_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Served:
    """A model name that a client used. thinking: what the name says about it."""

    name: str
    thinking: bool | None = None


class Names:
    """The names under which the model can be called: those served, the checkpoint's as it was
    asked for, and ALIASES."""

    def __init__(self, served: tuple[str, ...], root: str) -> None:
        self.served, self._root = served, root

    @property
    def first(self) -> str:
        return self.served[0]

    def resolve(self, name: str | None) -> Served:
        """The name that answers carry. Raises ApiError 404 for an unknown one."""
        if not name:
            return Served(self.first)
        if name in self.served or name == self._root:
            return Served(name)
        if name in ALIASES:
            return Served(name, ALIASES[name])
        raise ApiError(
            404,
            f"The model `{name[:200]}` does not exist. Known: {', '.join(self.served)}.",
            type="NotFoundError",
            param="model",
            code="model_not_found",
        )


@dataclass(eq=False, slots=True)
class ServerState:
    """See the module. phase: gate.py turns requests away unless it is "ready". metrics: None where
    nobody counts. sampling_defaults: of temperature, top_p, top_k, min_p and repetition_penalty,
    for requests that leave them out."""

    config: ServerConfig = field(default_factory=ServerConfig)
    backend: Backend | None = None
    chat: ChatFormat | None = None
    phase: Phase = "ready"
    metrics: Counts | None = None
    sampling_defaults: Mapping[str, Any] = field(default_factory=dict)
    replay: Replay = field(default_factory=Replay)
    load: Load = field(default_factory=Load)

    @property
    def root(self) -> str:
        """The checkpoint, as it was asked for."""
        return self.config.model or BUNDLED_NAME

    @property
    def models(self) -> Names:
        return Names(self.config.served_model_name or (Path(self.root).name,), self.root)

    @property
    def engine(self) -> Backend:
        """The backend. Raises ApiError 503 when there is none or it is dead."""
        if self.backend is None:
            raise unavailable("the model is still loading", retry_after=5)
        if not self.backend.alive:
            raise unavailable("the engine has died", retry_after=5)
        return self.backend

    @property
    def chat_format(self) -> ChatFormat:
        """How conversations become prompts. Raises ApiError 503 while loading, 400 when the
        checkpoint does not say."""
        backend = self.engine
        if self.chat is None:
            raise ApiError(400, "this checkpoint has no chat format", code="no_chat_format")
        assert backend is not None
        return self.chat
