"""The price rules in force, in memory, and how they change.

Of one scope (organisation, provider, model) there is one rule with many versions. Versions are never rewritten: a new
one ends those before it, so that what a row of the ledger names can always be read again.
"""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any, Protocol

import msgspec
from msgspec.structs import asdict, replace

from poe_gateway.clock import Clock
from poe_gateway.metering.pricing import PriceRule, ranked

_REMEMBERED = 10_000
"""Look-ups kept; then all are forgotten, which costs one walk over the rules each."""
_TRIES = 16
"""Of a change against changes of other processes."""


class PriceDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A version to be. Fields as in PriceRule; ``valid_from`` None: at once."""

    org: str | None = None
    provider: str | None = None
    model: str | None = None
    currency: str = "USD"
    input: Decimal | None = None
    output: Decimal | None = None
    cached: Decimal | None = None
    request: Decimal | None = None
    point: Decimal | None = None
    markup_percent: Decimal = Decimal(0)
    valid_from: datetime | None = None
    note: str = ""


class PriceHistory(msgspec.Struct, frozen=True, kw_only=True):
    """All versions of one rule, oldest first. ``rev`` grows with every change."""

    id: str
    rev: int
    versions: tuple[PriceRule, ...]


class PriceRuleStore(Protocol):
    """Where rules are kept. None is ever deleted. All methods raise StoreUnavailable."""

    async def load(self) -> list[PriceHistory]:
        """All."""

    async def changes(self) -> list[PriceHistory]:
        """Those stored since ``load`` or the last call; may repeat itself."""

    async def put(self, history: PriceHistory) -> bool:
        """Store it in place of the one whose ``rev`` is one less (0: of none). False when that is not what is there."""


class PriceConflict(Exception):
    """Others change this rule all the time."""


def rule_id(org: str | None, provider: str | None, model: str | None) -> str:
    """The id of the rule of a scope: the same in every process."""
    scope = msgspec.json.encode([org, provider, model])
    return "price_" + b32encode(sha256(scope).digest()[:10]).decode().lower()


class PriceList:
    """Of one process. ``rule`` is for every request; the rest is for operators and the loop that follows changes."""

    def __init__(self, store: PriceRuleStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._histories: dict[str, PriceHistory] = {}
        self._known: dict[tuple[str | None, str, str], tuple[datetime | None, datetime | None, PriceRule | None]] = {}
        """Answers by (org, provider, model), with the time from which and until which they are true."""

    def rule(self, org: str | None, provider: str, model: str, at: datetime) -> PriceRule | None:
        """The rule that holds for a public model name at a time."""
        key = (org, provider, model)
        known = self._known.get(key)
        if known is not None:
            since, until, rule = known
            if (since is None or at >= since) and (until is None or at < until):
                return rule
        return self._look_up(key, at)

    def ranked(self, org: str | None, provider: str, model: str, at: datetime) -> list[PriceRule]:
        """All rules that hold, the one that wins first."""
        return ranked(self._versions(), org, provider, model, at)

    def rules(self) -> list[PriceRule]:
        """The versions in force and those to come, the most specific first."""
        now = self._clock.now()
        found = [each for each in self._versions() if _open(each, now)]
        # Two sorts: within one specificity by name, so that lists do not change their order from call to call.
        found.sort(key=lambda each: (each.org or "", each.provider or "", each.model or "", each.version))
        return sorted(found, key=PriceRule.specificity, reverse=True)

    def versions(self, rule_id: str) -> tuple[PriceRule, ...]:
        """All of one rule, oldest first; empty when unknown."""
        history = self._histories.get(rule_id)
        return () if history is None else history.versions

    async def load(self) -> None:
        """Read all rules. Raises StoreUnavailable."""
        self._accept(await self._store.load())

    async def refresh(self) -> None:
        """Take over what other processes changed. Raises StoreUnavailable."""
        self._accept(await self._store.changes())

    async def put(self, draft: PriceDraft) -> PriceRule:
        """A new version of the rule of the draft's scope; it ends all versions before it, those to come as well.

        Raises StoreUnavailable, PriceConflict.
        """
        for _ in range(_TRIES):
            now = self._clock.now()
            present = self._present(rule_id(draft.org, draft.provider, draft.model))
            rule = _version(draft, present, now)
            earlier = tuple(_ended(each, max(now, rule.valid_from)) for each in present.versions)
            if await self._store_next(present, (*earlier, rule)):
                return rule
        raise PriceConflict

    async def retire(self, rule_id: str) -> PriceRule | None:
        """End a rule now, with versions to come; its last version as it is then, None when unknown.

        Raises StoreUnavailable, PriceConflict.
        """
        for _ in range(_TRIES):
            present = self._histories.get(rule_id)
            if present is None:
                return None
            now = self._clock.now()
            versions = tuple(_ended(each, now) for each in present.versions)
            if versions == present.versions or await self._store_next(present, versions):
                return versions[-1]
        raise PriceConflict

    async def _store_next(self, present: PriceHistory, versions: tuple[PriceRule, ...]) -> bool:
        """False when another process was faster: its change has been read then."""
        history = replace(present, rev=present.rev + 1, versions=versions)
        stored = await self._store.put(history)
        if stored:
            self._accept([history])
        else:
            await self.refresh()
        return stored

    def _present(self, rule_id: str) -> PriceHistory:
        return self._histories.get(rule_id) or PriceHistory(id=rule_id, rev=0, versions=())

    def _versions(self) -> list[PriceRule]:
        return [each for history in self._histories.values() for each in history.versions]

    def _accept(self, histories: Sequence[PriceHistory]) -> None:
        for each in histories:
            known = self._histories.get(each.id)
            if known is None or known.rev < each.rev:
                self._histories[each.id] = each
                self._known.clear()

    def _look_up(self, key: tuple[str | None, str, str], at: datetime) -> PriceRule | None:
        matching = ranked(self._versions(), *key)
        rule = next((each for each in matching if each.holds(at)), None)
        # Between two moments at which any of them begins or ends, the answer is the same.
        moments = [each.valid_from for each in matching]
        moments += [each.retired_at for each in matching if each.retired_at is not None]
        since = max((each for each in moments if each <= at), default=None)
        until = min((each for each in moments if each > at), default=None)
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[key] = (since, until, rule)
        return rule


def _version(draft: PriceDraft, present: PriceHistory, now: datetime) -> PriceRule:
    created = _kept(now)
    fields: dict[str, Any] = asdict(draft)
    fields["valid_from"] = created if draft.valid_from is None else _kept(draft.valid_from)
    return PriceRule(id=present.id, version=len(present.versions) + 1, created_at=created, **fields)


def _open(rule: PriceRule, now: datetime) -> bool:
    return rule.retired_at is None or rule.retired_at > now


def _ended(rule: PriceRule, at: datetime) -> PriceRule:
    """The version, over at that time or earlier."""
    at = _kept(at)
    return rule if rule.retired_at is not None and rule.retired_at <= at else replace(rule, retired_at=at)


def _kept(at: datetime) -> datetime:
    """As stores keep it, to the millisecond: what is answered now must be what is read later."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


class MemoryPriceRules:
    """PriceRuleStore of one process among those that share ``table``."""

    def __init__(self, table: dict[str, PriceHistory] | None = None) -> None:
        self.table = {} if table is None else table
        self._seen: dict[str, int] = {}

    async def load(self) -> list[PriceHistory]:
        self._seen.clear()
        return await self.changes()

    async def changes(self) -> list[PriceHistory]:
        changed = [each for each in self.table.values() if self._seen.get(each.id) != each.rev]
        self._seen.update((each.id, each.rev) for each in changed)
        return changed

    async def put(self, history: PriceHistory) -> bool:
        present = self.table.get(history.id)
        if (0 if present is None else present.rev) != history.rev - 1:
            return False
        self.table[history.id] = history
        return True
