"""Every way in which a request can be refused, and how each client's library wants to read it.

Two shapes: OpenAI's {"error": {message, type, param, code}} everywhere, Anthropic's below
/v1/messages. One mapping from isobath's own errors. Messages are bounded: an error about a large
body is small. Nothing of a prompt is logged here.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException

from isobath.errors import EngineDied, IsobathError, RequestError, RequestFailed

log = logging.getLogger(__name__)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
MAX_MESSAGE = 2000
MAX_PROBLEMS, MAX_PROBLEM = 10, 200
ANTHROPIC_PATHS = "/v1/messages"
ANTHROPIC_OVERLOADED = 529
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class ApiError(Exception):
    """An answer that is an error. status: of HTTP. type: the family, in OpenAI's shape; below
    /v1/messages it follows from status. param: the dotted path of the field at fault. code: a
    constant for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, bounded(message, MAX_MESSAGE)
        self.type = type or _TYPES.get(status, "api_error")
        self.param, self.code, self.headers = param, code, dict(headers or {})

    def renamed(self, names: Mapping[str, str]) -> ApiError:
        """The same for a client that calls fields otherwise. names: its names by ours."""
        words = "|".join(map(re.escape, names))
        begins = re.compile(rf"(?:(?<=; )|\A)(?:{words})(?![\w-])")

        def own(text: str) -> str:
            return begins.sub(lambda found: names[found[0]], text)

        return ApiError(
            self.status,
            own(self.message),
            type=self.type,
            param=self.param and own(self.param),
            code=self.code,
            headers=self.headers,
        )

    def as_openai(self) -> dict[str, Any]:
        """The body for OpenAI's libraries."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}

    def as_anthropic(self) -> dict[str, Any]:
        """The body for Anthropic's libraries."""
        kind = _TYPES.get(self.status) or ("api_error" if self.status >= 500 else _TYPES[400])
        return {"type": "error", "error": {"type": kind, "message": self.message}}

    def body(self, path: str) -> bytes:
        """The body for a client of `path`."""
        shape = self.as_anthropic if path.startswith(ANTHROPIC_PATHS) else self.as_openai
        return msgspec.json.encode(shape())

    def response(self, path: str) -> Response:
        """The answer to a request of `path`. An overloaded server is 529 to Anthropic's clients:
        that is how they tell "come back soon" from a broken one."""
        status = self.status
        if status == 503 and path.startswith(ANTHROPIC_PATHS):
            status = ANTHROPIC_OVERLOADED
        return Response(self.body(path), status, self.headers, "application/json")


class AnthropicDetail(BaseModel):
    """For the OpenAPI document."""

    type: str
    message: str


class AnthropicBody(BaseModel):
    """For the OpenAPI document."""

    type: Literal["error"]
    error: AnthropicDetail


class ErrorDetail(BaseModel):
    """For the OpenAPI document."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """For the OpenAPI document."""

    error: ErrorDetail


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request is refused."},
    "5XX": {"model": ErrorBody, "description": "The server cannot answer it."},
}
"""Of every route, for the OpenAPI document."""
ANTHROPIC_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": AnthropicBody, "description": "The request is refused."},
    "5XX": {"model": AnthropicBody, "description": "The server cannot answer it."},
}
"""Of the routes below ANTHROPIC_PATHS."""
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "One object, or events if streamed."}
}
"""Of routes that stream when asked."""


def bounded(text: str, size: int) -> str:
    """`text` as valid Unicode of at most `size` characters."""
    clean = text[: size + 1].encode("utf-8", "replace").decode()
    return clean if len(clean) <= size else clean[: size - 1] + "…"


def invalid(message: str, param: str | None = None) -> ApiError:
    """400: the request's own fault."""
    return ApiError(400, message, param=param)


def check_unicode(body: bytes) -> None:
    """Raise ApiError 400 for JSON with half a surrogate pair: it reads as a text that no tokenizer
    takes. Where a model says str this has been checked; it has not below dict and Any."""
    if not _SURROGATE.search(body):
        return
    try:
        msgspec.json.encode(json.loads(body))
    except (ValueError, TypeError) as error:
        raise invalid("the body holds text that is no valid Unicode") from error


