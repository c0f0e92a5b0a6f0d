"""The judge of the torture run: a provider in a process of its own that counts what really happens at each account.

``python -m tests.torture.site --each 2 --all 25`` prints its address as JSON. A request lasts as long as its text says
(``[[seconds:1.5]]``) and counts from its arrival until its last byte is about to be written, or until its connection
is gone. ``GET /_figures`` tells the maxima and every violation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections import Counter
from typing import Any

from aiohttp import web

from tests.upstreams.provider import DONE, chunk

_SECONDS = re.compile(r"\[\[seconds:([0-9.]+)\]\]")


class Site:
    """Counts by API key and in all."""

    def __init__(self, each: int, whole: int) -> None:
        self.each = each
        self.whole = whole
        self.now: Counter[str] = Counter()
        self.maxima: Counter[str] = Counter()
        self.most = 0
        self.served = 0
        self.cut = 0
        self.violations: list[str] = []

    def _arrived(self, key: str) -> None:
        self.now[key] += 1
        running = self.now.total()
        self.most = max(self.most, running)
        self.maxima[key] = max(self.maxima[key], self.now[key])
        if self.now[key] > self.each:
            self.violations.append(f"{self.now[key]} at once on {key}")
        if running > self.whole:
            self.violations.append(f"{running} at once in all")

    async def chat(self, request: web.Request) -> web.StreamResponse:
        key = request.headers["Authorization"].removeprefix("Bearer ")
        body = await request.json()
        found = _SECONDS.search(body["messages"][-1]["content"])
        left = float(found[1]) if found else 0.1
        counted = True
        self._arrived(key)
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
            await response.prepare(request)
            while left > 0:
                await response.write(chunk("."))
                await asyncio.sleep(min(0.2, left))
                left -= 0.2
            self.now[key] -= 1
            counted = False
            self.served += 1
            await response.write(chunk(finish="stop") + chunk(usage=(3, 1)) + DONE)
            return response
        finally:
            if counted:
                self.now[key] -= 1
                self.cut += 1

    async def figures(self, _: web.Request) -> web.Response:
        told: dict[str, Any] = {
            "most": self.most,
            "most_on_one": max(self.maxima.values(), default=0),
            "accounts_used": len(self.maxima),
            "served": self.served,
            "cut": self.cut,
            "now": self.now.total(),
            "violations": self.violations[:20],
            "violation_count": len(self.violations),
        }
        return web.json_response(told)


async def _models(_: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "m-1", "created": 5, "owned_by": "x"}]})


async def main(each: int, whole: int) -> None:
    site = Site(each, whole)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", site.chat)
    app.router.add_get("/v1/models", _models)
    app.router.add_get("/_figures", site.figures)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
    # Ends with whoever started it.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--each", type=int, required=True)
    parser.add_argument("--all", type=int, required=True)
    options = parser.parse_args()
    asyncio.run(main(options.each, options.all))
