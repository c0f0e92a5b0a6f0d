"""Everything the adapter holds for one account: HTTP half, push half, messages in flight.

After a bot challenge a connection sends nothing more. Whether the account is to blame, or the one message that met the
challenge, is for the pool to judge: it hears of the challenge once, from whoever met it. Everything else that ends
because of it proves nothing. Should the pool go on choosing the account, it gets another connection after a while.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from poe_gateway.pool.outcome import AdapterDrift, Challenged, NetworkFault, Transient, Unauthorized
from poe_gateway.upstreams.base import AccountRef, Fate, Model, Reading, UpstreamFailure
from poe_gateway.upstreams.poe_web import wire
from poe_gateway.upstreams.poe_web.background import Background
from poe_gateway.upstreams.poe_web.catalogue import bots_page, bots_variables
from poe_gateway.upstreams.poe_web.identity import Identity
from poe_gateway.upstreams.poe_web.messages import Update, chat_nodes
from poe_gateway.upstreams.poe_web.push import PushSocket
from poe_gateway.upstreams.poe_web.router import Router
from poe_gateway.upstreams.poe_web.settings import reading_of
from poe_gateway.upstreams.poe_web.shared import Shared
from poe_gateway.upstreams.poe_web.site import Site

_CHAT_LIST_COUNT = 10
_COLLATERAL = NetworkFault("closed after a bot challenge that another request met")


class Connection:
    """One account's connection, as long as its credentials stay the same."""

    def __init__(self, account: AccountRef, shared: Shared, errands: Background, readers: Background) -> None:
        options = shared.options
        self.account_id = account.id
        self.credential_rev = account.credential_rev
        self.shared = shared
        self.errands = errands
        """Cancellations and deletions: short, and worth waiting for at the end."""
        self.sdid = wire.uuid4_text(shared.ids.rng.getrandbits(128))
        self.site = Site(shared, Identity(account.credentials, shared.protocol), self._on_challenge)
        self.router = Router(
            early_chats=options.early_chats, early_events=options.early_events, early_ttl=options.early_ttl
        )
        self.socket = PushSocket(self.site, self.router, readers)
        self._next_grant_at: datetime | None = None
        self._deleting = 0
        self._reported = False
        """The pool was told of the challenge."""

    def __repr__(self) -> str:
        return f"Connection(account={self.account_id!r}, open={self.socket.is_open}, challenged={self.site.challenged})"

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Around whatever the pool asks for: a challenge is told once, by the request that met it.

        When it was met by an errand that nobody waits for, the next request tells.
        """
        late = self.site.challenged
        try:
            yield
        except UpstreamFailure as failure:
            if not isinstance(failure.outcome, Challenged):
                raise
            if self._reported or not (late or failure.outcome is self.site.met):
                raise UpstreamFailure(_COLLATERAL, failure.fate) from None
            self._reported = True
            raise

    def over_for(self, seconds: float) -> bool:
        """Whether the pool was told of a challenge that is at least so long ago."""
        return self._reported and self.shared.clock.monotonic() - self.site.met_at >= seconds

    def _on_challenge(self) -> None:
        """Not one more request: messages in flight end, the socket is closed."""
        self.router.broadcast(UpstreamFailure(_COLLATERAL, Fate.ACCEPTED))
        self.socket.shut()

    def close(self) -> None:
        """Drop the connection; a challenge stays the reason why nothing goes out any more."""
        self.site.close()
        self.router.broadcast(UpstreamFailure(Transient("the connection was dropped"), Fate.ACCEPTED))
        self.socket.shut()

    @property
    def next_grant_at(self) -> datetime | None:
        """The next grant as last read, while it still lies ahead."""
        known = self._next_grant_at
        return known if known is not None and known > self.shared.clock.now() else None

    async def ready(self) -> None:
        """Keys, channel, subscriptions, socket. Raises UpstreamFailure (NOT_SENT)."""
        try:
            await self.socket.ensure()
        except UpstreamFailure as failure:
            raise UpstreamFailure(failure.outcome, Fate.NOT_SENT) from None

    async def read_balance(self) -> Reading:
        """Measure the points. Raises UpstreamFailure."""
        data = await self.site.call("settings", {})
        viewer = data.get("viewer")
        if viewer is None:
            raise UpstreamFailure(Unauthorized("the site knows no viewer"))
        if not isinstance(viewer, dict):
            raise UpstreamFailure(AdapterDrift("the viewer is no object"))
        reading = reading_of(viewer)
        self._next_grant_at = reading.next_grant_at
        return reading

    async def list_models(self) -> list[Model]:
        """All pages of the bot list, each model once. Raises UpstreamFailure."""
        protocol, found, cursors = self.shared.protocol, dict[str, Model](), set[str]()
        cursor: str | None = None
        for _ in range(self.shared.options.model_pages):
            data = await self.site.call("bots", bots_variables(protocol, cursor))
            if data.get("viewer", ...) is None:
                raise UpstreamFailure(Unauthorized("the site knows no viewer"))
            page = bots_page(data, protocol)
            if page is None:
                raise UpstreamFailure(AdapterDrift("the bot list has another shape"))
            for model in page.models:
                found.setdefault(model.id.lower(), model)
            cursor = page.cursor
            if cursor is None or cursor in cursors:
                break
            cursors.add(cursor)
        if not found:
            raise UpstreamFailure(AdapterDrift("the site lists no bots"))
        return list(found.values())

    async def read_chat(self, chat_id: int, chat_code: str | None) -> list[Update]:
        """The messages of a chat. Raises UpstreamFailure."""
        if chat_code:
            data = await self.site.call("chat_page", {"chatCode": chat_code})
        else:
            asked = {"count": _CHAT_LIST_COUNT, "cursor": None, "id": wire.chat_node_id(chat_id)}
            data = await self.site.call("chat_list", asked)
        nodes = chat_nodes(data)
        if nodes is None:
            raise UpstreamFailure(AdapterDrift("the chat has another shape"))
        return nodes

    async def cancel(self, chat_id: int, message_id: str | None, text_length: int) -> None:
        """Stop what runs in a chat; by message where stopping by chat fails. Never raises."""
        try:
            await self.site.call("cancel_jobs", {"chatId": chat_id}, once=True)
        except UpstreamFailure as failure:
            if isinstance(failure.outcome, Challenged | Unauthorized) or message_id is None:
                return
            number: Any = int(message_id) if message_id.isdecimal() else message_id
            try:
                await self.site.call("cancel_message", {"messageId": number, "textLength": text_length}, once=True)
            except UpstreamFailure:
                return

    def delete_later(self, chat_id: int) -> None:
        """Delete a chat that nobody will continue, in the background. Too many at once are left alone."""
        if self._deleting < self.shared.options.deletions and not self.site.challenged:
            self._deleting += 1
            self.errands.spawn(self._delete(chat_id))

    async def _delete(self, chat_id: int) -> None:
        try:
            await self.site.call("delete_chat", {"chatId": chat_id})
        except UpstreamFailure:
            return
        finally:
            self._deleting -= 1
