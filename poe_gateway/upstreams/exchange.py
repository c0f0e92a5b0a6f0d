"""What is exchanged with a provider that is asked by key: messages, lists and balances, and what its refusals mean."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, TypeVar

import aiohttp

from poe_gateway.chat.request import Operation
from poe_gateway.clock import Clock
from poe_gateway.pool.outcome import AdapterDrift, Failure, Unauthorized
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.door import Door
from poe_gateway.upstreams.refusals import Refused
from poe_gateway.upstreams.transport import beginning, exchange

_MAX_ERROR = 64 * 1024
_MAX_LIST = 16 * 1024 * 1024
MAX_WHOLE = 64 * 1024 * 1024
"""Bytes of an answer that comes in one piece."""

D = TypeVar("D", bound=Door)


class Exchange(Generic[D]):
    """``session`` belongs to the caller. ``refusal``: what a response that is not 200 means. ``idle``: seconds without
    a byte until an answer counts as dead; ``small``: seconds for lists and balances."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        clock: Clock,
        refusal: Callable[[Refused, D], tuple[Failure, Fate]],
        *,
        idle: float,
        small: float,
    ) -> None:
        self._session = session
        self._clock = clock
        self._refusal = refusal
        self._answering = aiohttp.ClientTimeout(total=None, sock_connect=15.0, sock_read=idle)
        self._small = aiohttp.ClientTimeout(total=small, sock_connect=15.0)

    @asynccontextmanager
    async def post(
        self,
        door: D,
        url: str,
        body: bytes,
        *,
        model: str,
        kind: str = "application/json",
        accept: str = "application/json",
        operation: Operation = "chat",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response to a message of the content type ``kind``; always a 200. Raises UpstreamFailure."""
        headers = {"Content-Type": kind, "Accept": accept}
        async with self._open("POST", door, url, headers, self._answering, body) as response:
            await self._passed(response, door, model, operation)
            yield response

    async def get(self, door: D, url: str) -> bytes:
        """A list or a balance. Raises UpstreamFailure."""
        async with self._open("GET", door, url, {"Accept": "application/json"}, self._small) as response:
            await self._passed(response, door, None, "chat")
            return await whole(response, _MAX_LIST)

    def _open(
        self,
        method: str,
        door: D,
        url: str,
        headers: dict[str, str],
        limits: aiohttp.ClientTimeout,
        body: bytes | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if door.unresolved:
            raise UpstreamFailure(Unauthorized(detail="the key that the account refers to is not at hand"))
        return exchange(self._session, method, url, headers=door.headers | headers, timeout=limits, body=body)

    async def _passed(self, response: aiohttp.ClientResponse, door: D, model: str | None, operation: Operation) -> None:
        if response.status == 200:
            return
        refused = Refused(
            status=response.status,
            headers=response.headers,
            body=await beginning(response, _MAX_ERROR),
            model=model,
            now=self._clock.now(),
            operation=operation,
        )
        raise UpstreamFailure(*self._refusal(refused, door))


async def whole(response: aiohttp.ClientResponse, limit: int = MAX_WHOLE) -> bytes:
    """The body. Raises UpstreamFailure when it is longer than ``limit``."""
    body = await beginning(response, limit + 1)
    if len(body) > limit:
        raise UpstreamFailure(AdapterDrift(detail=f"an answer of more than {limit} bytes"), Fate.ACCEPTED)
    return body
