"""isobath: DeepSeek-V4 inference that gives the same answer in every FP8 dialect.

The whole public API: LLM, AsyncLLM, SamplingParams and EngineConfig, and the errors. Importing
isobath is cheap; torch is loaded when a model or a parameter record is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from isobath.config import EngineConfig
from isobath.errors import (
    CheckpointError,
    ConfigError,
    DialectMismatch,
    EngineDied,
    IsobathError,
    LayoutMismatch,
    RequestError,
)

if TYPE_CHECKING:
    from isobath.engine.async_llm import AsyncLLM, Piece
    from isobath.engine.llm import LLM
    from isobath.engine.output import Completion
    from isobath.engine.sampling import SamplingParams

__version__ = "0.1.0"
__all__ = [
    "LLM",
    "AsyncLLM",
    "CheckpointError",
    "Completion",
    "ConfigError",
    "DialectMismatch",
    "EngineConfig",
    "EngineDied",
    "IsobathError",
    "LayoutMismatch",
    "Piece",
    "RequestError",
    "SamplingParams",
]
_HOMES = {
    "LLM": "isobath.engine.llm",
    "AsyncLLM": "isobath.engine.async_llm",
    "Piece": "isobath.engine.async_llm",
    "Completion": "isobath.engine.output",
    "SamplingParams": "isobath.engine.sampling",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'isobath' has no attribute {name!r}")
