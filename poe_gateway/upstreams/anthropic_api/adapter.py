"""Anthropic's own API by key, and servers that speak it.

A message is sent once; ``upstreams.transport`` tells what becomes of it when the exchange fails.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import aiohttp
import orjson

from poe_gateway.chat.events import ChatEvent, Finished
from poe_gateway.chat.request import ChatRequest
from poe_gateway.clock import Clock
from poe_gateway.outbound.fetch import ImageFetcher
from poe_gateway.pool.outcome import AdapterDrift, Rejected, Unauthorized
from poe_gateway.upstreams.anthropic_api.answers import Drift, InBandError, Reader
from poe_gateway.upstreams.anthropic_api.asking import PARAMETERS, NotAskable, messages_body
from poe_gateway.upstreams.anthropic_api.catalogue import Listing
from poe_gateway.upstreams.anthropic_api.endpoint import FIELDS, Endpoint, read_endpoint
from poe_gateway.upstreams.anthropic_api.refusals import refusal, told_in_band
from poe_gateway.upstreams.base import (
    AccountRef,
    Capabilities,
    Described,
    Fate,
    Model,
    Reading,
    UpstreamFailure,
)
from poe_gateway.upstreams.streamed import data_of, verdict
from poe_gateway.upstreams.transport import beginning, exchange
from poe_gateway.upstreams.vetting import vet_pictures

_MAX_ERROR = 64 * 1024
_MAX_LIST = 16 * 1024 * 1024


class AnthropicAPI:
    """Implements ``Upstream``. ``session`` belongs to the caller and is not closed here.

    ``idle_timeout``: seconds without a byte until an answer counts as dead; ``small_timeout``: seconds for the list of
    models.
    """

    name = "anthropic_api"
    capabilities = Capabilities(
        tells_tokens=True, json_mode=False, images=True, tools=True, structured=True, parameters=PARAMETERS
    )
    credential_fields = FIELDS

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        clock: Clock,
        images: ImageFetcher | None = None,
        idle_timeout: float = 180.0,
        small_timeout: float = 20.0,
    ) -> None:
        self._images = images
        self._session = session
        self._clock = clock
        self._streaming = aiohttp.ClientTimeout(total=None, sock_connect=15.0, sock_read=idle_timeout)
        self._small = aiohttp.ClientTimeout(total=small_timeout, sock_connect=15.0)
        self._endpoints: dict[str, tuple[int, Endpoint]] = {}

    def describe(self, credentials: Mapping[str, Any]) -> Described:
        """Offer ``anthropic_api:<host[:port]>`` with digests of an unusual path and of an allow-list."""
        endpoint = read_endpoint(credentials)
        return Described(offer=endpoint.offer, details={"host": endpoint.host})

    async def chat(
        self, account: AccountRef, model: str, request: ChatRequest, bound: Mapping[str, Any] | None
    ) -> AsyncGenerator[ChatEvent, None]:
        """The provider's answer as it comes. ``bound`` is ignored: the provider keeps no conversation."""
        endpoint = self._endpoint(account)
        if endpoint.models is not None and model not in endpoint.models:
            public = f"The model '{model}' is not served by this account."
            raise UpstreamFailure(Rejected(public=public, status=404, code="model_not_found", model=model))
        if endpoint.nearby and self._images is not None:
            await vet_pictures(request, self._images)
        body = _body(request, model, endpoint.max_tokens)
        reader = Reader()
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        async with self._open("POST", endpoint, endpoint.messages_url, headers, self._streaming, model, body) as answer:
            await _check(answer, endpoint, model)
            async with aclosing(data_of(answer, reader)) as stream:
                async for data in stream:
                    for event in _understood(reader, data, model, endpoint.key):
                        yield event
                    if reader.done:
                        break
        if (wrong := verdict(reader)) is not None:
            raise UpstreamFailure(wrong, Fate.ACCEPTED)
        yield reader.usage
        yield Finished(reader.reason, reader.stop_sequence)

    async def read_balance(self, account: AccountRef) -> Reading:
        """Nothing: the API tells no balance to keys of this kind."""
        return Reading()

    async def list_models(self, account: AccountRef) -> list[Model]:
        """The provider's models, or those of the allow-list that it has."""
        endpoint = self._endpoint(account)
        listing = Listing(endpoint.models)
        headers = {"Accept": "application/json"}
        while (query := listing.next_page()) is not None:
            url = f"{endpoint.models_url}?{query}"
            async with self._open("GET", endpoint, url, headers, self._small, None) as answer:
                body = await beginning(answer, _MAX_LIST)
            try:
                listing.take(body)
            except Drift as drift:
                raise UpstreamFailure(AdapterDrift(detail=str(drift))) from None
        return listing.models()

    async def prewarm(self, account: AccountRef) -> None:
        """Nothing to open: connections are shared and opened when needed."""

    async def probe(self, account: AccountRef) -> str:
        """Lists the models, which verifies the key."""
        models = await self.list_models(account)
        return f"{self._endpoint(account).host} accepts the key and lists {len(models)} models."

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
        endpoint = read_endpoint(account.credentials)
        self._endpoints[account.id] = (account.credential_rev, endpoint)
        return endpoint

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        endpoint: Endpoint,
        url: str,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - limits of each phase, not of the whole
        model: str | None,
        body: bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response of one exchange; always a 200. Raises UpstreamFailure."""
        if not endpoint.key:
            raise UpstreamFailure(Unauthorized(detail="the key that the account refers to is not at hand"))
        sent = {**endpoint.headers, **headers}
        async with exchange(self._session, method, url, headers=sent, timeout=timeout, body=body) as response:
            if response.status != 200:
                told = await beginning(response, _MAX_ERROR)
                now = self._clock.now()
                raise UpstreamFailure(
                    *refusal(response.status, response.headers, told, model=model, secret=endpoint.key, now=now)
                )
            yield response


def _body(request: ChatRequest, model: str, max_tokens: int) -> bytes:
    try:
        return orjson.dumps(messages_body(request, model, max_tokens))
    except NotAskable as error:
        raise UpstreamFailure(Rejected(public=str(error), code="unsupported_parameter")) from None
    except (TypeError, RecursionError):  # half a surrogate pair, an integer beyond 64 bits, a bottomless schema
        raise UpstreamFailure(Rejected(public="The request cannot be written as JSON.")) from None


async def _check(response: aiohttp.ClientResponse, endpoint: Endpoint, model: str) -> None:
    """Lets an event stream through."""
    kind = response.content_type
    if kind == "text/event-stream" or "Content-Type" not in response.headers:
        return
    if kind == "application/json":
        body = await beginning(response, _MAX_ERROR)
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            value = None
        if isinstance(value, dict) and value.get("type") == "error":
            raise UpstreamFailure(*told_in_band(value, model=model, secret=endpoint.key, answered=False))
    raise UpstreamFailure(AdapterDrift(detail=f"200 with {kind} instead of an event stream"), Fate.ACCEPTED)


def _understood(reader: Reader, data: str, model: str, secret: str) -> list[ChatEvent]:
    """What an event tells, or the typed failure that it is."""
    try:
        return reader.take(data)
    except InBandError as told:
        failed = told_in_band(told.value, model=model, secret=secret, answered=reader.spoke)
    except Drift as drift:
        failed = AdapterDrift(detail=str(drift)), Fate.ACCEPTED
    raise UpstreamFailure(*failed)
