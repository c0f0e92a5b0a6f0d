"""The history of accounts: what happened to each, and why. Every process notes what it brought about itself."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec
from msgspec.structs import replace

from poe_gateway.explain.backlog import Backlog, RecordStore
from poe_gateway.pool.account import Account, Health, Scope

_WAITING = 10_000


class _Entry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    account_id: str
    at: datetime
    process: str = ""


class HealthChanged(_Entry, frozen=True, kw_only=True, tag="health"):
    """What the pool believes about the account changed, or about one model on it."""

    old_state: str
    old_cause: str
    state: str
    cause: str
    scope: str = Scope.ACCOUNT.value
    until: datetime | None = None
    model: str = ""
    """Set where only this model is blocked on the account."""
    evidence: str = ""
    """Id of the request or duty that brought it about."""


class BalanceMeasured(_Entry, frozen=True, kw_only=True, tag="balance"):
    """The upstream told the points that are left."""

    measured: int
    expected: int | None = None
    """By our own ledger; None when nothing was known."""
    unexplained: int = 0
    """Points that are gone without our doing; negative for points that came unexpectedly."""
    renewed: bool = False
    """The difference is a renewal."""
    evidence: str = ""


class AttemptFailed(_Entry, frozen=True, kw_only=True, tag="failure"):
    """One attempt on the account failed."""

    outcome: str
    """``RateLimited`` …"""
    detail: str = ""
    """For the operator: short, without secrets."""
    model: str = ""
    charged_to: str = ""
    """Scope of the fault after attribution."""
    withheld: str = ""
    """Why the account's state was not changed."""
    evidence: str = ""
    """Id of the request."""


class OperatorActed(_Entry, frozen=True, kw_only=True, tag="operator"):
    """The operator did something with the account."""

    verb: str
    """``upsert``, ``pause``, ``resume``, ``clear_cooldown``, ``change`` …"""
    detail: str = ""


class AlertRaised(_Entry, frozen=True, kw_only=True, tag="alert"):
    """The operator's attention was asked for."""

    alert: str
    """``foreign_spend``, ``price_changed`` …"""
    message: str


AccountEntry = HealthChanged | BalanceMeasured | AttemptFailed | OperatorActed | AlertRaised


def changes(old: Account, new: Account, at: datetime, process: str = "") -> list[AccountEntry]:
    """What a step changed in the account's health. Pure."""
    before, after = old.health, new.health
    whole = HealthChanged(
        account_id=new.id,
        at=at,
        process=process,
        old_state=before.state.value,
        old_cause=before.cause.value,
        state=after.state.value,
        cause=after.cause.value,
        scope=after.scope.value,
        until=after.until,
        evidence=after.evidence,
    )
    blocks = [
        replace(
            whole,
            cause=block.cause.value,
            scope=Scope.ACCOUNT_MODEL.value,
            until=block.until,
            model=block.model,
            evidence="",
        )
        for block in new.model_blocks
        if block not in old.model_blocks
    ]
    return [*([whole] if _known(before) != _known(after) else []), *blocks]


def _known(health: Health) -> tuple[object, ...]:
    """What an operator would call the state. Fresh evidence for the same rest is no change."""
    return health.state, health.cause, health.until


class HistoryStore(RecordStore[AccountEntry], Protocol):
    """The entries of all processes, for a limited time. Methods raise StoreUnavailable."""

    async def of(self, account_id: str, limit: int, before: datetime | None) -> list[AccountEntry]:
        """Of one account, newest first, earlier than ``before``.

        All entries of one moment come together: there may be more than ``limit``.
        """


class HistoryLog:
    """Entries of this process on their way to the store, and what is stored."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store
        self._backlog: Backlog[AccountEntry] = Backlog(
            store, limit=_WAITING, dispensable=lambda each: isinstance(each, AttemptFailed)
        )

    @property
    def lost(self) -> int:
        """Entries that never came to the store. Failures of attempts are given up before others."""
        return self._backlog.lost

    def note(self, entry: AccountEntry) -> None:
        """Keep an entry. Never fails."""
        self._backlog.add(entry)

    async def run(self) -> None:
        """Store what is noted, for ever; to be run as one task."""
        await self._backlog.run()

    async def flush(self) -> bool:
        """Store what is noted; False when the database failed."""
        return await self._backlog.flush()

    async def of(self, account_id: str, limit: int, before: datetime | None = None) -> list[AccountEntry]:
        """The newest entries of an account, those of this process included. Raises StoreUnavailable."""
        await self.flush()
        return await self._store.of(account_id, limit, before)
