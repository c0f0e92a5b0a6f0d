"""A small OpenAI-compatible provider on loopback whose next answer each test writes itself."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from tests.upstreams.server import Answer, Server


def chunk(content: str | None = None, finish: str | None = None, usage: Any = None, **delta: Any) -> bytes:
    """One event as OpenAI writes it."""
    if content is not None:
        delta["content"] = content
    body: dict[str, Any] = {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    if usage is not None:
        body |= {"choices": [], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}}
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"


class Provider(Server):
    """Set ``answer`` (chat), ``vectors``, ``pictures``, ``models``, ``key`` …; look at ``seen`` and ``left``.

    Of a form, ``seen`` holds a list of (name, text, or the file's name, type and bytes).
    """

    def __init__(self) -> None:
        super().__init__(self.stream(chunk("hi"), chunk(finish="stop"), chunk(usage=(3, 1)), DONE))
        self.models: Any = {"object": "list", "data": [{"id": "m-1", "created": 5, "owned_by": "x"}, {"id": "m-2"}]}
        self.points: Any = {"current_point_balance": 1234}
        self.key: Any = {"data": {"label": "k", "limit": 20, "limit_remaining": 7.5, "usage": 12.5}}
        self.credits: Any = {"data": {"total_credits": 10.5, "total_usage": 3.25}}
        self.vectors: Any = {"data": [{"index": 0, "embedding": [0.5, -1]}], "usage": {"prompt_tokens": 2}}
        self.pictures: Any = {"created": 1, "data": [{"url": "https://pictures.example/1.png"}]}
        self.history: Any = {"has_more": False, "length": 0, "data": []}

    def route(self, router: web.UrlDispatcher) -> None:
        router.add_post("/v1/chat/completions", self._chat)
        router.add_get("/v1/models", self._json("models"))
        router.add_post("/v1/embeddings", self._json("vectors"))
        router.add_post("/v1/images/generations", self._json("pictures"))
        router.add_post("/v1/images/edits", self._json("pictures"))
        router.add_get("/v1/key", self._json("key"))
        router.add_get("/v1/credits", self._json("credits"))
        router.add_get("/usage/current_balance", self._json("points"))
        router.add_get("/usage/points_history", self._json("history"))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.path, dict(request.headers), await request.json()))
        return await self.answer(request)

    def _json(self, name: str) -> Answer:
        async def answer(request: web.Request) -> web.StreamResponse:
            self.seen.append((request.path, dict(request.headers), await _sent(request)))
            value = getattr(self, name)
            return await value(request) if callable(value) else web.json_response(value)

        return answer


async def _sent(request: web.Request) -> Any:
    if request.content_type == "application/json":
        return await request.json()
    if not request.content_type.startswith("multipart/"):
        return None
    fields = (await request.post()).items()
    return [
        (name, (value.filename, value.content_type, value.file.read()) if isinstance(value, web.FileField) else value)
        for name, value in fields
    ]
