"""What the operator is shown of accounts: everything the pool knows, never a credential."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from poe_gateway.accounts.desk import AccountDesk
from poe_gateway.pool.account import Account, Cause, Intent, Scope, State

_TIMED = (State.COOLDOWN, State.DEPLETED)


class HealthView(BaseModel):
    """What the pool knows about the account, and why."""

    state: State
    cause: Cause
    scope: Scope
    since: datetime
    until: datetime | None = Field(description="when time alone ends the state")
    evidence: str = Field(description="id of the request or duty that brought it about")


class BalanceView(BaseModel):
    """Points left."""

    points: int | None
    estimated: bool = Field(description="nobody measured the figure since it was last changed by rule")
    measured_at: datetime | None
    subscription_active: bool | None
    allotment: int | None
    next_grant_at: datetime | None


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
    last_error: str | None
    last_error_at: datetime | None
    last_used_at: datetime | None
    last_success_at: datetime | None
    last_refresh_at: datetime | None
    cooldown_until: datetime | None
    model_blocks: list[ModelBlockView]
    inflight: int = Field(description="requests that the answering process runs on it")
    max_inflight: int | None = Field(description="own limit; null means the pool's default")
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
        ),
        "balance": BalanceView(
            points=balance.points,
            estimated=balance.estimated,
            measured_at=balance.measured_at,
            subscription_active=balance.subscription_active,
            allotment=balance.allotment,
            next_grant_at=balance.next_grant_at,
        ),
        "message_point_balance": balance.points,
        "subscription_active": balance.subscription_active,
        "health_score": account.health_score,
        "error_count": account.error_count,
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
        "max_inflight": account.max_inflight,
        "offer": account.offer,
        "demo": account.demo,
        "details": account.details,
        "created_at": account.created_at,
        "updated_at": account.updated_at,
    }
