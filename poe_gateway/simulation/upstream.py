"""The adapter of one simulated process to the simulated provider."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from poe_gateway.chat.events import ChatEvent
from poe_gateway.chat.request import ChatRequest
from poe_gateway.routing.catalog import Model
from poe_gateway.simulation.plan import PRICES
from poe_gateway.simulation.site import Site
from poe_gateway.upstreams.base import (
    AccountRef,
    Capabilities,
    CredentialField,
    Described,
    Reading,
    UpstreamFailure,
)

_BALANCE = 0.5
"""Seconds that a look at the balance takes."""


class SiteUpstream:
    """Upstream. ``contacting`` is told of every contact before it is made: account and what for."""

    name = "site"
    capabilities = Capabilities(balance=True, sessions=True)
    credential_fields: tuple[CredentialField, ...] = ()

    def __init__(self, site: Site, process: str, place: int, contacting: Callable[[str, str], None]) -> None:
        self._site = site
        self._process = process
        self._place = place
        self._contacting = contacting

    def describe(self, credentials: Mapping[str, Any]) -> Described:
        return Described(offer="site")

    async def chat(
        self, account: AccountRef, model: str, request: ChatRequest, bound: Mapping[str, Any] | None
    ) -> AsyncGenerator[ChatEvent, None]:
        evidence = request.metadata["request"]
        self._contacting(account.id, evidence)
        inbox = _Inbox()
        connection = self._site.request(
            process=self._process,
            place=self._place,
            account_id=account.id,
            model=model,
            body=int(request.metadata["body"]),
            seconds=float(request.metadata["seconds"]),
            evidence=evidence,
            deliver=inbox.put,
        )
        try:
            while True:
                event = await inbox.get()
                if event is None:
                    return
                if isinstance(event, UpstreamFailure):
                    raise event
                yield event
        finally:
            self._site.close(connection)

    async def read_balance(self, account: AccountRef) -> Reading:
        self._contacting(account.id, "balance")
        await asyncio.sleep(_BALANCE)
        return self._site.read_balance(account.id, self._place)

    async def list_models(self, account: AccountRef) -> list[Model]:
        return [Model(id=model, upstream=model, owned_by="site") for model in PRICES]

    async def prewarm(self, account: AccountRef) -> None:
        self._contacting(account.id, "prewarm")

    async def probe(self, account: AccountRef) -> str:
        self._contacting(account.id, "probe")
        await asyncio.sleep(_BALANCE)
        self._site.read_balance(account.id, self._place)
        return "The account answers."

    async def forget(self, account_id: str) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing runs beside the requests."""


class _Inbox:
    """What came over a connection and was not read yet. ``None``: the connection ended."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: deque[ChatEvent | UpstreamFailure | None] = deque()
        self._reader: asyncio.Future[None] | None = None

    def put(self, event: ChatEvent | UpstreamFailure | None) -> None:
        self._events.append(event)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def get(self) -> ChatEvent | UpstreamFailure | None:
        while not self._events:
            self._reader = self._loop.create_future()
            await self._reader
        return self._events.popleft()
