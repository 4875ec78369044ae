"""One server over HTTP: /v1/models, and streams of /v1/chat/completions and /v1/completions.

Knows the protocol, nothing of terminals. Reasoning is read under both of its names. Closing a
stream early closes its connection, by which a server knows that nobody waits any more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from isobath.errors import IsobathError

CONNECT_SECONDS = 10.0
Message = dict[str, Any]


class ServerRefused(IsobathError):
    """The server cannot be reached, or answered with an error."""


@dataclass(slots=True)
class Answer:
    """What has come of one answer. sent, first, last: when, in seconds of one clock. usage: as the
    server tells it at the end."""

    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    chunks: int = 0
    sent: float = 0.0
    first: float = 0.0
    last: float = 0.0

    @property
    def tokens(self) -> int:
        """Generated, as the server counts them, else the chunks that came."""
        return int(self.usage.get("completion_tokens") or self.chunks)

    def statistics(self) -> str:
        """One line about its speed."""
        decode = max(self.last - self.first, 1e-9)
        rate = f", {(self.tokens - 1) / decode:.1f} tokens/s" if self.tokens > 1 else ""
        details = self.usage.get("prompt_tokens_details") or {}
        cached = f" ({details['cached_tokens']} cached)" if "cached_tokens" in details else ""
        prompt = self.usage.get("prompt_tokens")
        before = f"{prompt} prompt tokens{cached}, " if prompt is not None else ""
        first = f", first after {self.first - self.sent:.2f} s" if self.first else ""
        return f"{before}{self.tokens} tokens{rate}{first}, {self.finish_reason or 'stopped'}"


class Connection:
    """A server. url: with or without /v1. model: None is the first that it lists."""

    def __init__(self, url: str, *, model: str | None = None, api_key: str | None = None) -> None:
        base = url.rstrip("/")
        base = base if base.endswith("/v1") else base + "/v1"
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
        self._http = httpx.Client(base_url=base, headers=headers, timeout=timeout)
        self._model = model

    @property
    def model(self) -> str:
        """The model's name. Raises ServerRefused."""
        if self._model is None:
            self._model = str(self.models()[0]["id"])
        return self._model

    def models(self) -> list[dict[str, Any]]:
        """What GET /v1/models lists, at least one. Raises ServerRefused."""
        response = self._checked(self._reached("GET", "/models"))
        try:
            found = [dict(card) for card in response.json()["data"] if card["id"]]
        except (ValueError, KeyError, TypeError):
            found = []
        if not found:
            raise ServerRefused(
                f"{response.url}", found=f"no list of models: {response.text[:200]}"
            )
        return found

    def stream(
        self, messages: Sequence[Message], more: Mapping[str, Any], answer: Answer
    ) -> Iterator[tuple[str, str]]:
        """Ask, and yield ("reasoning" or "content", text) as it comes; `answer` grows with it.
        more: other fields of the request. Raises ServerRefused."""
        return self._streamed("/chat/completions", {"messages": list(messages), **more}, answer)

    def complete(
        self, prompt: str, more: Mapping[str, Any], answer: Answer
    ) -> Iterator[tuple[str, str]]:
        """The same for a text that is to be gone on with: ("content", text)."""
        return self._streamed("/completions", {"prompt": prompt, **more}, answer)

    def _streamed(
        self, path: str, fields: Mapping[str, Any], answer: Answer
    ) -> Iterator[tuple[str, str]]:
        how = {"stream": True, "stream_options": {"include_usage": True}}
        body = {"model": self.model, **how, **fields}
        answer.sent = time.monotonic()
        try:
            with self._http.stream("POST", path, json=body) as response:
                if response.is_error:
                    response.read()
                self._checked(response)
                for line in _lines(response.iter_bytes()):
                    if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
                        yield from _taken(json.loads(line[5:]), answer)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def close(self) -> None:
        """Close what is open."""
        self._http.close()

    def _reached(self, method: str, path: str) -> httpx.Response:
        try:
            return self._http.request(method, path)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        try:
            found = response.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            found = response.text[:500]
        raise ServerRefused(f"{response.url} answered {response.status_code}", found=str(found))

    def _unreachable(self, error: httpx.HTTPError) -> ServerRefused:
        return ServerRefused(
            f"talk to {self._http.base_url}",
            found=f"{type(error).__name__}: {error}",
            do="start one with isobath serve, or pass its --url",
        )


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """What line feeds end. httpx would also split at characters that JSON leaves in texts."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def _taken(chunk: Mapping[str, Any], answer: Answer) -> Iterator[tuple[str, str]]:
    """Account for one chunk, and yield its texts."""
    if error := chunk.get("error"):
        raise ServerRefused("the answer broke off", found=str(error.get("message", error)))
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta") or {}
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        content = delta.get("content") or choice.get("text")
        if reasoning or content:
            answer.last = time.monotonic()
            answer.first = answer.first or answer.last
            answer.chunks += 1
        if reasoning:
            answer.reasoning += reasoning
            yield "reasoning", reasoning
        if content:
            answer.content += content
            yield "content", content
    answer.usage = chunk.get("usage") or answer.usage
