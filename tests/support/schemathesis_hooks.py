"""What schemathesis loads beside the OpenAPI document (SCHEMATHESIS_HOOKS): shorter answers, and a
check of every error's shape."""

from __future__ import annotations

from typing import Any

import schemathesis

CONTEXT = 96
"""Tokens; an answer that fills it is short, also on a machine with much else to do."""
_MOST = {"n": 2, "best_of": 2, "max_tokens": 8, "max_completion_tokens": 8, "max_output_tokens": 8}


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """A model that is served, or all that was learned would be that others are not; fewer tokens,
    where the body asks for a number of them that could be served."""
    if isinstance(body, dict):
        if isinstance(body.get("model"), str):
            body["model"] = "isobath-tiny"
        for name, most in _MOST.items():
            value = body.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and most < value <= CONTEXT:
                body[name] = most
    return body


@schemathesis.check
def error_shape(
    context: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """A 4xx says what was wrong, in its dialect's words."""
    if response.status_code < 400 or response.status_code >= 500:
        return
    body = response.json()
    anthropic = case.path.startswith("/v1/messages")
    assert not anthropic or body["type"] == "error", body
    error = body["error"]
    assert set(error) >= {"type", "message"}, body
    assert anthropic or set(error) == {"type", "message", "param", "code"}, body
    assert 0 < len(error["message"]) < 10_000, body