def context_exceeded(found: int, limit: int, param: str) -> ApiError:
    """400 in the words by which agents notice that they must shorten the conversation."""
    return ApiError(
        400,
        f"This model's maximum context length is {limit} tokens. However, your {param} "
        f"resulted in {found} tokens, and at least one more is needed for the answer. Please "
        f"reduce the length of the {param}: prompt is too long: {found} tokens > {limit} maximum.",
        param=param,
        code="context_length_exceeded",
    )


def unavailable(message: str, retry_after: int = 1) -> ApiError:
    """503: not now."""
    return ApiError(503, message, headers={"Retry-After": str(retry_after)})


def api_error(error: BaseException) -> ApiError:
    """What a client is told of any exception."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RecursionError):
        return invalid("the request is nested too deeply")
    if isinstance(error, EngineDied):
        return ApiError(500, f"the engine has died: {error.found}", code="engine_died")
    if isinstance(error, RequestFailed):
        return ApiError(500, f"{error.asked}: {error.found}")
    if isinstance(error, RequestError):
        parts = [error.asked, error.found, error.effect, error.do]
        return invalid("; ".join(part for part in parts if part), error.param)
    if isinstance(error, IsobathError):
        return ApiError(500, error.asked)
    return ApiError(500, f"internal error: {type(error).__name__}")


def of_validation(problems: Sequence[Any], body: Any) -> ApiError:
    """400 for a body that is not what the route's model says; pydantic's list of problems."""
    told = []
    for problem in problems[:MAX_PROBLEMS]:
        path = _path(problem, body)
        text = str(problem.get("msg", "is wrong"))
        told.append(bounded(f"{path}: {text}" if path else text, MAX_PROBLEM))
    if len(problems) > MAX_PROBLEMS:
        told.append(f"and {len(problems) - MAX_PROBLEMS} more")
    return invalid("; ".join(told), _path(problems[0], body) if problems else None)


def _path(problem: Mapping[str, Any], body: Any) -> str | None:
    """Dotted, as `messages.0.role`; None for the body as a whole. pydantic's own path also names
    the alternatives of a field that it tried, so only what is in the body counts."""
    place = problem["loc"][problem["loc"][:1] == ("body",) :]
    found, here = [], body
    for part in place:
        absent = problem["type"] == "missing" and part is place[-1]
        if absent or _holds(here, part):
            found.append(str(part))
            here = None if absent else here[part]
    return bounded(".".join(found), MAX_PROBLEM) or None


def _holds(value: Any, part: str | int) -> bool:
    return (isinstance(value, dict) and part in value) or (
        isinstance(value, list) and isinstance(part, int)
    )


def install(app: FastAPI) -> None:
    """Let every exception of a route become an answer in the client's shape."""

    def answers(
        convert: Callable[[Any], ApiError],
    ) -> Callable[[Request, Exception], Awaitable[Response]]:
        async def handler(request: Request, error: Exception) -> Response:
            return convert(error).response(request.url.path)

        return handler

    app.add_exception_handler(RequestValidationError, answers(_of_body))
    app.add_exception_handler(StarletteHTTPException, answers(_of_http))
    for kind in (ApiError, IsobathError, RecursionError, Exception):
        app.add_exception_handler(kind, answers(api_error))


def _of_http(error: HTTPException) -> ApiError:
    return ApiError(error.status_code, str(error.detail), headers=error.headers)


def _of_body(error: RequestValidationError) -> ApiError:
    """What is wrong with a body, as far as it could be read."""
    problems = error.errors()
    if isinstance(error.body, bytes):
        return invalid("the content-type of the body is not application/json")
    if problems[0]["type"] == "json_invalid":
        why, at = problems[0]["ctx"]["error"], problems[0]["loc"][-1]
        return invalid(f"the body is not JSON: {why}, at character {at}")
    if error.body is None and problems[0]["loc"] == ("body",):
        return invalid("the body is empty, or null")
    return of_validation(problems, error.body)
