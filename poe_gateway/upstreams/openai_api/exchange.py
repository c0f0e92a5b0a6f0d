"""What is exchanged with a provider: messages, lists and balances, and what its refusals mean."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp

from poe_gateway.chat.request import Operation
from poe_gateway.clock import Clock
from poe_gateway.pool.outcome import AdapterDrift, Failure, Unauthorized
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.openai_api.endpoint import Endpoint
from poe_gateway.upstreams.openai_api.pictures import FormField
from poe_gateway.upstreams.openai_api.refusals import refusal
from poe_gateway.upstreams.transport import beginning, exchange

_MAX_ERROR = 64 * 1024
_MAX_LIST = 16 * 1024 * 1024
MAX_WHOLE = 64 * 1024 * 1024
"""Bytes of an answer that comes in one piece."""

Body = bytes | list[FormField]
"""What is posted: JSON, or the fields of a form."""


class Exchange:
    """``session`` belongs to the caller. ``idle``: seconds without a byte until an answer counts as dead; ``small``:
    seconds for lists and balances."""

    def __init__(self, session: aiohttp.ClientSession, clock: Clock, *, idle: float, small: float) -> None:
        self._session = session
        self._clock = clock
        self._answering = aiohttp.ClientTimeout(total=None, sock_connect=15.0, sock_read=idle)
        self._small = aiohttp.ClientTimeout(total=small, sock_connect=15.0)

    @asynccontextmanager
    async def post(
        self,
        endpoint: Endpoint,
        url: str,
        body: Body,
        *,
        model: str,
        accept: str = "application/json",
        operation: Operation = "chat",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response to a message; always a 200. Raises UpstreamFailure."""
        kind, data = await _written(body)
        headers = {"Content-Type": kind, "Accept": accept}
        async with self._open("POST", endpoint, url, headers, self._answering, data) as response:
            if response.status != 200:
                raise UpstreamFailure(*await self._refused(response, endpoint, model, operation))
            yield response

    async def ask(self, endpoint: Endpoint, url: str, body: Body, *, model: str, operation: Operation) -> bytes:
        """The whole answer to a message. Raises UpstreamFailure."""
        async with self.post(endpoint, url, body, model=model, operation=operation) as response:
            return await whole(response)

    async def get(self, endpoint: Endpoint, url: str) -> bytes:
        """A list or a balance. Raises UpstreamFailure."""
        async with self._open("GET", endpoint, url, {"Accept": "application/json"}, self._small) as response:
            if response.status != 200:
                raise UpstreamFailure(*await self._refused(response, endpoint, None, "chat"))
            return await whole(response, _MAX_LIST)

    def _open(
        self,
        method: str,
        endpoint: Endpoint,
        url: str,
        headers: dict[str, str],
        limits: aiohttp.ClientTimeout,
        body: bytes | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if endpoint.unresolved:
            raise UpstreamFailure(Unauthorized(detail="the key that the account refers to is not at hand"))
        return exchange(self._session, method, url, headers=endpoint.headers | headers, timeout=limits, body=body)

    async def _refused(
        self, response: aiohttp.ClientResponse, endpoint: Endpoint, model: str | None, operation: Operation
    ) -> tuple[Failure, Fate]:
        return refusal(
            response.status,
            response.headers,
            await beginning(response, _MAX_ERROR),
            model=model,
            secret=endpoint.key,
            now=self._clock.now(),
            operation=operation,
        )


async def whole(response: aiohttp.ClientResponse, limit: int = MAX_WHOLE) -> bytes:
    """The body. Raises UpstreamFailure when it is longer than ``limit``."""
    body = await beginning(response, limit + 1)
    if len(body) > limit:
        raise UpstreamFailure(AdapterDrift(detail=f"an answer of more than {limit} bytes"), Fate.ACCEPTED)
    return body


async def _written(body: Body) -> tuple[str, bytes]:
    """Content type and bytes."""
    if isinstance(body, bytes):
        return "application/json", body
    form = aiohttp.FormData(default_to_multipart=True)
    for field in body:
        form.add_field(field.name, field.value, content_type=field.media_type, filename=field.filename)
    payload = form()
    return payload.headers["Content-Type"], await payload.as_bytes()
