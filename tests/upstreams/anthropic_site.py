"""A small server on loopback that speaks Anthropic's Messages API and is as strict about requests as the real one.

Whatever breaks the API's rules is refused with 400 and the rule. The next answer each test writes itself.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

from aiohttp import web

from tests.upstreams.server import Server

KEY = "sk-ant-canary-8812345"
_FIELDS = {
    "model",
    "messages",
    "max_tokens",
    "system",
    "stop_sequences",
    "temperature",
    "top_p",
    "top_k",
    "tools",
    "tool_choice",
    "metadata",
    "thinking",
    "output_config",
    "service_tier",
    "context_management",
    "inference_geo",
    "speed",
    "stream",
}
_BLOCKS = {
    "user": {"text", "image", "tool_result"},
    "assistant": {"text", "thinking", "redacted_thinking", "tool_use"},
}
_ID = re.compile(r"[a-zA-Z0-9_-]+")


def event(kind: str, **fields: Any) -> bytes:
    """One event as the API writes it."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n".encode()


def start(**usage: int) -> bytes:
    message = {
        "id": "msg_up",
        "type": "message",
        "role": "assistant",
        "model": "claude-up",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 1, **usage},
    }
    return event("message_start", message=message)


def block(index: int, opening: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
    """A whole block."""
    parts = [event("content_block_start", index=index, content_block=opening)]
    parts += [event("content_block_delta", index=index, delta=delta) for delta in deltas]
    return b"".join([*parts, event("content_block_stop", index=index)])


def text(index: int, *pieces: str) -> bytes:
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": each} for each in pieces))


def end(reason: str = "end_turn", sequence: str | None = None, details: Any = None, **usage: Any) -> bytes:
    delta = {"stop_reason": reason, "stop_sequence": sequence, "stop_details": details}
    return event("message_delta", delta=delta, usage={"output_tokens": 7, **usage}) + event("message_stop")


def error(kind: str, message: str = "no", code: str | None = None) -> dict[str, Any]:
    """The body of an error."""
    told: dict[str, Any] = {"type": kind, "message": message}
    if code is not None:
        told["details"] = {"error_code": code}
    return {"type": "error", "error": told, "request_id": "req_up"}


class Site(Server):
    """Set ``answer`` (messages) and ``pages`` (models); look at ``seen`` and ``left``."""

    def __init__(self) -> None:
        super().__init__(self.stream(start(), text(0, "hi"), end()))
        self.pages: Any = [[{"id": "claude-1"}, {"id": "claude-2"}]]

    def route(self, router: web.UrlDispatcher) -> None:
        router.add_post("/v1/messages", self._messages)
        router.add_get("/v1/models", self._models)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append((request.path, dict(request.headers), body))
        if (refused := _refused(request)) is not None:
            return refused
        if (broken := rule_broken(body)) is not None:
            return web.json_response(error("invalid_request_error", broken), status=400)
        return await self.answer(request)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path_qs, dict(request.headers), None))
        if (refused := _refused(request)) is not None:
            return refused
        if callable(self.pages):
            return await self.pages(request)
        if not isinstance(self.pages, list):
            return web.json_response(self.pages)
        after = request.query.get("after_id")
        place = next((nth + 1 for nth, page in enumerate(self.pages) if page and page[-1]["id"] == after), 0)
        page = self.pages[place]
        more = place + 1 < len(self.pages)
        return web.json_response({"data": page, "has_more": more, "last_id": page[-1]["id"] if page else None})


def _refused(request: web.Request) -> web.Response | None:
    if request.headers.get("anthropic-version") != "2023-06-01":
        return web.json_response(error("invalid_request_error", "anthropic-version: header is required"), status=400)
    if request.headers.get("x-api-key") != KEY:
        return web.json_response(error("authentication_error", "invalid x-api-key"), status=401)
    return None


def rule_broken(body: dict[str, Any]) -> str | None:
    """What of the API's rules a request breaks."""
    for name in body:
        if name not in _FIELDS:
            return f"{name}: Extra inputs are not permitted"
    if type(body.get("max_tokens")) is not int or body["max_tokens"] < 1:
        return "max_tokens: Field required"
    if not body.get("messages"):
        return "messages: at least one message is required"
    roles = [turn["role"] for turn in body["messages"]]
    if any(role == after for role, after in pairwise(roles)):
        return "messages: roles must alternate"
    open_calls: set[str] = set()
    for place, turn in enumerate(body["messages"]):
        if (broken := _turn_broken(turn, open_calls)) is not None:
            return f"messages.{place}: {broken}"
        open_calls = {each["id"] for each in turn["content"] if each["type"] == "tool_use"}
    return _options_broken(body)


def _turn_broken(turn: dict[str, Any], open_calls: set[str]) -> str | None:
    if set(turn) != {"role", "content"} or turn["role"] not in _BLOCKS or not turn["content"]:
        return "a role and content are required"
    answered = set()
    for each in turn["content"]:
        if each["type"] not in _BLOCKS[turn["role"]]:
            return f"{each['type']}: not permitted here"
        if each["type"] == "text" and not each["text"].strip():
            return "text content blocks must contain non-whitespace text"
        if each["type"] == "tool_use" and (not _ID.fullmatch(each["id"]) or not isinstance(each["input"], dict)):
            return "tool_use: bad id or input"
        if each["type"] == "tool_result":
            answered.add(each["tool_use_id"])
        if each["type"] == "image" and each["source"]["type"] not in ("base64", "url"):
            return "image: bad source"
    if answered != open_calls:
        return "tool_use blocks must have corresponding tool_result blocks in the next message"
    return None


def _options_broken(body: dict[str, Any]) -> str | None:
    for tool in body.get("tools", ()):
        if tool["input_schema"].get("type") != "object":
            return "tools: input_schema.type: Field required"
    called = {block["type"] for turn in body["messages"] for block in turn["content"]} & {"tool_use", "tool_result"}
    if called and not body.get("tools"):
        return "Requests which include `tool_use` or `tool_result` blocks must define tools."
    if "tool_choice" in body and "tools" not in body:
        return "tool_choice: requires tools"
    form = body.get("output_config", {}).get("format")
    if form is not None and form["schema"].get("additionalProperties") is not False:
        return "output_config.format.schema: additionalProperties must be explicitly set to false"
    budget = body.get("thinking", {}).get("budget_tokens")
    if budget is not None and budget >= body["max_tokens"]:
        return "max_tokens must be greater than thinking.budget_tokens"
    return None
