"""Any OpenAI-compatible provider by API key: OpenAI itself, OpenRouter, DashScope, Poe's official API, a local server.

A message is sent once; ``upstreams.transport`` tells what becomes of it when the exchange fails.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, TypeVar

import aiohttp

from poe_gateway.chat.events import ChatEvent
from poe_gateway.chat.request import ChatRequest
from poe_gateway.clock import Clock
from poe_gateway.outbound.fetch import ImageFetcher
from poe_gateway.pool.outcome import AdapterDrift, Rejected, Unauthorized
from poe_gateway.upstreams.base import (
    AccountRef,
    Books,
    Capabilities,
    Described,
    Model,
    Reading,
    UpstreamFailure,
)
from poe_gateway.upstreams.bodies import json_body
from poe_gateway.upstreams.door import Doors, listed_by_hand
from poe_gateway.upstreams.drift import Drift
from poe_gateway.upstreams.exchange import Exchange
from poe_gateway.upstreams.openai_api.answers import read_answer
from poe_gateway.upstreams.openai_api.asking import chat_body
from poe_gateway.upstreams.openai_api.balances import read_credits, read_key, read_points
from poe_gateway.upstreams.openai_api.catalogue import read_models
from poe_gateway.upstreams.openai_api.endpoint import FIELDS, Endpoint, read_endpoint
from poe_gateway.upstreams.openai_api.figures import plain
from poe_gateway.upstreams.openai_api.history import History
from poe_gateway.upstreams.openai_api.making import made
from poe_gateway.upstreams.openai_api.presets import presets_with
from poe_gateway.upstreams.openai_api.refusals import refusal
from poe_gateway.upstreams.vetting import vet_pictures

T = TypeVar("T")


class OpenAIAPI:
    """Implements ``Upstream``. ``session`` belongs to the caller and is not closed here.

    ``preset_urls`` replaces addresses of presets (tests). ``images`` fetches pictures that are to be edited and come
    by address (None: they are refused), and judges addresses that a server nearby would fetch from.
    ``idle_timeout``: seconds without a byte until an answer counts as dead; ``small_timeout``: seconds for the list
    of models and the balance.
    """

    name = "openai_api"
    capabilities = Capabilities(
        tells_tokens=True,
        balance=True,
        images=True,
        operations=frozenset({"chat", "embed", "image"}),
        parameters=None,
        tools=True,
        structured=True,
        books=True,
    )
    credential_fields = FIELDS

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        clock: Clock,
        preset_urls: Mapping[str, str] | None = None,
        images: ImageFetcher | None = None,
        idle_timeout: float = 180.0,
        small_timeout: float = 20.0,
    ) -> None:
        self._exchange = Exchange[Endpoint](session, clock, refusal, idle=idle_timeout, small=small_timeout)
        self._images = images
        self._presets = presets_with(preset_urls)
        self._doors = Doors(lambda credentials: read_endpoint(credentials, self._presets))

    def describe(self, credentials: Mapping[str, Any]) -> Described:
        """Offer ``openai_api:<host[:port]>`` with digests of an unusual path and of an allow-list."""
        endpoint = read_endpoint(credentials, self._presets)
        details = {"host": endpoint.host, "preset": endpoint.preset}
        return Described(offer=endpoint.offer, metered=endpoint.points_url is not None, details=details)

    async def chat(
        self, account: AccountRef, model: str, request: ChatRequest, bound: Mapping[str, Any] | None
    ) -> AsyncGenerator[ChatEvent, None]:
        """The provider's answer as it comes. ``bound`` is ignored: these providers keep no conversation."""
        endpoint = self._doors.of(account)
        endpoint.admit(model)
        if request.operation != "chat":
            for event in await made(self._exchange, endpoint, model, request, self._images):
                yield event
            return
        if endpoint.nearby and self._images is not None:
            await vet_pictures(request, self._images)
        body = json_body(lambda: chat_body(request, model, endpoint.known))
        async with (
            self._exchange.post(endpoint, endpoint.chat_url, body, model=model, accept="text/event-stream") as response,
            aclosing(read_answer(response, endpoint, model=model)) as events,
        ):
            async for event in events:
                yield event

    async def read_balance(self, account: AccountRef) -> Reading:
        """Points of Poe's official API, dollars of OpenRouter; nothing for providers that do not tell."""
        endpoint = self._doors.of(account)
        if endpoint.points_url is not None:
            return Reading(points=_read(read_points, await self._exchange.get(endpoint, endpoint.points_url)))
        if endpoint.key_url is None:
            return Reading()
        left = _read(read_key, await self._exchange.get(endpoint, endpoint.key_url))
        if left is None:
            try:
                left = _read(read_credits, await self._exchange.get(endpoint, endpoint.credits_url))
            except UpstreamFailure as failed:
                if not isinstance(failed.outcome, Unauthorized | Rejected):
                    raise
                return Reading()  # told to management keys only; the key itself was found good
        return Reading(details={"balance": plain(left), "currency": "USD"})

    async def read_books(self, account: AccountRef, since: datetime) -> Books | None:
        """Poe's usage history, newest first, page by page until ``since``; None for providers that keep none."""
        endpoint = self._doors.of(account)
        if endpoint.books_url is None:
            return None
        history = History(since)
        while (query := history.next_page()) is not None:
            _read(history.take, await self._exchange.get(endpoint, f"{endpoint.books_url}?{query}"))
        return history.books()

    async def list_models(self, account: AccountRef) -> list[Model]:
        """The provider's models, or those of the allow-list that it has; the allow-list where it has no list."""
        endpoint = self._doors.of(account)
        try:
            body = await self._exchange.get(endpoint, endpoint.models_url)
        except UpstreamFailure as failed:
            if endpoint.models is None or not isinstance(failed.outcome, AdapterDrift):
                raise
            return listed_by_hand(endpoint.models)
        return _read(lambda body: read_models(body, endpoint.models), body)

    async def prewarm(self, account: AccountRef) -> None:
        """Nothing to open: connections are shared and opened when needed."""

    async def probe(self, account: AccountRef) -> str:
        """Lists the models and reads the balance where one is told, which verifies the key where the list does not."""
        endpoint = self._doors.of(account)
        models = await self.list_models(account)
        balance = await self.read_balance(account)
        left = "" if balance.points is None else f", {balance.points} points left"
        if money := balance.details.get("balance"):
            left = f", {money} {balance.details['currency']} left"
        return f"{endpoint.host} accepts the {'key' if endpoint.key else 'call'} and lists {len(models)} models{left}."

    async def forget(self, account_id: str) -> None:
        """Drops the prepared headers, which hold the key."""
        self._doors.forget(account_id)

    async def close(self) -> None:
        """The session is the caller's."""
        self._doors.clear()


def _read(read: Callable[[bytes], T], body: bytes) -> T:
    try:
        return read(body)
    except Drift as drift:
        raise UpstreamFailure(AdapterDrift(detail=str(drift))) from None
