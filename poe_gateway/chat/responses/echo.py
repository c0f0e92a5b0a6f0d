"""What of a request is needed after it was asked: for its answer to say again, and for conversations to go on. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from poe_gateway.chat.request import ChatRequest

Item = dict[str, Any]
"""An item of input or output as it stands on the wire."""
_NAME = "responses"


class Echo(msgspec.Struct, frozen=True, kw_only=True):
    """One request in the dialect's own terms."""

    items: tuple[Item, ...]
    """The input in its full form (see ``items``), references unresolved."""
    form: dict[str, Any]
    """Fields of the response object that repeat the request; writable by orjson."""
    store: bool = False
    """The answer is to be kept."""
    previous: str | None = None
    """Id of the response that this one goes on from."""
    instructed: bool = False
    """The request's first message is ``instructions``; they are never carried over."""
    summary: bool = False
    """The model's thinking is told as a summary."""
    path: tuple[str, ...] = ()
    """Ids of the responses that it goes on from, the oldest first; known once they are recalled."""
    weight: int = 0
    """Bytes that these hold under seal."""

    @property
    def refers(self) -> bool:
        """Items of earlier responses are named instead of sent."""
        return any(item["type"] == "item_reference" for item in self.items)

    def said(self) -> dict[str, Any]:
        """As ``ChatRequest.echo``."""
        return {_NAME: self}


def echo_of(request: ChatRequest) -> Echo:
    """The echo of a request of this dialect."""
    echo: Echo = request.echo[_NAME]
    return echo
