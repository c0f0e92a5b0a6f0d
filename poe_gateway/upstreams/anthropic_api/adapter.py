"""Anthropic's own API by key, and servers that speak it.

A message is sent once; ``upstreams.transport`` tells what becomes of it when the exchange fails.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import aiohttp
import orjson

from poe_gateway.chat.events import ChatEvent, Finished
from poe_gateway.chat.request import ChatRequest
from poe_gateway.clock import Clock
from poe_gateway.outbound.fetch import ImageFetcher
from poe_gateway.pool.outcome import AdapterDrift
from poe_gateway.upstreams.anthropic_api.answers import Reader
from poe_gateway.upstreams.anthropic_api.asking import PARAMETERS, messages_body
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
from poe_gateway.upstreams.bodies import json_body
from poe_gateway.upstreams.door import Doors, listed_by_hand
from poe_gateway.upstreams.drift import Drift, InBandError
from poe_gateway.upstreams.exchange import Exchange
from poe_gateway.upstreams.streamed import events_of, verdict
from poe_gateway.upstreams.transport import beginning
from poe_gateway.upstreams.vetting import vet_pictures

_MAX_ERROR = 64 * 1024


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
        self._exchange = Exchange[Endpoint](session, clock, refusal, idle=idle_timeout, small=small_timeout)
        self._images = images
        self._doors = Doors(read_endpoint)

    def describe(self, credentials: Mapping[str, Any]) -> Described:
        """Offer ``anthropic_api:<host[:port]>`` with digests of an unusual path and of an allow-list."""
        endpoint = read_endpoint(credentials)
        return Described(offer=endpoint.offer, details={"host": endpoint.host})

    async def chat(
        self, account: AccountRef, model: str, request: ChatRequest, bound: Mapping[str, Any] | None
    ) -> AsyncGenerator[ChatEvent, None]:
        """The provider's answer as it comes. ``bound`` is ignored: the provider keeps no conversation."""
        endpoint = self._doors.of(account)
        endpoint.admit(model)
        if endpoint.nearby and self._images is not None:
            await vet_pictures(request, self._images)
        body = json_body(lambda: messages_body(request, model, endpoint.max_tokens))
        reader, url = Reader(), endpoint.messages_url
        async with self._exchange.post(endpoint, url, body, model=model, accept="text/event-stream") as answer:
            await _check(answer, endpoint, model)
            async with aclosing(events_of(answer, reader)) as stream:
                async for each in stream:
                    for event in _understood(reader, each.data, endpoint, model):
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
        """The provider's models, or those of the allow-list that it has; the allow-list where it has no list."""
        endpoint = self._doors.of(account)
        listing = Listing(endpoint.models)
        while (query := listing.next_page()) is not None:
            try:
                body = await self._exchange.get(endpoint, f"{endpoint.models_url}?{query}")
            except UpstreamFailure as failed:
                if endpoint.models is None or not isinstance(failed.outcome, AdapterDrift):
                    raise
                return listed_by_hand(endpoint.models)
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
        return f"{self._doors.of(account).host} accepts the key and lists {len(models)} models."

    async def forget(self, account_id: str) -> None:
        """Drops the prepared headers, which hold the key."""
        self._doors.forget(account_id)

    async def close(self) -> None:
        """The session is the caller's."""
        self._doors.clear()


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
            raise UpstreamFailure(*told_in_band(value, endpoint, model=model, answered=False))
    raise UpstreamFailure(AdapterDrift(detail=f"200 with {kind} instead of an event stream"), Fate.ACCEPTED)


def _understood(reader: Reader, data: str, endpoint: Endpoint, model: str) -> list[ChatEvent]:
    """What an event tells, or the typed failure that it is."""
    try:
        return reader.take(data)
    except InBandError as told:
        failed = told_in_band(told.error, endpoint, model=model, answered=reader.spoke)
    except Drift as drift:
        failed = AdapterDrift(detail=str(drift)), Fate.ACCEPTED
    raise UpstreamFailure(*failed)
