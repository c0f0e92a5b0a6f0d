"""The yardstick: an ASGI application that reads the body and answers a fixed completion, on the same server."""

from __future__ import annotations

from typing import Any

BODY = (
    b'{"id":"chatcmpl-bare","object":"chat.completion","created":1,"model":"mock-1","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"[mock] ok: hello","refusal":null},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":2,"completion_tokens":4,"total_tokens":6}}'
)
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer everything alike."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
