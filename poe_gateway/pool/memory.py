"""The pool's stores in memory: twins of MongoDB's, one contract suite runs on both.

Several brokers and keepers of one test share a ``MemoryHub``, which stands for the database. Every call first lets
other tasks run (for ``hub.latency`` seconds), then acts in one breath; while ``hub.away`` every call fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from poe_gateway.clock import Clock
from poe_gateway.pool.account import Account, Intent, State
from poe_gateway.pool.deaths import Nowhere, Places, Registration, Residence, Standing, judged, strangers
from poe_gateway.pool.shares import STARVING
from poe_gateway.pool.store import (
    GLOBAL,
    HOLD,
    TRIED_AFTER,
    Ask,
    Changes,
    Holding,
    LeaseLost,
    Membership,
    StoreUnavailable,
    Wanted,
)

FRESH = 3.0
"""Seconds for which a mark is believed."""


TURN = 1.5
"""Seconds for which a starving process's turn is kept after its last mark."""


class _Mark(msgspec.Struct):
    pressure: float
    at: datetime
    since: datetime


class _Instance(msgspec.Struct):
    residence: Residence | None
    until: datetime
    frozen: bool = False


class _Row:
    """Grants and marks of one key."""

    __slots__ = ("grants", "wanted")

    def __init__(self) -> None:
        self.grants: dict[str, int] = {}
        self.wanted: dict[str, _Mark] = {}


class MemoryHub:
    """What the database holds. ``clock`` is the database's.

    ``latency`` in seconds per call; ``away`` makes every call fail; ``fresh``: seconds for which a mark is believed.
    """

    def __init__(self, clock: Clock, *, latency: float = 0.0, fresh: float = FRESH) -> None:
        self.clock = clock
        self.latency = latency
        self.fresh = fresh
        self.away = False
        self.accounts: dict[str, Account] = {}
        self.rows: dict[str, _Row] = {}
        self.instances: dict[str, _Instance] = {}
        self.log: list[str] = []
        """Ids of stored and removed accounts, in order."""
        self.bells: list[asyncio.Event] = []

    async def call(self) -> None:
        """The way to the database. Raises StoreUnavailable."""
        await asyncio.sleep(self.latency)
        if self.away:
            raise StoreUnavailable("the memory store is told to be away")

    def ring(self) -> None:
        for bell in self.bells:
            bell.set()

    def put(self, account: Account) -> Account:
        """Store a new account, or a new version of one."""
        known = self.accounts.get(account.id)
        stored = replace(account, rev=(known.rev if known is not None else 0) + 1)
        self.accounts[account.id] = stored
        self.log.append(account.id)
        self.ring()
        return stored

    def delete(self, account_id: str) -> bool:
        """Remove an account and the grants on it."""
        self.rows.pop(account_id, None)
        gone = self.accounts.pop(account_id, None) is not None
        if gone:
            self.log.append(account_id)
            self.ring()
        return gone

    def granted(self, key: str) -> dict[str, int]:
        """Slots of ``key`` by process, for assertions."""
        return dict(self.row(key).grants)

    def row(self, key: str) -> _Row:
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = _Row()
        return row


class MemoryAccounts:
    """AccountStore of one process."""

    def __init__(self, hub: MemoryHub) -> None:
        self._hub = hub
        self._read = 0

    async def load(self) -> list[Account]:
        await self._hub.call()
        self._read = len(self._hub.log)
        return list(self._hub.accounts.values())

    async def changes(self) -> Changes:
        await self._hub.call()
        hub = self._hub
        changed = dict.fromkeys(hub.log[self._read :])
        self._read = len(hub.log)
        return Changes(
            stored=tuple(hub.accounts[key] for key in changed if key in hub.accounts),
            removed=tuple(key for key in changed if key not in hub.accounts),
        )

    async def change(self, steps: Mapping[str, Callable[[Account], Account]]) -> dict[str, Account]:
        await self._hub.call()
        hub = self._hub
        stored: dict[str, Account] = {}
        for key, step in steps.items():
            before = hub.accounts.get(key)
            if before is None:
                continue
            after = step(before)
            stored[key] = before if after == before else hub.put(after)
        return stored


