"""The pool of accounts in this process: prices, broker, grants and sessions, and who tells what happens to them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import msgspec

from poe_gateway.bootstrap.lifetime import Ending, Tasks
from poe_gateway.clock import Clock, Ids
from poe_gateway.dispatch.sessions import SessionBook
from poe_gateway.explain.decisions import DecisionLog
from poe_gateway.explain.history import HistoryLog
from poe_gateway.explain.witness import Witness
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Cause
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.forecast import Forecast, forecast
from poe_gateway.pool.keeper import Keeper
from poe_gateway.pool.policy import DailyReset, PoolPolicy, Strategy
from poe_gateway.pool.pricebook import PriceBook
from poe_gateway.pool.usage import ewma
from poe_gateway.settings import Settings
from poe_gateway.storage.accounts import MongoAccounts
from poe_gateway.storage.client import Database
from poe_gateway.storage.decisions import MongoDecisions
from poe_gateway.storage.grants import MongoGrants
from poe_gateway.storage.history import MongoHistory
from poe_gateway.storage.places import LinuxPlaces
from poe_gateway.storage.prices import MongoPrices
from poe_gateway.storage.sessions import MongoSessions
from poe_gateway.storage.usage import MongoUsage
from poe_gateway.telemetry.events import GrantsChanged, LeaseLost, Notice, WaitFinished, WaitResult
from poe_gateway.telemetry.hub import Telemetry

_USAGE_SEEN = timedelta(hours=48)
_FLUSH = 5.0
"""Seconds that storing the last news may take."""


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """The accounts, who may use them, and what is remembered of them."""

    accounts: MongoAccounts
    usage: MongoUsage
    prices: PriceBook
    broker: Broker
    grants: MongoGrants
    keeper: Keeper
    bindings: MongoSessions
    sessions: SessionBook
    decisions: DecisionLog
    history: HistoryLog
    witness: Witness

    async def forecast(self, clock: Clock, hours: int) -> Forecast:
        """What the pool can still pay, hour by hour. Raises StoreUnavailable."""
        policy, now = self.broker.policy, clock.now()
        rates = ewma(await self.usage.read(now - _USAGE_SEEN), now)
        accounts = [seat.account for seat in self.broker.seats.values()]
        # A large pool takes a while to reckon: not on the event loop.
        return await asyncio.to_thread(
            forecast,
            accounts,
            rates,
            self.prices.prices(),
            now,
            reset=policy.reset,
            threshold=policy.depleted_threshold,
            kept=lambda account: transitions.kept_for_owner(account, policy),
            hours=hours,
        )


def pool_policy(settings: Settings) -> PoolPolicy:
    """The pool's own policy value."""
    pool, schedule = settings.pool, settings.schedule
    return PoolPolicy(
        max_inflight=pool.max_inflight_per_account,
        global_inflight=pool.global_inflight_limit,
        depleted_threshold=pool.depleted_threshold,
        cooldown=pool.cooldown_seconds,
        cooldown_cap=pool.cooldown_max_seconds,
        retry_after_cap=pool.retry_after_max_seconds,
        strategy=Strategy(pool.strategy),
        model_strategies=tuple((pattern, Strategy(word)) for pattern, word in pool.model_strategies),
        acquire_timeout=pool.acquire_timeout_seconds,
        queue_limit=pool.queue_limit,
        grant_lifetime=pool.grant_lifetime_seconds,
        request_timeout=settings.serve.request_timeout_seconds,
        reset=DailyReset(zone=schedule.reset_timezone, hour=schedule.reset_hour, points=schedule.reset_point_balance),
    )


async def open_pool(
    settings: Settings,
    *,
    db: Database,
    clock: Clock,
    ids: Ids,
    telemetry: Telemetry,
    forget: Callable[[str], Awaitable[None]],
    tasks: Tasks,
    ending: Ending,
) -> Pool:
    """The pool without accounts yet. ``forget`` drops an account's credentials from memory. Raises StoreUnavailable."""
    explain = settings.explain
    decisions = DecisionLog(MongoDecisions(db) if explain.decisions_store_mb else None)
    history = HistoryLog(MongoHistory(db, explain.history_days))
    witness = Witness(telemetry=telemetry, history=history, decisions=decisions, clock=clock)
    usage = MongoUsage(db)
    prices = PriceBook(MongoPrices(db), usage, ids)
    prices.on_changed = witness.price_changed
    await prices.load()

    accounts = MongoAccounts(db, clock)
    broker = Broker(
        store=accounts,
        policy=pool_policy(settings),
        clock=clock,
        changed=partial(_changed, witness=witness, forget=forget, tasks=tasks),
    )
    broker.on_step = witness.stepped
    broker.on_incident = witness.incident
    grants = MongoGrants(db, LinuxPlaces())
    keeper = Keeper(broker=broker, store=grants, clock=clock, ids=ids)
    witness.process = keeper.instance
    keeper.on_lost = partial(_lease_lost, telemetry)
    broker.on_granted = partial(_granted, telemetry)
    broker.on_waited = partial(_waited, telemetry)
    bindings = MongoSessions(db, settings.session.ttl_seconds)
    sessions = SessionBook(
        bindings,
        alone=lambda: len(keeper.membership.live) == 1 and keeper.valid(),
        lost=lambda what: telemetry.emit(Notice(level="warning", message=what)),
    )
    pool = Pool(
        accounts=accounts,
        usage=usage,
        prices=prices,
        broker=broker,
        grants=grants,
        keeper=keeper,
        bindings=bindings,
        sessions=sessions,
        decisions=decisions,
        history=history,
        witness=witness,
    )
    ending.hand_over(partial(_leave, pool, telemetry))
    return pool


async def _leave(pool: Pool, telemetry: Telemetry) -> None:
    """News is stored and slots are given back."""
    await pool.sessions.drain()
    try:
        async with asyncio.timeout(_FLUSH):
            await pool.broker.journal.flush()
            await pool.prices.flush()
            await pool.history.flush()
            await pool.decisions.flush()
    except TimeoutError:
        telemetry.emit(Notice(level="error", message="news about accounts could not be stored"))
    await pool.keeper.leave()


def _changed(
    old: Account, new: Account, *, witness: Witness, forget: Callable[[str], Awaitable[None]], tasks: Tasks
) -> None:
    witness.changed(old, new)
    lifted = old.health.cause is Cause.CHALLENGED and new.health.cause is not Cause.CHALLENGED
    if new.credential_rev != old.credential_rev or lifted:
        tasks.soon(forget(new.id))


def _waited(telemetry: Telemetry, request_id: str, seconds: float, result: WaitResult) -> None:
    telemetry.emit(WaitFinished(request_id=request_id, seconds=seconds, result=result))


def _granted(telemetry: Telemetry, old: int, new: int) -> None:
    telemetry.emit(GrantsChanged(account_id=None, old=old, new=new))


def _lease_lost(telemetry: Telemetry, slots: int) -> None:
    telemetry.emit(LeaseLost(account_id=None, slots=slots, cause="declared dead by another process"))
