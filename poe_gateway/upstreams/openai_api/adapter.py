"""Any OpenAI-compatible provider by API key: OpenAI itself, OpenRouter, Poe's official API, a local server.

A message is sent once. What happens before the connection stands leaves it unsent; a break between sending and the
first response byte leaves its fate open; after a 200 it is accepted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import Any

import aiohttp
import orjson

from poe_gateway.chat.events import ChatEvent, Finished
from poe_gateway.chat.request import ChatRequest
from poe_gateway.clock import Clock
from poe_gateway.pool.outcome import AdapterDrift, Failure, NetworkFault, Rejected, Transient
from poe_gateway.upstreams.base import (
    AccountRef,
    Books,
    Capabilities,
    Described,
    Fate,
    Model,
    Reading,
    UpstreamFailure,
)
from poe_gateway.upstreams.openai_api.endpoint import FIELDS, PRESETS, Endpoint, read_endpoint
from poe_gateway.upstreams.openai_api.history import History
from poe_gateway.upstreams.openai_api.refusals import refusal, told_in_band
from poe_gateway.upstreams.openai_api.sse import SSEParser, TooLong
from poe_gateway.upstreams.openai_api.wire import Drift, InBandError, Reader, read_models, read_points, request_body

_MAX_ERROR = 64 * 1024
_MAX_SMALL = 16 * 1024 * 1024
_TAIL_SECONDS = 10.0
"""How long the usage chunk and ``[DONE]`` are waited for once the answer is complete."""


class OpenAIAPI:
    """Implements ``Upstream``. ``session`` belongs to the caller and is not closed here.

    ``preset_urls`` replaces addresses of presets (tests). ``idle_timeout``: seconds without a byte until an answer
    counts as dead; ``small_timeout``: seconds for the list of models and the balance.
    """

    name = "openai_api"
    capabilities = Capabilities(balance=True, images=True, parameters=True, books=True)
    credential_fields = FIELDS

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        clock: Clock,
        preset_urls: Mapping[str, str] | None = None,
        idle_timeout: float = 180.0,
        small_timeout: float = 20.0,
    ) -> None:
        self._session = session
        self._clock = clock
        self._presets = {**PRESETS, **(preset_urls or {})}
        self._streaming = aiohttp.ClientTimeout(total=None, sock_connect=15.0, sock_read=idle_timeout)
        self._small = aiohttp.ClientTimeout(total=small_timeout, sock_connect=15.0)
        self._endpoints: dict[str, tuple[int, Endpoint]] = {}

    def describe(self, credentials: Mapping[str, Any]) -> Described:
        """Offer ``openai_api:<host[:port]>`` with digests of an unusual path and of an allow-list."""
        endpoint = read_endpoint(credentials, self._presets)
        details = {"host": endpoint.host, "preset": endpoint.preset}
        return Described(offer=endpoint.offer, metered=endpoint.balance_url is not None, details=details)

    async def chat(
        self, account: AccountRef, model: str, request: ChatRequest, bound: Mapping[str, Any] | None
    ) -> AsyncGenerator[ChatEvent, None]:
        """The provider's answer as it comes. ``bound`` is ignored: these providers keep no conversation."""
        endpoint = self._endpoint(account)
        if endpoint.models is not None and model not in endpoint.models:
            public = f"The model '{model}' is not served by this account."
            raise UpstreamFailure(Rejected(public=public, status=404, code="model_not_found", model=model))
        headers = {**endpoint.headers, "Content-Type": "application/json", "Accept": "text/event-stream"}
        try:
            body = orjson.dumps(request_body(request, model))
        except TypeError:  # half a surrogate pair, an integer beyond 64 bits
            raise UpstreamFailure(Rejected(public="The request cannot be written as JSON.")) from None
        reader = Reader()
        async with self._open("POST", endpoint.chat_url, headers, self._streaming, body) as response:
            await self._check(response, endpoint, model)
            async with aclosing(_data(response, reader)) as stream:
                async for data in stream:
                    for event in _understand(reader, data, model, _secret(endpoint)):
                        yield event
                    if reader.done:
                        break
        if (wrong := _verdict(reader)) is not None:
            raise UpstreamFailure(wrong, Fate.ACCEPTED)
        if reader.usage is not None:
            yield reader.usage
        yield Finished(reader.reason)

    async def read_balance(self, account: AccountRef) -> Reading:
        """Points of Poe's official API; nothing for providers that do not tell."""
        endpoint = self._endpoint(account)
        if endpoint.balance_url is None:
            return Reading()
        body = await self._get(endpoint, endpoint.balance_url)
        try:
            return Reading(points=read_points(body))
        except Drift as drift:
            raise UpstreamFailure(AdapterDrift(detail=str(drift))) from None

    async def read_books(self, account: AccountRef, since: datetime) -> Books | None:
        """Poe's usage history, newest first, page by page until ``since``; None for providers that keep none."""
        endpoint = self._endpoint(account)
        if endpoint.books_url is None:
            return None
        history = History(since)
        while (query := history.next_page()) is not None:
            body = await self._get(endpoint, f"{endpoint.books_url}?{query}")
            try:
                history.take(body)
            except Drift as drift:
                raise UpstreamFailure(AdapterDrift(detail=str(drift))) from None
        return history.books()

    async def list_models(self, account: AccountRef) -> list[Model]:
        """The provider's models, or those of the allow-list that it has."""
        endpoint = self._endpoint(account)
        body = await self._get(endpoint, endpoint.models_url)
        try:
            return read_models(body, endpoint.models)
        except Drift as drift:
            raise UpstreamFailure(AdapterDrift(detail=str(drift))) from None

    async def prewarm(self, account: AccountRef) -> None:
        """Nothing to open: connections are shared and opened when needed."""

    async def probe(self, account: AccountRef) -> str:
        """Lists the models, verifies the key where that needs a call of its own, reads the balance where told."""
        endpoint = self._endpoint(account)
        models = await self.list_models(account)
        if endpoint.check_url is not None:
            await self._get(endpoint, endpoint.check_url)
        balance = await self.read_balance(account)
        points = "" if balance.points is None else f", {balance.points} points left"
        return f"{endpoint.host} accepts the key and lists {len(models)} models{points}."

    async def forget(self, account_id: str) -> None:
        """Drops the prepared headers, which hold the key."""
        self._endpoints.pop(account_id, None)

    async def close(self) -> None:
        """The session is the caller's."""
        self._endpoints.clear()

    def _endpoint(self, account: AccountRef) -> Endpoint:
        known = self._endpoints.get(account.id)
        if known is not None and known[0] == account.credential_rev:
            return known[1]
        endpoint = read_endpoint(account.credentials, self._presets)
        self._endpoints[account.id] = (account.credential_rev, endpoint)
        return endpoint

    async def _get(self, endpoint: Endpoint, url: str) -> bytes:
        headers = {**endpoint.headers, "Accept": "application/json"}
        async with self._open("GET", url, headers, self._small) as response:
            if response.status != 200:
                raise UpstreamFailure(*await self._refused(response, endpoint, None))
            return await _read(response, _MAX_SMALL)

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        limits: aiohttp.ClientTimeout,
        body: bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One exchange; the connection is dropped unless the body was read to its end. Raises UpstreamFailure."""
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._session.request(
                method, url, headers=headers, data=body, timeout=limits, allow_redirects=False
            )
            yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            accepted = response is not None and response.status == 200
            raise UpstreamFailure(*broken(error, accepted)) from None
        finally:
            if response is not None:
                response.release() if response.content.at_eof() else response.close()

    async def _check(self, response: aiohttp.ClientResponse, endpoint: Endpoint, model: str) -> None:
        """Lets a 200 event stream through."""
        if response.status != 200:
            raise UpstreamFailure(*await self._refused(response, endpoint, model))
        kind = response.content_type
        if kind == "text/event-stream" or "Content-Type" not in response.headers:
            return
        if kind == "application/json":
            body = await _read(response, _MAX_ERROR)
            try:
                value = orjson.loads(body)
            except orjson.JSONDecodeError:
                value = None
            if isinstance(value, dict) and value.get("error"):
                secret = _secret(endpoint)
                failed = told_in_band(value["error"], model=model, secret=secret, answered=False)
                raise UpstreamFailure(*failed)
        raise UpstreamFailure(AdapterDrift(detail=f"200 with {kind} instead of an event stream"), Fate.ACCEPTED)

    async def _refused(
        self, response: aiohttp.ClientResponse, endpoint: Endpoint, model: str | None
    ) -> tuple[Failure, Fate]:
        body = await _read(response, _MAX_ERROR)
        return refusal(
            response.status, response.headers, body, model=model, secret=_secret(endpoint), now=self._clock.now()
        )


def broken(error: BaseException, accepted: bool) -> tuple[Failure, Fate]:
    """What a failed exchange means. The error's own text stays out: it may name addresses and headers."""
    label = type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL):
        return NetworkFault(detail=label), Fate.NOT_SENT
    fate = Fate.ACCEPTED if accepted else Fate.UNKNOWN
    if isinstance(error, TimeoutError):
        return Transient(detail=label, timeout=True), fate
    if isinstance(error, aiohttp.ClientOSError) and not accepted:
        return NetworkFault(detail=label), fate
    return Transient(detail=label), fate


