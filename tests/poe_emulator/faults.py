"""Requests that go wrong: challenges, server errors, resets, and the envelopes of refusals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from aiohttp import web

CHALLENGE_PAGE = """<!DOCTYPE html><html lang="en-US"><head><title>Just a moment...</title></head>
<body><div class="main-wrapper"><noscript><div class="h2">
<span id="challenge-error-text">Enable JavaScript and cookies to continue</span>
</div></noscript></div></body></html>"""


def challenge(kind: str) -> web.Response:
    """``challenge`` has header and page; ``challenge:title`` and the old ``challenge:503`` the page only."""
    response = web.Response(text=CHALLENGE_PAGE, content_type="text/html", status=503 if kind.endswith(":503") else 403)
    if kind == "challenge":
        response.headers["cf-mitigated"] = "challenge"
    return response


def server_error() -> web.Response:
    return web.json_response({"data": None, "errors": [{"message": "Server Error"}], "extensions": {"is_final": True}})


def refused(status: int, message: str) -> web.Response:
    return web.json_response({"success": False, "errors": [{"message": message}]}, status=status)


def reset(request: web.Request) -> web.Response:
    """Break the connection with a TCP reset; the returned response never leaves."""
    transport = request.transport
    if transport is not None:
        raw = transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response(status=500)


async def struck(kind: str, request: web.Request) -> web.Response | None:
    """The response of a fault (see `Fault.kind`); None = the request goes on as usual."""
    name, _, value = kind.partition(":")
    match name:
        case "http":
            return web.Response(status=int(value), text=f"<html><body>{value}</body></html>", content_type="text/html")
        case "challenge":
            return challenge(kind)
        case "filtered":
            return challenge(kind.replace("filtered", "challenge", 1))
        case "server-error":
            return server_error()
        case "not-success":
            return web.json_response({"success": False, "data": None, "errors": [{"message": "Not possible now"}]})
        case "reset":
            return reset(request)
        case "empty":
            return web.Response(status=200, content_type="application/json")
        case "html":
            return web.Response(text="<html><body>Sorry</body></html>", content_type="text/html")
        case "hang":
            await asyncio.sleep(float(value or 30))
            return None
        case _:
            raise ValueError(f"no such fault: {kind}")
