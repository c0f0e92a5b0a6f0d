"""What an upstream adapter is: the one interface between the walk and a provider.

An adapter does I/O and translation; it knows nothing of the pool, MongoDB or HTTP callers. It is handed an
``AccountRef`` with opened credentials only after a slot was won. Failures are typed outcomes, raised as
``UpstreamFailure``; an adapter never retries a message whose fate is unknown.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import msgspec

from poe_gateway.chat.events import ChatEvent
from poe_gateway.chat.request import ChatRequest, Operation
from poe_gateway.metering.matching import BookEntry as BookEntry  # part of this interface
from poe_gateway.pool.outcome import Failure
from poe_gateway.routing.catalog import Model as Model  # part of this interface


class Fate(StrEnum):
    """What became of the caller's message when the attempt failed."""

    NOT_SENT = "not_sent"
    """Certainly not accepted by the upstream: another account may be tried."""
    UNKNOWN = "unknown"
    """Perhaps accepted: never sent again."""
    ACCEPTED = "accepted"
    """Accepted, the answer failed."""


class UpstreamFailure(Exception):
    """An attempt failed; ``outcome`` says how, ``fate`` what became of the message."""

    def __init__(self, outcome: Failure, fate: Fate = Fate.NOT_SENT) -> None:
        super().__init__(f"{type(outcome).__name__} ({fate})")
        self.outcome = outcome
        self.fate = fate


class CredentialError(ValueError):
    """The operator's credential document does not fit the schema; ``field`` names the culprit."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


class CredentialField(msgspec.Struct, frozen=True, kw_only=True):
    """One field of an adapter's credential schema."""

    name: str
    required: bool = False
    secret: bool = True
    kind: type = str
    description: str = ""
    pattern: str | None = None


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter makes of valid credentials: the catalogue key and public facts about the account.

    ``offer`` is the adapter's name, alone or with a colon and more behind it.
    """

    offer: str
    metered: bool = False
    renews_daily: bool = False
    details: dict[str, Any] = {}


class AccountRef(msgspec.Struct, frozen=True, kw_only=True):
    """An account with its opened credentials, alive only during an attempt. Never log or store it."""

    id: str
    name: str
    offer: str
    credentials: dict[str, Any]
    credential_rev: int = 0

    def __repr__(self) -> str:
        return f"AccountRef(id={self.id!r})"


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A measured balance. Times are aware UTC; None = not told by the upstream."""

    points: int | None = None
    subscription_active: bool | None = None
    allotment: int | None = None
    next_grant_at: datetime | None = None
    details: dict[str, Any] = {}


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """What an upstream itself wrote down about an account: every entry from ``since`` on, in any order."""

    since: datetime
    entries: tuple[BookEntry, ...] = ()


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What the adapter can do, as data."""

    balance: bool = False
    prewarm: bool = False
    sessions: bool = False
    """Keeps conversations upstream: a ``Bound`` event's state may be handed to the next call."""
    images: bool = False
    """Takes pictures in prompts."""
    operations: frozenset[Operation] = frozenset({"chat"})
    """What it can be asked for: ``chat``, ``embed``, ``image``."""
    tools: bool = False
    """Takes tools and answers with calls; else they are emulated by the prompt."""
    structured: bool = False
    """Holds the answer to a form (JSON, a schema); else that is emulated by the prompt."""
    tells_tokens: bool = False
    """Its answers tell how many tokens they took, as a rule; else they are counted here."""
    json_mode: bool = True
    """With ``structured``: also without a schema (any JSON object)."""
    parameters: frozenset[str] | None = frozenset()
    """Sampling parameters that it follows, in OpenAI's names; None: whatever is given is passed on."""
    books: bool = False
    """Tells what every exchange cost, at least for some of its accounts: it is a ``Bookkeeper`` too."""


class Upstream(Protocol):
    """One provider. Instances live as long as the process and serve all its accounts."""

    @property
    def name(self) -> str:
        """The provider's name, as accounts carry it."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    @property
    def credential_fields(self) -> tuple[CredentialField, ...]:
        """The schema of its credentials."""

    def describe(self, credentials: Mapping[str, Any]) -> Described:
        """Check the operator's document (``check_fields`` first). Raises CredentialError."""

    def chat(
        self, account: AccountRef, model: str, request: ChatRequest, bound: Mapping[str, Any] | None
    ) -> AsyncGenerator[ChatEvent, None]:
        """Answer ``request`` with the upstream model name ``model``. Raises UpstreamFailure.

        ``request.operation`` is one of ``capabilities.operations``; every operation answers in ``ChatEvent``s.

        ``bound`` continues an upstream conversation: ``request.messages`` then holds only the new turns.
        Closing the iterator early (``aclose``) means that the caller left: the adapter cancels upstream.
        """

    async def read_balance(self, account: AccountRef) -> Reading:
        """Measure the balance. Raises UpstreamFailure."""

    async def list_models(self, account: AccountRef) -> list[Model]:
        """The catalogue as this account sees it. Raises UpstreamFailure."""

    async def prewarm(self, account: AccountRef) -> None:
        """Open what a first request would have to open. Raises UpstreamFailure."""

    async def probe(self, account: AccountRef) -> str:
        """One real, cheap round trip; returns a sentence for the operator. Raises UpstreamFailure."""

    async def forget(self, account_id: str) -> None:
        """Drop connections and derived secrets of the account (new credentials, deletion, challenge)."""

    async def close(self) -> None:
        """Stop everything."""


@runtime_checkable
class Bookkeeper(Protocol):
    """What an upstream with the capability ``books`` can do besides."""

    async def read_books(self, account: AccountRef, since: datetime) -> Books | None:
        """The upstream's entries, at best from ``since`` on; ``Books.since`` says how far back they are whole.

        None: this account has no books (empty ones would mean that nothing was spent). Raises UpstreamFailure.
        """


def check_fields(fields: tuple[CredentialField, ...], credentials: Mapping[str, Any]) -> dict[str, Any]:
    """The document reduced to known, non-empty fields. Raises CredentialError on unknown, missing or mistyped ones."""
    known = {field.name: field for field in fields}
    for name in credentials:
        if name not in known:
            raise CredentialError(name, f"unknown credential field '{name}'; known: {', '.join(known)}")
    clean: dict[str, Any] = {}
    for field in fields:
        value = credentials.get(field.name)
        if isinstance(value, str):
            value = value.strip()
        if value is None or value == "":
            if field.required:
                raise CredentialError(field.name, f"'{field.name}' is required")
            continue
        if not isinstance(value, field.kind):
            raise CredentialError(field.name, f"'{field.name}' must be of type {field.kind.__name__}")
        if isinstance(value, str) and (any(ord(c) < 32 or ord(c) == 127 for c in value)):
            raise CredentialError(field.name, f"'{field.name}' contains control characters")
        clean[field.name] = value
    return clean
