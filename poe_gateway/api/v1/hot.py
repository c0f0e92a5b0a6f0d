"""All hot routes: every dialect with its paths, each within an ``Idempotency-Key``'s keeping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from poe_gateway.api.idempotent import Idempotent
from poe_gateway.api.traffic import TrafficNotes
from poe_gateway.api.v1.endpoint import Endpoint, Shelf
from poe_gateway.api.v1.pictures import Pictures
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.chat.anthropic import AnthropicMessages
from poe_gateway.chat.dialect import Dialect
from poe_gateway.chat.embeddings import OpenAIEmbeddings
from poe_gateway.chat.images import OpenAIImageEdits, OpenAIImages
from poe_gateway.chat.ollama import OllamaChat, OllamaEmbed, OllamaEmbeddings, OllamaGenerate
from poe_gateway.chat.openai_chat import OpenAIChat
from poe_gateway.chat.responses import OpenAIResponses
from poe_gateway.clock import Clock, Ids
from poe_gateway.dispatch.router import Router
from poe_gateway.idempotency.book import Book
from poe_gateway.telemetry.hub import Telemetry

DIALECTS: tuple[Callable[[], Dialect], ...] = (
    OpenAIChat,
    OpenAIResponses,
    AnthropicMessages,
    OpenAIEmbeddings,
    OpenAIImages,
    OpenAIImageEdits,
    OllamaChat,
    OllamaGenerate,
    OllamaEmbed,
    OllamaEmbeddings,
)


class HotParts(msgspec.Struct, frozen=True, kw_only=True):
    """What every hot route is made of. ``notice_after``: see ``Endpoint``; ``streams`` and ``patience``: see
    ``Idempotent``."""

    router: Router
    keyring: KeyRing
    telemetry: Telemetry
    clock: Clock
    ids: Ids
    book: Book
    shelf: Shelf
    pictures: Pictures
    traffic: TrafficNotes | None
    max_body: int
    notice_after: float
    streams: Literal["replay", "reject"]
    patience: float


def hot_routes(parts: HotParts) -> dict[str, Idempotent]:
    """By path. One instance for all paths of a dialect: twins over several of them join as well."""
    return {path: route for make in DIALECTS for path, route in _routes(make(), parts)}


def _routes(dialect: Dialect, parts: HotParts) -> Iterator[tuple[str, Idempotent]]:
    endpoint = Endpoint(
        dialect,
        router=parts.router,
        keyring=parts.keyring,
        telemetry=parts.telemetry,
        clock=parts.clock,
        ids=parts.ids,
        max_body=parts.max_body,
        notice_after=parts.notice_after,
        traffic=parts.traffic,
        shelf=parts.shelf if isinstance(dialect, OpenAIResponses) else None,
        completed=parts.pictures.completed if isinstance(dialect, OpenAIImages | OpenAIImageEdits) else None,
        parse=dialect.parse_form if isinstance(dialect, OpenAIImageEdits) else None,
    )
    route = Idempotent(
        endpoint,
        name=dialect.route,
        shape=dialect.shape,
        book=parts.book,
        keyring=parts.keyring,
        clock=parts.clock,
        telemetry=parts.telemetry,
        max_body=parts.max_body,
        streams=parts.streams,
        patience=parts.patience,
        streaming=isinstance(dialect, OllamaChat | OllamaGenerate),
    )
    yield dialect.route, route
    if dialect.route.startswith("/v1/"):
        yield dialect.route.removeprefix("/v1"), route
