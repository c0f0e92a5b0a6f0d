"""Two doors: one for callers, and one on a port of its own (``ADMIN_PORT``) for operators.

With a second door the first one knows nothing of ``/admin``, ``/metrics`` and ``/dashboard``, and the second one of
nothing else but documentation and health. Every worker process opens both; the kernel shares connections among them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import uvicorn

from poe_gateway.api.asgi import Front, HotRoute, Receive, Scope, Send, StartFailed
from poe_gateway.api.errors import render
from poe_gateway.clock import Ids
from poe_gateway.errors import NotFound
from poe_gateway.telemetry.hub import Telemetry

_OPERATORS = ("/admin", "/metrics", "/dashboard")
"""Behind the second door only."""
_BOTH = ("/docs", "/openapi.json", "/health", "/healthz", "/readyz", "/status")
_DRAIN = 5
"""Seconds that running answers of the second door have at the end; those of the first have had their time by then."""
_KEEP_ALIVE = 75


class TwoDoors:
    """The application as callers see it; ``operators`` is the same as operators do."""

    def __init__(self, front: Front, ids: Ids) -> None:
        self.front = front
        self._closed = Front(_nothing_here, ids=ids)

    def serve(self, hot: Mapping[str, HotRoute], telemetry: Telemetry) -> None:
        """As ``Front.serve``."""
        self.front.serve(hot, telemetry)
        self._closed.serve({}, telemetry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The first door."""
        shut = scope["type"] == "http" and _within(_path(scope), _OPERATORS)
        await (self._closed if shut else self.front)(scope, receive, send)

    async def operators(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The second door."""
        path = _path(scope) if scope["type"] == "http" else ""
        is_open = path == "/" or _within(path, _OPERATORS) or _within(path, _BOTH)
        await (self.front if is_open else self._closed)(scope, receive, send)


@asynccontextmanager
async def second_door(app: Front | TwoDoors, host: str, port: int) -> AsyncIterator[None]:
    """Keep the second door open, where there is one. Raises StartFailed when the port cannot be had."""
    if not isinstance(app, TwoDoors):
        yield
        return
    try:
        door = await _listener(host, port)
    except OSError as error:
        raise StartFailed(
            f"The gateway cannot start. ADMIN_PORT {port} at ADMIN_HOST {host} cannot be listened on: {error.strerror}."
        ) from None
    # Without log settings of its own: those of the first door's server hold for the whole process.
    config = uvicorn.Config(
        app.operators,
        interface="asgi3",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_DRAIN,
    )
    config.load()
    server = uvicorn.Server(config)
    # The parts of ``Server.serve`` but for its signal handlers: there is one server in charge of the process already.
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[door])
    ticking = asyncio.create_task(server.main_loop(), name="second door")
    try:
        yield
    finally:
        server.should_exit = True
        await ticking
        await server.shutdown(sockets=[door])


async def _listener(host: str, port: int) -> socket.socket:
    """A listening socket that every worker process can have. Raises OSError."""
    loop = asyncio.get_running_loop()
    family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
    door = socket.socket(family, kind, protocol)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        door.bind(address)
        door.listen()
        door.setblocking(False)
    except OSError:
        door.close()
        raise
    return door


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    """As the application answers unknown paths."""
    method, path = scope["method"], scope["path"][:200]
    status, headers, body = render(NotFound(f"Unknown request URL: {method} {path}.", code="unknown_url"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


def _path(scope: Scope) -> str:
    """As routes are matched: without the part that a server was told to be mounted at."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "")
    return path[len(root) :] if root and _within(path, (root,)) else path


def _within(path: str, beginnings: tuple[str, ...]) -> bool:
    return any(path == beginning or path.startswith(f"{beginning}/") for beginning in beginnings)
