"""From a chat answer on its way to the events of POST /v1/responses, and to its response.

Every event has the next `sequence_number`. response.created and response.in_progress come first;
then for every output item output_item.added, what it grows by, output_item.done: reasoning
(reasoning_text.delta, .done), a message (content_part.added, output_text.delta, .done,
content_part.done), a call (function_call_arguments.delta, .done, or those of
custom_tool_call_input for a tool that takes one text). The last event holds the whole
response: response.completed, .incomplete (the length limit was met), or .failed. The response of a
request that does not stream is what the same events add up to, so there is one way to make it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from isobath.chat import CallArguments, CallBegin, Content, Delta, Reasoning
from isobath.engine.sampling import SamplingParams
from isobath.server.responses_logprobs import ContentLogprobs, Listed
from isobath.server.responses_request import ResponsesRequest
from isobath.server.responses_tools import Origin, text_of
from isobath.server.sealed import seal
from isobath.server.turns import Ended, Usage

Event = dict[str, Any]


def frame(event: Event) -> bytes:
    """One event as bytes on the wire."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))


def usage_of(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def response_of(
    request: ResponsesRequest, params: SamplingParams, id: str, model: str, created_at: float
) -> Event:
    """The response before anything has happened: what was asked for, echoed.

    params: what it is sampled with, where the request leaves that open. created_at: seconds since
    1970.
    """
    asked = request.model_dump(by_alias=True, exclude_unset=True)
    form = asked.get("text") or {}
    reasoning = {"effort": None, "summary": None} | (asked.get("reasoning") or {})
    return {
        "id": id,
        "object": "response",
        "created_at": created_at,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": None,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": reasoning,
        "safety_identifier": request.safety_identifier,
        "store": False,
        "temperature": params.temperature,
        "text": form | {"format": form.get("format") or {"type": "text"}},
        "tool_choice": asked.get("tool_choice") or "auto",
        "tools": asked.get("tools") or [],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": params.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": request.user,
    }


class ResponseEvents:
    """Events of one response, and the response so far (`response`).

    origins: what functions were declared as. sealed: reasoning items also carry their text as
    encrypted_content, for clients that send back nothing else of it. logprobs: has seen the steps
    that what is taken comes of.
    """

    def __init__(
        self,
        response: Event,
        origins: Mapping[str, Origin],
        *,
        sealed: bool = False,
        logprobs: ContentLogprobs | None = None,
    ) -> None:
        self.response = response
        self._origins, self._sealed, self._logprobs = origins, sealed, logprobs
        self._sequence = 0
        self._open: Event | None = None  # the item that grows, as it was when it began
        self._grown: list[str] = []  # its pieces
        self._listed: Listed = []  # of its tokens

    def start(self) -> list[Event]:
        """The first two events."""
        begun = self.response | {"output": []}
        names = ("response.created", "response.in_progress")
        return [self._event(name, response=begun) for name in names]

    def take(self, deltas: Iterable[Delta]) -> list[Event]:
        """Events of what is new."""
        return [event for delta in deltas for event in self._take(delta)]

    def end(self, ended: Ended, now: float) -> list[Event]:
        """The last events. now: seconds since 1970."""
        cut = ended.reason == "length"
        events = list(self._close("incomplete" if cut else "completed"))
        self.response["usage"] = usage_of(ended.usage)
        self.response["status"] = "incomplete" if cut else "completed"
        if cut:
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            self.response["completed_at"] = now
        return [*events, self._event(f"response.{self.response['status']}", response=self.response)]

    def fail(self, code: str, message: str) -> list[Event]:
        """The last events of a response that an error ended."""
        events = list(self._close("incomplete"))
        self.response |= {"status": "failed", "error": {"code": code, "message": message}}
        return [*events, self._event("response.failed", response=self.response)]

    def _take(self, delta: Delta) -> Iterator[Event]:
        match delta:
            case Reasoning(text) if text:
                if not self._in("reasoning"):
                    yield from self._begin("rs", {"type": "reasoning", "summary": []})
                yield self._grow("reasoning_text", text, content_index=0)
            case Content(text) if text:
                if not self._in("message"):
                    message = {"type": "message", "role": "assistant", "content": []}
                    yield from self._begin("msg", message)
                    yield self._item("content_part.added", content_index=0, part=_part("", []))
                listed = self._logprobs.next() if self._logprobs else []
                self._listed += listed
                yield self._grow("output_text", text, content_index=0, logprobs=listed)
            case CallBegin(_, id, name):
                origin = self._origins.get(name, Origin(name))
                yield from self._begin("ctc" if origin.custom else "fc", origin.item(id))
            case CallArguments(_, fragment) if self._in("custom_tool_call"):
                self._grown.append(fragment)  # the text is known when its JSON is whole
            case CallArguments(_, fragment) if fragment:
                assert self._in("function_call"), "arguments of a call that has not begun"
                yield self._grow("function_call_arguments", fragment)

    def _in(self, kind: str) -> bool:
        return self._open is not None and self._open["type"] == kind

    def _begin(self, prefix: str, item: Event) -> Iterator[Event]:
        yield from self._close("completed")
        id = f"{prefix}_{secrets.token_hex(12)}"
        self._open, self._grown = {"id": id, "status": "in_progress"} | item, []
        self._listed = []
        yield self._event("response.output_item.added", output_index=self._index, item=self._open)

    def _grow(self, kind: str, text: str, **fields: Any) -> Event:
        self._grown.append(text)
        return self._item(f"{kind}.delta", delta=text, **fields)

    def _close(self, status: str) -> Iterator[Event]:
        item, text = self._open, "".join(self._grown)
        if item is None:
            return
        done: Event
        match item["type"]:
            case "reasoning":
                yield self._item("reasoning_text.done", content_index=0, text=text)
                done = {"content": [{"type": "reasoning_text", "text": text}]}
                if self._sealed:
                    done["encrypted_content"] = seal(text)
            case "message":
                part, told = _part(text, self._listed), {"text": text, "logprobs": self._listed}
                yield self._item("output_text.done", content_index=0, **told)
                yield self._item("content_part.done", content_index=0, part=part)
                done = {"content": [part]}
            case "custom_tool_call":
                done = {"input": text_of(text)}
                yield self._item("custom_tool_call_input.delta", delta=done["input"])
                yield self._item("custom_tool_call_input.done", **done)
            case _:
                done = {"arguments": text or "{}"}
                yield self._item("function_call_arguments.done", name=item["name"], **done)
        whole = item | done | {"status": status}
        yield self._event("response.output_item.done", output_index=self._index, item=whole)
        self.response["output"].append(whole)
        self._open = None

    @property
    def _index(self) -> int:
        return len(self.response["output"])

    def _item(self, what: str, **fields: Any) -> Event:
        assert self._open is not None
        return self._event(
            f"response.{what}", item_id=self._open["id"], output_index=self._index, **fields
        )

    def _event(self, what: str, **fields: Any) -> Event:
        self._sequence += 1
        return {"type": what, "sequence_number": self._sequence - 1} | fields


def _part(text: str, logprobs: Listed) -> Event:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
