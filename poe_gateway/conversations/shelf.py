"""The shelf: keeps responses whose callers want that, and gives requests what they go on from.

A response goes on from an earlier one of the same service key, or there is none: to others it does not exist. A kept
response stays for ``ttl`` seconds after the last one that goes on from it. A deleted one cannot be read, referred to or
gone on from any more; what went on from it before keeps its words, and they go with the last of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from poe_gateway.auth.keys import Principal
from poe_gateway.chat.dialect import Reply
from poe_gateway.chat.request import ChatRequest
from poe_gateway.chat.responses.echo import Echo, Item, echo_of
from poe_gateway.chat.responses.objects import response_of
from poe_gateway.chat.responses.turns import check_calls, check_turns, turns
from poe_gateway.clock import Ids
from poe_gateway.conversations.kept import Kept, KeptStore
from poe_gateway.conversations.record import Record, opened, sealed
from poe_gateway.errors import InvalidRequest, NotFound, RequestTooLarge, StoreUnavailable, Unavailable
from poe_gateway.vault import Vault

_MEGABYTE = 1024 * 1024
_LARGEST = 15 * _MEGABYTE
"""Bytes of one sealed response; a document of MongoDB holds 16."""
_HEAVIEST = 48 * _MEGABYTE
"""Bytes under seal of a conversation that can be continued."""
_LONGEST = 500
"""Responses of a conversation that can be continued."""


class Shelf:
    """Of one process. ``lost`` is told when a response could not be kept."""

    def __init__(
        self,
        *,
        store: KeptStore,
        vault: Vault,
        ids: Ids,
        ttl: float,
        lost: Callable[[str], None] = lambda what: None,
        longest: int = _LONGEST,
        heaviest: int = _HEAVIEST,
    ) -> None:
        """``ttl``: seconds. ``longest`` and ``heaviest`` bound a conversation that can be continued."""
        self._store = store
        self._vault = vault
        self._ids = ids
        self._ttl = ttl
        self._lost = lost
        self._longest = longest
        self._heaviest = heaviest

    async def recall(self, principal: Principal, request: ChatRequest) -> ChatRequest:
        """The request with the conversation that it goes on from, on the same session.

        Raises InvalidRequest for a response that the key does not have and for outputs of unknown calls, NotFound for
        such an item, RequestTooLarge for a conversation beyond the bounds, Unavailable while the database is away.
        """
        echo = echo_of(request)
        if echo.previous is None and not echo.refers:
            # What is kept may be continued: its side at the upstream must be found again then.
            return self._in_session(request, self._ids.new("conv") if echo.store else None)
        earlier: list[Item] = []
        session: str | None = None
        if echo.previous is not None:
            last, records = await self._conversation(principal, echo.previous)
            echo = replace(echo, path=(*last.path, last.id), weight=last.weight)
            earlier = [item for record in records for item in record.conversation]
            session = records[-1].session
        echo = replace(echo, items=await self._resolved(principal, echo))
        check_turns(echo.items)
        check_calls(earlier, echo.items)
        begin = request.messages[:1] if echo.instructed else ()
        request = replace(request, messages=(*begin, *turns([*earlier, *echo.items])), echo=echo.said())
        if session is not None and not request.session_explicit:
            return replace(request, session_id=session)
        return self._in_session(request, self._ids.new("conv") if echo.store else None)

    @staticmethod
    def _in_session(request: ChatRequest, session: str | None) -> ChatRequest:
        """In the caller's own session, if he named one."""
        return request if request.session_id is not None or session is None else replace(request, session_id=session)

    async def keep(self, principal: Principal, reply: Reply) -> bool:
        """Keep an answer whose caller asked for it; False when it is not kept: too large, or the database is away."""
        echo = echo_of(reply.head.request)
        if not echo.store:
            return False
        seal = await asyncio.to_thread(sealed, self._vault, reply, principal.key_id)
        if len(seal) > _LARGEST:
            return False
        kept = Kept(
            id=reply.head.id,
            key_id=principal.key_id,
            org=principal.org,
            path=echo.path,
            weight=echo.weight + len(seal),
            sealed=seal,
            kid=self._vault.kid,
        )
        try:
            await self._store.put(kept, self._ttl)
        except StoreUnavailable:
            self._lost("a response could not be kept")
            return False
        return True

    async def find(self, principal: Principal, response_id: str) -> Record:
        """A kept response of the key. Raises NotFound, Unavailable."""
        kept = (await self._fetch(principal, [response_id])).get(response_id)
        records = await self._opened([kept]) if kept is not None and not kept.deleted else None
        if records is None:
            raise _unknown(response_id)
        return records[0]

    async def drop(self, principal: Principal, response_id: str) -> None:
        """Delete a kept response of the key. Raises NotFound, Unavailable."""
        try:
            dropped = await self._store.drop(principal.key_id, response_id)
        except StoreUnavailable:
            raise _away() from None
        if not dropped:
            raise _unknown(response_id)

    async def _conversation(self, principal: Principal, previous: str) -> tuple[Kept, list[Record]]:
        """The response that is gone on from, and the records up to it."""
        last = (await self._fetch(principal, [previous])).get(previous)
        if last is None or last.deleted:
            raise _no_previous(f"Previous response with id '{previous}' not found.")
        if len(last.path) >= self._longest or last.weight > self._heaviest:
            raise RequestTooLarge("The conversation is too long to be continued.", param="previous_response_id")
        kept = {**await self._fetch(principal, last.path), last.id: last}
        chain = [kept[each] for each in (*last.path, last.id) if each in kept]
        records = await self._opened(chain) if len(chain) > len(last.path) else None
        if records is None:
            raise _no_previous(f"An earlier response of the conversation of '{previous}' is gone.")
        return last, records

    async def _resolved(self, principal: Principal, echo: Echo) -> tuple[Item, ...]:
        """The items, references replaced by what they name. Raises NotFound."""
        if not echo.refers:
            return echo.items
        named = {response_of(item["id"]) for item in echo.items if item["type"] == "item_reference"}
        if len(named) > self._longest:
            raise RequestTooLarge("Too many responses are referred to.", param="input")
        there = (await self._fetch(principal, sorted(named))).values()
        records = await self._opened([kept for kept in there if not kept.deleted])
        items: list[Item] = []
        for place, item in enumerate(echo.items):
            if item["type"] == "item_reference":
                found = [each for record in records or () if (each := record.item(item["id"])) is not None]
                if not found:
                    raise _no_item(item["id"], place)
                item = found[0]
            items.append(item)
        return tuple(items)

    async def _fetch(self, principal: Principal, ids: Sequence[str]) -> dict[str, Kept]:
        if not ids:
            return {}
        try:
            return await self._store.fetch(principal.key_id, ids)
        except StoreUnavailable:
            raise _away() from None

    async def _opened(self, chain: list[Kept]) -> list[Record] | None:
        """The records; None when one cannot be opened."""
        records = await asyncio.to_thread(lambda: [opened(self._vault, each) for each in chain])
        whole = [record for record in records if record is not None]
        return whole if len(whole) == len(chain) else None


def _unknown(response_id: str) -> NotFound:
    return NotFound(f"Response with id '{response_id[:128]}' not found.", code="response_not_found")


def _no_previous(message: str) -> InvalidRequest:
    """400, as the API says it: clients that start anew without their conversation look for it."""
    return InvalidRequest(message, code="previous_response_not_found", param="previous_response_id")


def _no_item(item_id: str, place: int) -> NotFound:
    return NotFound(
        f"Item with id '{item_id[:128]}' not found. Items are kept only with 'store': true: send it itself.",
        code="item_not_found",
        param=f"input[{place}]",
    )


def _away() -> Unavailable:
    return Unavailable("The database is not reachable.", code="database_unavailable", retry_after=5)
