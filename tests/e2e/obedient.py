"""Two providers in a thread of the test that do what they are asked for, one by OpenAI's API and one by Anthropic's.

They call the tools that they are offered, fill in the form, stop where they are told to, and keep what they were sent
(``seen``): what an answer shows was really asked of them.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
from collections.abc import Coroutine
from typing import Any, NamedTuple, TypeVar

from aiohttp import web

from tests.upstreams import anthropic_site as claude
from tests.upstreams.provider import DONE, Provider

T = TypeVar("T")
Body = dict[str, Any]

DOT = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC")
"""One red pixel, as a PNG."""
OPENAI_MODEL, ANTHROPIC_MODEL = "obedient-1", "claude-obedient-1"
THOUGHT = "Let me think."
_CITY = re.compile(r"in ([A-Z]\w+)")


class Said(NamedTuple):
    """What is answered, whatever the API."""

    text: str = ""
    calls: tuple[tuple[str, Body], ...] = ()
    finish: str = "stop"

    @property
    def pieces(self) -> list[str]:
        half = len(self.text) // 2
        return [self.text[:half], self.text[half:]]


class Obedient:
    """Both providers, and a third that has a picture at ``picture``."""

    def __init__(self) -> None:
        self.openai, self.anthropic = Provider(), claude.Site()
        self.openai.answer = _openai
        self.openai.models = {"object": "list", "data": [{"id": OPENAI_MODEL, "created": 5, "owned_by": "x"}]}
        self.openai.pictures = {"created": 1, "data": [{"b64_json": base64.b64encode(DOT).decode()}]}
        self.anthropic.answer = _anthropic
        self.anthropic.pages = [[{"id": ANTHROPIC_MODEL}]]
        self.picture = ""
        self._runner: web.AppRunner | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._open())

    def seen(self, kind: str) -> list[Body]:
        """Bodies of what was asked of one kind of provider for answers, oldest first."""
        site = {"openai_api": self.openai, "anthropic_api": self.anthropic}[kind]
        return [body for _, _, body in site.seen if isinstance(body, dict)]

    def end(self) -> None:
        self._do(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _open(self) -> None:
        await self.openai.start()
        await self.anthropic.start()
        app = web.Application()
        app.router.add_get("/dot.png", _picture)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.picture = f"http://127.0.0.1:{self._runner.addresses[0][1]}/dot.png"

    async def _shut(self) -> None:
        await self.openai.stop()
        await self.anthropic.stop()
        if self._runner is not None:
            await self._runner.cleanup()


async def _picture(request: web.Request) -> web.Response:
    return web.Response(body=DOT, content_type="image/png")


def _answer(
    asked: str,
    results: list[str],
    *,
    tools: list[str],
    forced: str | None,
    several: bool,
    form: bool,
    stops: list[str],
    limit: int | None,
) -> Said:
    """What an obedient model makes of it. ``limit``: tokens, of four characters each."""
    if tools and not results:
        cities = _CITY.findall(asked) or [""]
        name = forced or tools[0]
        calls = tuple((name, {"city": city}) for city in (cities if several else cities[:1]))
        return Said(calls=calls, finish="tool_calls")
    text = f"The tools say: {' | '.join(results)}" if results else f"echo: {asked}"
    if form:
        text = json.dumps({"city": "Paris"})
    cut = min([at for stop in stops if (at := text.find(stop)) >= 0], default=len(text))
    if limit is not None and 4 * limit < cut:
        return Said(text[: 4 * limit], finish="length")
    return Said(text[:cut])


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())


async def _openai(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    turns, choice = body["messages"], body.get("tool_choice")
    results = []
    for turn in turns:
        results = [*results, _text(turn["content"])] if turn["role"] == "tool" else []
    said = _answer(
        next(_text(turn["content"]) for turn in reversed(turns) if turn["role"] == "user"),
        results,
        tools=[tool["function"]["name"] for tool in body.get("tools", ())],
        forced=choice["function"]["name"] if isinstance(choice, dict) else None,
        several=body.get("parallel_tool_calls", True),
        form="response_format" in body,
        stops=body.get("stop", []),
        limit=body.get("max_tokens", body.get("max_completion_tokens")),
    )
    deltas: list[Body] = [{"reasoning_content": THOUGHT}] if body.get("reasoning_effort", "none") != "none" else []
    deltas += [{"content": piece} for piece in said.pieces if piece]
    for index, (name, arguments) in enumerate(said.calls):
        written = json.dumps(arguments)
        start = {"name": name, "arguments": ""}
        call = {"index": index, "id": f"call_{len(turns)}_{index}", "type": "function", "function": start}
        deltas.append({"tool_calls": [call]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": each}}]} for each in halves(written)]
    chunks = [_chunk(delta, None, told=body.get("logprobs")) for delta in deltas]
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}}
    events = [_event(each) for each in (*chunks, _chunk({}, said.finish), usage)]
    return await Provider().stream(*events, DONE)(request)


def halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def _chunk(delta: Body, finish: str | None, *, told: Any = None) -> Body:
    choice: Body = {"index": 0, "delta": delta, "finish_reason": finish}
    if told and "content" in delta:
        choice["logprobs"] = {
            "content": [{"token": delta["content"], "logprob": -0.5, "bytes": None, "top_logprobs": []}]
        }
    return {"id": "c-1", "object": "chat.completion.chunk", "created": 5, "model": OPENAI_MODEL, "choices": [choice]}


def _event(body: Body) -> bytes:
    return f"data: {json.dumps(body)}\n\n".encode()


async def _anthropic(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    last, choice = body["messages"][-1]["content"], body.get("tool_choice", {})
    results = [_text(block.get("content")) for block in last if block["type"] == "tool_result"]
    said = _answer(
        "".join(block.get("text", "") for block in last if block["type"] == "text"),
        results,
        tools=[tool["name"] for tool in body.get("tools", ())],
        forced=choice.get("name"),
        several=not choice.get("disable_parallel_tool_use"),
        form="format" in body.get("output_config", {}) or "one JSON object and nothing else" in json.dumps(body),
        stops=body.get("stop_sequences", []),
        limit=body["max_tokens"],
    )
    blocks: list[bytes] = []
    thinks = body.get("thinking", {}).get("type", "disabled") != "disabled"
    if thinks or "effort" in body.get("output_config", {}):
        deltas = ({"type": "thinking_delta", "thinking": THOUGHT}, {"type": "signature_delta", "signature": "c2ln"})
        blocks.append(claude.block(0, {"type": "thinking", "thinking": "", "signature": ""}, *deltas))
    if said.text:
        blocks.append(claude.text(len(blocks), *said.pieces))
    for name, arguments in said.calls:
        opening = {"type": "tool_use", "id": f"toolu_{len(body['messages'])}_{len(blocks)}", "name": name, "input": {}}
        parts = [{"type": "input_json_delta", "partial_json": each} for each in halves(json.dumps(arguments))]
        blocks.append(claude.block(len(blocks), opening, *parts))
    reasons = {"tool_calls": "tool_use", "length": "max_tokens", "stop": "end_turn"}
    stopped = any(stop in _text(last) for stop in body.get("stop_sequences", ()))
    ending = claude.end("stop_sequence", body["stop_sequences"][0]) if stopped else claude.end(reasons[said.finish])
    return await claude.Site().stream(claude.start(), *blocks, ending)(request)