class MemoryGrants:
    """GrantStore of one process; any number that live in the same place may share one."""

    def __init__(self, hub: MemoryHub, places: Places | None = None) -> None:
        self._hub = hub
        self._places = places or Nowhere()

    def _membership(self, instance: str) -> Membership:
        now = self._hub.clock.now()
        live = {key: each for key, each in self._hub.instances.items() if each.until > now and not each.frozen}
        others = [
            None if each.residence is None else each.residence.place for key, each in live.items() if key != instance
        ]
        return Membership(live=tuple(sorted(live)), strangers=strangers(self._places.here(), others), now=now)

    async def join(self, instance: str, lifetime: float) -> Membership:
        await self._hub.call()
        known = self._hub.instances.get(instance)
        if known is not None and known.frozen:
            raise LeaseLost
        until = self._hub.clock.now() + timedelta(seconds=lifetime)
        self._hub.instances[instance] = _Instance(self._places.here(), until)
        return self._membership(instance)

    async def renew(self, instance: str, lifetime: float) -> Membership:
        await self._hub.call()
        self._registered(instance).until = self._hub.clock.now() + timedelta(seconds=lifetime)
        return self._membership(instance)

    def _registered(self, instance: str) -> _Instance:
        known = self._hub.instances.get(instance)
        if known is None or known.frozen:
            raise LeaseLost
        return known

    async def leave(self, instance: str) -> None:
        await self._hub.call()
        self._bury({instance})

    def _bury(self, instances: Collection[str]) -> None:
        for instance in instances:
            self._hub.instances.pop(instance, None)
        freed = False
        for row in self._hub.rows.values():
            for instance in instances:
                row.wanted.pop(instance, None)
                freed |= row.grants.pop(instance, 0) > 0 and bool(row.wanted)
        if freed:
            self._hub.ring()

    def _may_serve(self, key: str) -> bool:
        if key == GLOBAL:
            return True
        account = self._hub.accounts.get(key)
        if account is None or account.intent is not Intent.ENABLED:
            return False
        health = account.health
        if health.state in (State.COOLDOWN, State.DEPLETED):
            return health.until is not None and health.until <= self._hub.clock.now()
        return health.state is State.ACTIVE

    def _cap(self, ask: Ask) -> int:
        """Of an account that may serve: what its stored value allows, whatever the asker has heard."""
        account = self._hub.accounts.get(ask.key)
        if account is None:
            return ask.cap
        health = account.health
        if health.trial or (health.state is State.COOLDOWN and health.cause in TRIED_AFTER):
            return min(1, ask.cap)
        return ask.cap if account.max_inflight is None else min(ask.cap, account.max_inflight)

    def _since(self, row: _Row, instance: str) -> datetime:
        now = self._hub.clock.now()
        mark = row.wanted.get(instance)
        return mark.since if mark is not None and mark.at > now - timedelta(seconds=self._hub.fresh) else now

    def _before(self, row: _Row, instance: str) -> int:
        """Other processes that starve and whose turn is before that of ``instance``."""
        since = self._since(row, instance)
        oldest = self._hub.clock.now() - timedelta(seconds=self._hub.fresh * TURN / FRESH)
        return sum(
            1
            for by, mark in row.wanted.items()
            if by != instance and mark.pressure >= STARVING and mark.at > oldest and mark.since < since
        )

    async def take(self, instance: str, asks: Sequence[Ask]) -> Mapping[str, int]:
        await self._hub.call()
        self._registered(instance)
        held: dict[str, int] = {}
        for ask in asks:
            row = self._hub.row(ask.key)
            own = row.grants.get(instance, 0)
            if self._may_serve(ask.key):
                free = self._cap(ask) - (sum(row.grants.values()) - own) - self._before(row, instance)
                granted = max(own, min(ask.hold, free))
                if granted > own:
                    row.grants[instance] = granted
                if granted >= ask.hold:
                    row.wanted.pop(instance, None)
            held[ask.key] = row.grants.get(instance, 0)
        return held

    async def give_back(self, instance: str, held: Mapping[str, int]) -> None:
        await self._hub.call()
        freed = False
        for key, slots in held.items():
            row = self._hub.row(key)
            if slots >= row.grants.get(instance, 0):
                continue
            if slots > 0:
                row.grants[instance] = slots
            else:
                del row.grants[instance]
            freed |= any(other != instance for other in row.wanted)
        if freed:
            self._hub.ring()

    async def mark_wanted(self, instance: str, keys: Collection[str], pressure: float) -> None:
        await self._hub.call()
        now = self._hub.clock.now()
        for key in keys:
            if key == GLOBAL or key in self._hub.accounts:
                row = self._hub.row(key)
                row.wanted[instance] = _Mark(pressure, now, self._since(row, instance))
        self._hub.ring()

    async def wanted(self, instance: str) -> list[Wanted]:
        await self._hub.call()
        oldest = self._hub.clock.now() - timedelta(seconds=self._hub.fresh)
        found: list[Wanted] = []
        for key, row in self._hub.rows.items():
            if not row.grants.get(instance):
                continue
            marks = [
                (mark.pressure, by) for by, mark in row.wanted.items() if by != instance and mark.at > oldest
            ]  # fmt: skip
            if marks:
                pressure, by = max(marks)
                found.append(Wanted(key=key, by=by, pressure=pressure))
        return found

    async def reclaim(self, hold: float = HOLD, *, only_proven: bool = False) -> int:
        await self._hub.call()
        now = self._hub.clock.now()
        instances = self._hub.instances
        judgement = judged(
            [
                Registration(
                    instance=key,
                    standing=Standing.FROZEN if each.frozen else Standing.LIVE,
                    residence=each.residence,
                    lapsed=each.until <= now,
                    overdue=each.until + timedelta(seconds=hold) <= now,
                )
                for key, each in instances.items()
            ],
            self._places,
            only_proven=only_proven,
        )
        for key in judgement.frozen:
            instances[key].frozen = True
        dead = {*judgement.gone, *judgement.lapsed, *judgement.overdue}
        self._bury(dead)
        return len(dead)

    async def held_by(self) -> dict[str, Holding]:
        await self._hub.call()
        now = self._hub.clock.now()
        found: dict[str, Holding] = {}
        for name, each in self._hub.instances.items():
            state = Standing.FROZEN if each.frozen else Standing.LIVE if each.until > now else "lapsed"
            found[name] = _holding(each.residence, str(state), (each.until - now).total_seconds())
        for key, row in self._hub.rows.items():
            for name, slots in row.grants.items():
                holding = found.setdefault(name, _holding(None, str(Standing.DEAD), None))
                if key == GLOBAL:
                    holding["global"] = slots
                else:
                    holding["accounts"] += 1
                    holding["slots"] += slots
        return found


def _holding(residence: Residence | None, state: str, expires_in: float | None) -> Holding:
    return {
        "place": None if residence is None else residence.place,
        "pid": None if residence is None else residence.pid,
        "state": state,
        "expires_in": expires_in,
        "accounts": 0,
        "slots": 0,
        "global": 0,
    }


class MemoryDoorbell:
    """Rings when an account was stored or removed, a mark was set, or a slot that somebody wants came free."""

    def __init__(self, hub: MemoryHub) -> None:
        self._bell = asyncio.Event()
        hub.bells.append(self._bell)

    async def wait(self, seconds: float) -> bool:
        """True when it rang since the last call or within ``seconds``, else False."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        rang = self._bell.is_set()
        self._bell.clear()
        return rang


def filled(clock: Clock, accounts: Iterable[Account]) -> MemoryHub:
    """A hub with accounts in it."""
    hub = MemoryHub(clock)
    for account in accounts:
        hub.put(account)
    return hub
