"""One call as its caller saw it."""

from __future__ import annotations

import itertools
import time

import httpx
import msgspec

from tests.money.site import MODEL

_numbers = itertools.count(1)


class Call(msgspec.Struct, kw_only=True):
    """``status`` 0: the connection broke; ``code`` says how."""

    id: str
    """The request's own: the gateways write it into the ledger."""
    kind: str
    place: int
    """Of the gateway that was asked."""
    began: float
    ended: float = 0.0
    status: int = 0
    code: str | None = None
    whole: bool = False
    """The caller has all of an answer, without an error in it."""
    ran: str = ""
    """Id of the request that this is the answer of: another one's where it is a replay."""
    body: bytes = b""


async def ask(
    client: httpx.AsyncClient,
    base_url: str,
    key: str,
    *,
    kind: str,
    tab: str,
    place: int = 0,
    seconds: float = 0.0,
    stream: bool = False,
    words: str = "",
    repetition: str | None = None,
) -> Call:
    """``words``: what tells one request from another; ``repetition``: its Idempotency-Key."""
    call = Call(id=f"{tab}-call-{next(_numbers)}", kind=kind, place=place, began=time.monotonic())
    headers = {"Authorization": f"Bearer {key}", "x-request-id": call.id}
    if repetition is not None:
        headers["Idempotency-Key"] = repetition
    text = f"[[tab:{tab}]] [[seconds:{seconds:.3f}]] {words}"
    body = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": text}]}
    try:
        answer = await client.post(f"{base_url}/v1/chat/completions", json=body, headers=headers)
    except httpx.TransportError as error:
        call.ended, call.code = time.monotonic(), type(error).__name__
        return call
    call.ended, call.status, call.body = time.monotonic(), answer.status_code, answer.content
    call.ran = answer.headers.get("x-gateway-original-request-id", call.id)
    if call.status != 200:
        call.code = answer.json()["error"]["code"]
    elif stream:
        call.whole = b"data: [DONE]" in call.body and b'data: {"error"' not in call.body
    else:
        call.whole = True
    return call
