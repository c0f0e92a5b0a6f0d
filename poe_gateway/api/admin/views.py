"""What the operator is shown of accounts: everything the pool knows, never a credential."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field

from poe_gateway import money
from poe_gateway.accounts.desk import AccountDesk
from poe_gateway.pool.account import Account, Cause, Intent, ResetClock, Scope, State
from poe_gateway.pool.policy import DailyReset

_TIMED = (State.COOLDOWN, State.DEPLETED)


class HealthView(BaseModel):
    """What the pool knows about the account, and why."""

    state: State
    cause: Cause
    scope: Scope
    since: datetime
    until: datetime | None = Field(description="when time alone ends the state")
    evidence: str = Field(description="id of the request or duty that brought it about")
    trial: bool = Field(description="back from a rest after failures: one request at a time until one succeeds")


class BalanceView(BaseModel):
    """Points left."""

    points: int | None
    estimated: bool = Field(description="nobody measured the figure since it was last changed by rule")
    measured_at: datetime | None
    subscription_active: bool | None
    allotment: int | None
    next_grant_at: datetime | None
    booked: int = Field(description="points that the pool spent since they were measured")
    drift: int = Field(description="points that were gone at the last measurement without the pool's doing")


class ResetClockView(BaseModel):
    """When in the local day the points are renewed, as learned from observed renewals."""

    words: str
    low_seconds: float = Field(description="the renewal comes after this, counted from the configured reset hour")
    high_seconds: float = Field(description="and at or before this")
    timezone: str
    seen: int = Field(description="renewals that agree with it")
    last_jump_at: datetime


class ModelBlockView(BaseModel):
    """The account is not used for one model for a while."""

    model: str
    cause: Cause
    until: datetime


class AccountView(BaseModel):
    """One account as of now."""

    id: str
    provider: str
    name: str
    email: str = Field(description="the name; for Poe accounts the e-mail address")
    status: State = Field(description="the state of `health`")
    intent: Intent = Field(description="what the operator wants")
    health: HealthView
    balance: BalanceView
    message_point_balance: int | None
    subscription_active: bool | None
    health_score: int = Field(description="0 to 100: a tenth of the points, plus 20 for a subscription")
    error_count: int
    strikes: int = Field(description="rests in a row that failures brought about; each is longer than the last")
    last_error: str | None
    last_error_at: datetime | None
    last_used_at: datetime | None
    last_success_at: datetime | None
    last_refresh_at: datetime | None
    cooldown_until: datetime | None
    model_blocks: list[ModelBlockView]
    inflight: int = Field(description="requests that the answering process runs on it")
    priority: int = Field(description="accounts of a higher priority are used first")
    weight: int = Field(description="share of work under the `weighted` strategy")
    labels: list[str]
    keep_percent: int = Field(description="part of the points kept for the owner")
    max_inflight: int | None = Field(description="own limit; null means the pool's default")
    vendor: str | None = Field(description="where the account was bought")
    batch: str | None = Field(description="with which others it was bought")
    purchase_price: str | None = Field(description="decimal number, of `currency`")
    currency: str | None = Field(description="of the price; null without one")
    purchased_at: datetime | None
    expires_at: datetime | None = Field(description="the account's own end; nothing happens then by itself")
    reset_clock: ResetClockView | None
    offer: str = Field(description="accounts of one offer serve the same models")
    demo: bool
    details: dict[str, Any] = Field(description="small public facts from the adapter")
    created_at: datetime
    updated_at: datetime


class UpsertView(AccountView):
    """The stored account."""

    created: bool = Field(description="false when an account of that name was there already")


class AccountPage(BaseModel):
    """One page of accounts, oldest first."""

    page: int
    page_size: int
    total: int = Field(description="accounts that fit the filter, on all pages")
    data: list[AccountView]


def shown(desk: AccountDesk, account: Account) -> AccountView:
    """The view of an account that is as of now."""
    return AccountView(**_fields(desk, account))


def shown_after_upsert(desk: AccountDesk, account: Account, *, created: bool) -> UpsertView:
    """The same, and whether it is new."""
    return UpsertView(**_fields(desk, account), created=created)


def _fields(desk: AccountDesk, account: Account) -> dict[str, Any]:
    health, balance, error = account.health, account.balance, account.last_error
    price = account.purchase_price
    return {
        "id": account.id,
        "provider": account.provider,
        "name": account.name,
        "email": account.name,
        "status": health.state,
        "intent": account.intent,
        "health": HealthView(
            state=health.state,
            cause=health.cause,
            scope=health.scope,
            since=health.since,
            until=health.until,
            evidence=health.evidence,
            trial=health.trial,
        ),
        "balance": BalanceView(
            points=balance.points,
            estimated=balance.estimated,
            measured_at=balance.measured_at,
            subscription_active=balance.subscription_active,
            allotment=balance.allotment,
            next_grant_at=balance.next_grant_at,
            booked=balance.booked,
            drift=balance.drift,
        ),
        "message_point_balance": balance.points,
        "subscription_active": balance.subscription_active,
        "health_score": account.health_score,
        "error_count": account.error_count,
        "strikes": account.strikes,
        "last_error": None if error is None else f"{error.kind}: {error.detail}".rstrip(": "),
        "last_error_at": None if error is None else error.at,
        "last_used_at": account.last_used_at,
        "last_success_at": account.last_success_at,
        "last_refresh_at": account.last_refresh_at,
        "cooldown_until": health.until if health.state in _TIMED else None,
        "model_blocks": [
            ModelBlockView(model=block.model, cause=block.cause, until=block.until) for block in account.model_blocks
        ],
        "inflight": desk.inflight(account.id),
        "priority": account.priority,
        "weight": account.weight,
        "labels": list(account.labels),
        "keep_percent": account.keep_percent,
        "max_inflight": account.max_inflight,
        "vendor": account.vendor,
        "batch": account.batch,
        "purchase_price": None if price is None else money.shown(price, account.currency),
        "currency": None if price is None else account.currency,
        "purchased_at": account.purchased_at,
        "expires_at": account.expires_at,
        "reset_clock": None if account.reset_clock is None else reset_clock_view(account.reset_clock, desk.reset),
        "offer": account.offer,
        "demo": account.demo,
        "details": account.details,
        "created_at": account.created_at,
        "updated_at": account.updated_at,
    }


def reset_clock_view(clock: ResetClock, reset: DailyReset) -> ResetClockView:
    """The window in words and figures; the words round outwards to whole minutes of the wall clock."""
    earliest = _wall_clock(reset.hour, int(clock.low // 60))
    latest = _wall_clock(reset.hour, math.ceil(clock.high / 60))
    times = "once" if clock.seen == 1 else f"{clock.seen} times"
    last = clock.last_jump_at.astimezone(ZoneInfo(reset.zone)).date()
    return ResetClockView(
        words=f"renewed between {earliest} and {latest} ({reset.zone}); seen {times}, last on {last.isoformat()}",
        low_seconds=clock.low,
        high_seconds=clock.high,
        timezone=reset.zone,
        seen=clock.seen,
        last_jump_at=clock.last_jump_at,
    )


def _wall_clock(hour: int, minutes: int) -> str:
    minutes = (hour * 60 + minutes) % (24 * 60)
    return f"{minutes // 60:02}:{minutes % 60:02}"
