"""A provider in a process of its own that keeps books: what it really was asked, and what that cost.

``python -m tests.money.site --cost 0.01`` prints its address as JSON. Every message that arrives is paid at once,
whoever hangs up afterwards; its text may say how long the answer takes and to which tab it belongs
(``[[seconds:0.05]] [[tab:round-3]]``). ``GET /usage/points_history`` is the book of one API key as Poe's official API
tells it, ``GET /_figures`` what was counted by tab, and how many calls of a tab there were at most at once.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import sys
import time
from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

from aiohttp import web

from tests.upstreams.provider import DONE, chunk

_SECONDS = re.compile(r"\[\[seconds:([0-9.]+)\]\]")
_TAB = re.compile(r"\[\[tab:([\w-]+)\]\]")
MODEL = "m-1"


class Site:
    """Counts by tab; keeps a book by API key, newest first."""

    def __init__(self, cost: Decimal) -> None:
        self.cost = cost
        self.calls: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        """At once, so far."""
        self.books: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._numbers = itertools.count(1)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        key = request.headers["Authorization"].removeprefix("Bearer ")
        body = await request.json()
        text = body["messages"][-1]["content"]
        seconds = float(found[1]) if (found := _SECONDS.search(text)) else 0.0
        tab = found[1] if (found := _TAB.search(text)) else ""
        query = f"q-{next(self._numbers):08}"
        self.calls[tab] += 1
        self.running[tab] += 1
        self.most[tab] = max(self.most[tab], self.running[tab])
        try:
            return await self._answer(request, key, body["model"], tab, seconds, query)
        finally:
            self.running[tab] -= 1

    async def _answer(
        self, request: web.Request, key: str, model: str, tab: str, seconds: float, query: str
    ) -> web.StreamResponse:
        self.books[key].insert(
            0,
            {
                "query_id": query,
                "creation_time": time.time_ns() // 1000,
                "bot_name": model,
                "usage_type": "API",
                "cost_points": 1,
                "cost_usd": str(self.cost),
            },
        )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        await response.write(_named(chunk("o"), query))
        await asyncio.sleep(seconds)
        usage = {
            "choices": [],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "cost": float(self.cost)},
        }
        last = f"data: {json.dumps({'id': query, 'object': 'chat.completion.chunk', **usage})}\n\n".encode()
        await response.write(_named(chunk("k"), query) + _named(chunk(finish="stop"), query) + last + DONE)
        self.answered[tab] += 1
        return response

    async def history(self, request: web.Request) -> web.Response:
        key = request.headers["Authorization"].removeprefix("Bearer ")
        book = self.books[key]
        limit = int(request.query.get("limit", 20))
        after = request.query.get("starting_after")
        start = 0
        if after is not None:
            start = next((place + 1 for place, entry in enumerate(book) if entry["query_id"] == after), len(book))
        page = book[start : start + limit]
        more = start + limit < len(book)
        return web.json_response({"data": page, "has_more": more, "length": len(page)})

    async def figures(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"calls": self.calls, "answered": self.answered, "running": self.running, "most": self.most}
        )


def _named(data: bytes, query: str) -> bytes:
    """The chunk with the exchange's id."""
    return data.replace(b'{"object"', f'{{"id": "{query}", "object"'.encode(), 1)


async def _models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": MODEL, "created": 5, "owned_by": "x"}]})


async def _balance(_: web.Request) -> web.Response:
    return web.json_response({"current_point_balance": 1_000_000})


async def main(cost: Decimal) -> None:
    site = Site(cost)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", site.chat)
    app.router.add_get("/v1/models", _models)
    app.router.add_get("/usage/points_history", site.history)
    app.router.add_get("/usage/current_balance", _balance)
    app.router.add_get("/_figures", site.figures)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
    # Ends with whoever started it.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cost", type=Decimal, default=Decimal("0.01"))
    asyncio.run(main(parser.parse_args().cost))
