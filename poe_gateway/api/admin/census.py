"""The census: the pool as it is now, as the answering process sees it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from poe_gateway.api.deps import AdminRoute, Gateway, errors, gateway
from poe_gateway.pool import transitions
from poe_gateway.pool.seat import Seat
from poe_gateway.pool.store import GrantStore, StoreUnavailable

_SLICE = 2000
"""Accounts that are counted at a time: the event loop is free in between."""


class CensusRooms(Gateway, Protocol):
    """The rooms that this route asks."""

    @property
    def grants(self) -> GrantStore: ...


Census = Annotated[CensusRooms, Depends(gateway)]


class OfferView(BaseModel):
    """The accounts of one offer: they serve the same models."""

    offer: str
    total: int
    in_service: int
    by_state: dict[str, int]
    by_cause: dict[str, int] = Field(description="causes of the states")
    out_of_service: dict[str, int] = Field(description="reason to number of accounts; with `model`: for that model")
    open_here: int = Field(description="in service and with a free slot in the answering process")
    held_here: int = Field(description="slots that the answering process holds")
    used_here: int = Field(description="of these in use")


class LimitsView(BaseModel):
    """What bounds the pool."""

    global_inflight: int
    max_inflight: int = Field(description="default per account")
    held_here: int = Field(description="part of the global limit that the answering process holds")
    used_here: int
    queue_limit: int
    strategy: str
    model_strategies: dict[str, str]


class QueueView(BaseModel):
    """Who waits in the answering process."""

    waiting: int
    by_caller: dict[str, int] = Field(description="id of the service key to number of waiting requests")
    oldest_wait_seconds: float | None
    expected_wait_seconds: float | None = Field(description="of one more request at the end of the line, when known")


class IncidentView(BaseModel):
    """Something that no account is to blame for."""

    offer: str
    model: str | None
    scope: str
    code: str
    accounts: int
    bodies: int
    kinds: dict[str, int]
    open_seconds: float


class GuardView(BaseModel):
    """What the answering process holds against others than accounts."""

    incidents: list[IncidentView]
    held_accounts: dict[str, float] = Field(description="account to seconds for which it is not chosen")
    quarantined_bodies: int


class ProcessView(BaseModel):
    """One gateway process."""

    state: str = Field(description="live, lapsed, frozen or dead")
    place: str | None
    pid: int | None
    expires_in: float | None = Field(description="seconds until its grants lapse unless it renews them")
    accounts: int
    slots: int
    whole: int = Field(alias="global", description="part of the global limit that it holds")


class PoolView(BaseModel):
    """The pool as of now."""

    at: datetime
    process: str = Field(description="name of the answering process; empty while it has none")
    offers: list[OfferView]
    limits: LimitsView
    processes: dict[str, ProcessView] | None = Field(description="null: the database is away")
    queue: QueueView
    guard: GuardView


async def pool(
    rooms: Census,
    model: Annotated[str | None, Query(max_length=200, description="only what serves this model")] = None,
) -> PoolView:
    """Accounts by offer, limits, grants by process, the queue, and what the guard holds back."""
    broker, now = rooms.broker, rooms.clock.now()
    plan = None if model is None else rooms.catalog.plan(model, broker.offers())
    broker.tick()
    offers = [
        await _offer(offer, broker.seats_of(offer), now, None if plan is None else plan.model)
        for offer in sorted(broker.offers() if plan is None else plan.targets)
    ]
    return PoolView(
        at=now,
        process=broker.epoch,
        offers=offers,
        limits=_limits(rooms),
        processes=await _processes(rooms.grants),
        queue=_queue(rooms),
        guard=_guard(rooms),
    )


async def _offer(offer: str, seats: list[Seat], now: datetime, model: str | None) -> OfferView:
    states: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    open_here = held = used = 0
    for start in range(0, len(seats), _SLICE):
        for seat in seats[start : start + _SLICE]:
            account = seat.account
            states[account.health.state.value] += 1
            causes[account.health.cause.value] += 1
            reason = seat.reason or (None if model is None else transitions.why_not(account, now, model))
            if reason is not None:
                reasons[reason] += 1
            elif seat.open:
                open_here += 1
            held += seat.held
            used += seat.used
        await asyncio.sleep(0)
    return OfferView(
        offer=offer,
        total=len(seats),
        in_service=len(seats) - reasons.total(),
        by_state=dict(states),
        by_cause=dict(causes),
        out_of_service=dict(reasons),
        open_here=open_here,
        held_here=held,
        used_here=used,
    )


def _limits(rooms: Gateway) -> LimitsView:
    policy, whole = rooms.broker.policy, rooms.broker.whole
    return LimitsView(
        global_inflight=policy.global_inflight,
        max_inflight=policy.max_inflight,
        held_here=whole.held,
        used_here=whole.used,
        queue_limit=policy.queue_limit,
        strategy=policy.strategy.value,
        model_strategies={pattern: strategy.value for pattern, strategy in policy.model_strategies},
    )


def _queue(rooms: Gateway) -> QueueView:
    broker = rooms.broker
    oldest = broker.line.oldest()
    expected = None
    if broker.prospects.pace.measured:
        expected = broker.prospects.expected_wait(len(broker.line), broker.whole.held) if len(broker.line) else 0.0
    return QueueView(
        waiting=len(broker.line),
        by_caller=broker.line.by_caller(),
        oldest_wait_seconds=None if oldest is None else rooms.clock.monotonic() - oldest,
        expected_wait_seconds=expected,
    )


def _guard(rooms: Gateway) -> GuardView:
    guard, now = rooms.broker.guard, rooms.clock.monotonic()
    return GuardView(
        incidents=[
            IncidentView(
                offer=each.offer,
                model=each.model,
                scope=each.scope.value,
                code=each.code,
                accounts=each.accounts,
                bodies=each.bodies,
                kinds=each.kinds,
                open_seconds=now - each.opened_at,
            )
            for each in guard.incidents()
        ],
        held_accounts={account_id: max(0.0, until - now) for account_id, until in guard.held().items()},
        quarantined_bodies=guard.quarantined(),
    )


async def _processes(grants: GrantStore) -> dict[str, ProcessView] | None:
    try:
        held: Mapping[str, Mapping[str, Any]] = await grants.held_by()
    except StoreUnavailable:
        return None
    return {name: ProcessView(**holding) for name, holding in held.items()}


def router() -> APIRouter:
    """Under /admin."""
    routes = APIRouter(prefix="/admin", tags=["admin: pool"], route_class=AdminRoute)
    routes.add_api_route("/pool", pool, methods=["GET"], responses=errors(404, 422))
    return routes
