"""The sealed record of one response: what it answered, and what it was asked. Pure but for the vault."""

from __future__ import annotations

from typing import Any

import msgspec

from poe_gateway.chat.dialect import Reply
from poe_gateway.chat.responses import objects
from poe_gateway.chat.responses.echo import Item, echo_of
from poe_gateway.conversations.kept import Kept
from poe_gateway.vault import Vault, VaultError

_KINDS = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "image_generation_call": "ig",
}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange."""

    response: dict[str, Any]
    """The response object as it was sent."""
    items: list[Item]
    """Its own input, each item with an id."""
    session: str | None
    """Where the upstream's side of the conversation is."""

    @property
    def conversation(self) -> list[Item]:
        """What this exchange adds to a conversation."""
        return [*self.items, *self.response["output"]]

    def item(self, item_id: str) -> Item | None:
        """One of its items."""
        return next((each for each in self.conversation if each["id"] == item_id), None)


def record_of(reply: Reply) -> Record:
    """The record of an answer."""
    output = objects.output(reply)
    return Record(
        response={**objects.finished(reply, output), "store": True},
        items=_with_ids(echo_of(reply.head.request).items, reply.head.id),
        session=reply.head.request.session_id,
    )


def _with_ids(items: tuple[Item, ...], response_id: str) -> list[Item]:
    """Ids that the caller gave are kept; each stands once."""
    used: set[str] = set()
    told: list[Item] = []
    for place, item in enumerate(items):
        given = item.get("id")
        if given is None or given in used:
            given = f"{objects.item_id(_KINDS.get(item['type'], 'item'), response_id)}_in{place}"
        used.add(given)
        told.append({**item, "id": given})
    return told


def sealed(vault: Vault, reply: Reply, key_id: str) -> bytes:
    """The record under seal. Whose it is is sealed too, so that no document can be passed off as another."""
    record = record_of(reply)
    return vault.seal(
        {
            "id": reply.head.id,
            "key_id": key_id,
            "response": record.response,
            "items": record.items,
            "session": record.session,
        }
    )


def opened(vault: Vault, kept: Kept) -> Record | None:
    """The record of a kept response; None when it cannot be opened or is not what it stands for."""
    try:
        document = vault.open(kept.sealed)
    except VaultError:
        return None
    if document["id"] != kept.id or document["key_id"] != kept.key_id:
        return None
    return Record(response=document["response"], items=document["items"], session=document["session"])