def _understand(reader: Reader, data: str, model: str, secret: str) -> list[ChatEvent]:
    """The chunk's events, or the typed failure that it tells."""
    try:
        return reader.take(data)
    except InBandError as told:
        failed = told_in_band(told.error, model=model, secret=secret, answered=reader.spoke)
    except Drift as drift:
        failed = AdapterDrift(detail=str(drift)), Fate.ACCEPTED
    raise UpstreamFailure(*failed)


def _verdict(reader: Reader) -> Failure | None:
    """What is wrong with an answer that came to its end."""
    if not reader.complete:
        if not reader.understood:
            return AdapterDrift(detail="the stream held nothing known")
        return Transient(detail="the answer was cut off")
    if reader.empty:
        return Transient(detail="the answer was empty")
    return None


async def _data(response: aiohttp.ClientResponse, reader: Reader) -> AsyncGenerator[str, None]:
    """The data of every event. Once the answer is complete, a break or a long silence just ends it."""
    parser = SSEParser()
    try:
        while True:
            limit = _TAIL_SECONDS if reader.complete else None
            try:
                async with asyncio.timeout(limit):
                    chunk = await response.content.readany()
            except (aiohttp.ClientError, TimeoutError, OSError):
                if reader.complete:
                    return
                raise
            for event in parser.feed(chunk) if chunk else parser.close():
                yield event.data
            if not chunk:
                return
    except TooLong as error:
        raise UpstreamFailure(AdapterDrift(detail=str(error)), Fate.ACCEPTED) from None


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, or its first ``limit`` bytes."""
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        parts.append(chunk)
        size += len(chunk)
        if size >= limit:
            break
    return b"".join(parts)[:limit]


def _secret(endpoint: Endpoint) -> str:
    return endpoint.headers["Authorization"].removeprefix("Bearer ")
