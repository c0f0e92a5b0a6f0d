"""``PoeWeb``: the upstream adapter of the cookie-authenticated web chat. One connection per account."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from poe_gateway.chat.events import ChatEvent
from poe_gateway.chat.request import ChatRequest
from poe_gateway.clock import Clock, Ids
from poe_gateway.upstreams.base import (
    AccountRef,
    Capabilities,
    Described,
    Model,
    Reading,
)
from poe_gateway.upstreams.poe_web import identity
from poe_gateway.upstreams.poe_web.background import Background
from poe_gateway.upstreams.poe_web.chat import Exchange, FetchImage
from poe_gateway.upstreams.poe_web.connection import Connection
from poe_gateway.upstreams.poe_web.edge import Edge, SessionSource
from poe_gateway.upstreams.poe_web.options import PoeOptions
from poe_gateway.upstreams.poe_web.protocol import ProtocolData, load_protocol
from poe_gateway.upstreams.poe_web.shared import Revisions, Shared

_DRAIN = 5.0
"""Seconds that ``close`` gives to cancellations and deletions under way."""


class PoeWeb:
    """Speaks to the site for all its accounts.

    ``session`` must have no cookie jar (several accounts share it), or be a factory of such a session, which
    then belongs to the adapter. ``ws_base_url`` replaces scheme and host of the push channel's address.
    """

    name = "poe_web"
    capabilities = Capabilities(
        balance=True, prewarm=True, sessions=True, images=True, operations=frozenset({"chat", "image"})
    )
    credential_fields = identity.FIELDS

    def __init__(
        self,
        *,
        session: SessionSource,
        clock: Clock,
        ids: Ids,
        base_url: str = "https://poe.com",
        ws_base_url: str | None = None,
        default_revision: str | None = None,
        auto_fetch_revision: bool = True,
        protocol: ProtocolData | None = None,
        options: PoeOptions | None = None,
        fetch_image: FetchImage | None = None,
    ) -> None:
        options = options or PoeOptions()
        self._shared = Shared(
            edge=Edge(session, options),
            clock=clock,
            ids=ids,
            base_url=base_url,
            ws_base_url=ws_base_url,
            options=options,
            protocol=protocol or load_protocol(),
            revisions=Revisions(default_revision or None, auto_fetch=auto_fetch_revision),
        )
        self._fetch_image = fetch_image
        self._errands = Background()
        self._readers = Background()
        self._connections: dict[str, Connection] = {}

    def __repr__(self) -> str:
        return f"PoeWeb(connections={len(self._connections)}, errands={self._errands!r})"

    @property
    def protocol(self) -> ProtocolData:
        """The protocol in use."""
        return self._shared.protocol

    def use_protocol(self, protocol: ProtocolData) -> None:
        """Replace the protocol; requests made from now on follow the new one."""
        self._shared.protocol = protocol

    def describe(self, credentials: Mapping[str, Any]) -> Described:
        """Check the operator's document. Raises CredentialError."""
        return identity.describe(credentials)

    async def chat(
        self, account: AccountRef, model: str, request: ChatRequest, bound: Mapping[str, Any] | None
    ) -> AsyncGenerator[ChatEvent, None]:
        """Answer ``request``; see ``Upstream.chat``. ``model`` may be a handle or an upstream name."""
        connection = self._connection(account, self._shared.options.challenge_settle)
        exchange = Exchange(connection, model, request, bound, self._fetch_image)
        with connection.reporting():
            async with aclosing(exchange.events()) as events:
                async for event in events:
                    yield event

    async def read_balance(self, account: AccountRef) -> Reading:
        """Measure the points. Raises UpstreamFailure."""
        connection = self._visited(account)
        with connection.reporting():
            return await connection.read_balance()

    async def list_models(self, account: AccountRef) -> list[Model]:
        """The bots that this account may use. Raises UpstreamFailure."""
        connection = self._visited(account)
        with connection.reporting():
            return await connection.list_models()

    async def prewarm(self, account: AccountRef) -> None:
        """Page or settings, subscriptions, socket. Raises UpstreamFailure."""
        connection = self._visited(account)
        with connection.reporting():
            await connection.ready()

    async def probe(self, account: AccountRef) -> str:
        """Read the balance; a sentence for the operator. Raises UpstreamFailure."""
        reading = await self.read_balance(account)
        points = "an unknown number of" if reading.points is None else str(reading.points)
        return f"The site knows this account; it has {points} points."

    async def forget(self, account_id: str) -> None:
        """Drop connection and derived keys of the account."""
        if (connection := self._connections.pop(account_id, None)) is not None:
            connection.close()

    async def close(self) -> None:
        """Finish what is under way within a few seconds, then close everything."""
        await self._errands.drain(_DRAIN)
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        await self._readers.drain(_DRAIN)
        await self._shared.edge.close()

    def _visited(self, account: AccountRef) -> Connection:
        return self._connection(account, self._shared.options.challenge_rest)

    def _connection(self, account: AccountRef, settle: float) -> Connection:
        """The account's connection; new credentials get a new one, and ``settle`` seconds after a challenge."""
        known = self._connections.get(account.id)
        if known is not None and known.credential_rev >= account.credential_rev and not known.over_for(settle):
            return known
        if known is not None:
            known.close()
        connection = self._connections[account.id] = Connection(account, self._shared, self._errands, self._readers)
        return connection
