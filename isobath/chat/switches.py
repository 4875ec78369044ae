"""Whether and how hard the model should think, out of the many ways in which clients say it.

`chat_template_kwargs` goes before `thinking`, that before `reasoning_effort`, that before the
server's default. Whoever says on or off in words goes before an effort, which only implies it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isobath.errors import RequestError

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra")
TYPES = {"enabled": True, "adaptive": True, "disabled": False}


@dataclass(frozen=True, slots=True)
class Switches:
    """thinking, effort: None where nobody said anything."""

    thinking: bool | None = None
    effort: str | None = None
    drop_thinking: bool = True

    @classmethod
    def of(
        cls,
        reasoning_effort: Any = None,
        thinking: Any = None,
        chat_template_kwargs: Any = None,
        default_kwargs: Mapping[str, Any] | None = None,
    ) -> Switches:
        """From the fields of a request, as clients send them. Raises RequestError."""
        kwargs = _kwargs(chat_template_kwargs, "chat_template_kwargs")
        default = _kwargs(default_kwargs, "default_chat_template_kwargs")
        field = _effort(reasoning_effort, "reasoning_effort")
        own = kwargs.effort or field
        on = _first(kwargs.thinking, _thinking(thinking), _implied(own))
        on = _first(on, default.thinking, _implied(default.effort))
        said = [e for e in (own, default.effort) if e and not (on and e == "none")]
        drop = _first(kwargs.drop, default.drop)
        return cls(on, said[0] if said else None, drop is not False)


@dataclass(frozen=True, slots=True)
class _Kwargs:
    thinking: bool | None
    effort: str | None
    drop: bool | None


def _kwargs(value: Any, at: str) -> _Kwargs:
    if value is None:
        return _Kwargs(None, None, None)
    if not isinstance(value, Mapping):
        raise RequestError(f"{at} should be an object", found=type(value).__name__, param=at)
    on = _first(*(_flag(value.get(k), f"{at}.{k}") for k in ("thinking", "enable_thinking")))
    drop = _flag(value.get("drop_thinking"), f"{at}.drop_thinking")
    return _Kwargs(on, _effort(value.get("reasoning_effort"), f"{at}.reasoning_effort"), drop)


def _thinking(value: Any) -> bool | None:
    """DeepSeek's and Anthropic's object, or ds4's flag."""
    if value is None or isinstance(value, bool):
        return value
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in TYPES:
        raise RequestError(
            "thinking is unknown",
            found=repr(value)[:80],
            do='use {"type": "enabled"}, "disabled" or "adaptive", or a bool',
            param="thinking",
        )
    return TYPES[kind]


def _effort(value: Any, at: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in EFFORTS:
        raise RequestError(
            f"{at} is unknown",
            found=repr(value)[:80],
            do="use one of " + ", ".join(EFFORTS),
            param=at,
        )
    return value


def _flag(value: Any, at: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise RequestError(f"{at} should be true or false", found=repr(value)[:80], param=at)


def _implied(effort: str | None) -> bool | None:
    return None if effort is None else effort != "none"


def _first(*values: bool | None) -> bool | None:
    return next((value for value in values if value is not None), None)
