"""A server on loopback whose next answer each test writes itself: what the sites of all dialects share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Set ``answer``; look at ``seen`` (path, headers, body) and ``left``. Subclasses ``route``."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.left = asyncio.Event()
        """Set when a caller hung up during an answer."""
        self._runner: web.AppRunner | None = None
        self.url = ""

    def route(self, router: web.UrlDispatcher) -> None:
        """Add the addresses that are served."""
        raise NotImplementedError

    async def start(self) -> None:
        app = web.Application(client_max_size=8 * 1024 * 1024)
        self.route(app.router)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def stream(self, *parts: bytes, pause: float = 0.0, then: str = "end") -> Answer:
        """An event stream of these pieces; then ``end``, ``break`` the connection or ``hang``."""

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
            await response.prepare(request)
            try:
                for part in parts:
                    await response.write(part)
                    await asyncio.sleep(pause)
                if then == "hang":
                    await asyncio.sleep(60)
            except (asyncio.CancelledError, ConnectionResetError):
                self.left.set()
                raise
            if then == "break" and request.transport is not None:
                request.transport.abort()
            return response

        return answer

    @staticmethod
    def plain(status: int, body: Any, **headers: str) -> Answer:
        async def answer(request: web.Request) -> web.StreamResponse:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            kind = "text/html" if isinstance(body, bytes) else "application/json"
            return web.Response(status=status, body=raw, headers={"Content-Type": kind, **headers})

        return answer
