"""How an account changes: pure functions (account, news) -> account. Time is part of the state.

Rules, in one place:
- Operator intent is never touched by news, and news never by the operator's pause.
- ``Rejected``, ``Cancelled``, ``NetworkFault`` and ``AdapterDrift`` change nothing but, at most, a block of
  account+model.
- A challenge ends only by the operator's hand. ``invalid`` ends by new credentials, a successful check, or the
  operator.
- A reset by the calendar never lowers a balance and leaves ``invalid`` alone; a figure that nobody measured is
  ``estimated``.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from poe_gateway.pool.account import (
    Account,
    Cause,
    Health,
    Intent,
    LastError,
    ModelBlock,
    Scope,
    State,
)
from poe_gateway.pool.outcome import (
    AdapterDrift,
    Cancelled,
    Challenged,
    Depleted,
    NetworkFault,
    Outcome,
    RateLimited,
    Rejected,
    Succeeded,
    Transient,
    Unauthorized,
)
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.pool.renewal import next_reset, reset_day

_UNTIMED = (Cause.UNAUTHORIZED, Cause.CHALLENGED, Cause.VAULT)
_FAILURES_WITHOUT_NEWS = (Cancelled, NetworkFault, AdapterDrift, Rejected)


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt ended."""

    outcome: Outcome
    at: datetime
    model: str
    evidence: str
    credential_rev: int
    """Which credentials were used: a fault of older ones says nothing about newer ones."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """A balance was read from the upstream."""

    at: datetime
    points: int | None
    subscription_active: bool | None = None
    allotment: int | None = None
    next_grant_at: datetime | None = None
    evidence: str = ""


News = Settled | Measurement


def as_of(account: Account, now: datetime, policy: PoolPolicy, day: str | None = None) -> Account:
    """The account as it is at ``now``: resets have come, rests have lapsed, old model blocks are gone.

    ``day`` is ``reset_day(now, policy.reset)`` where the caller already has it. Idempotent.
    """
    renewed = _with_daily_reset(account, now, policy, day)
    health = renewed.health
    if health.until is not None and health.until <= now and health.state in (State.COOLDOWN, State.DEPLETED):
        renewed = _active(renewed, Cause.RENEWED, health.until, health.evidence)
    if renewed.model_blocks and any(block.until <= now for block in renewed.model_blocks):
        renewed = replace(renewed, model_blocks=tuple(b for b in renewed.model_blocks if b.until > now))
    return renewed


def _with_daily_reset(account: Account, now: datetime, policy: PoolPolicy, day: str | None) -> Account:
    if not account.renews_daily:
        return account
    today = day or reset_day(now, policy.reset)
    if account.reset_day is None:
        # A new account: today's grant is what it has; nothing is due before tomorrow.
        return replace(account, reset_day=today)
    if account.reset_day >= today or account.health.state is State.INVALID:
        return account
    balance = account.balance
    granted = balance.next_grant_at
    if balance.subscription_active and granted is not None and granted > now:
        # The upstream itself named a later grant: the configured day is not this account's.
        return replace(account, reset_day=today)
    before = balance.points
    if before is None or before < policy.reset.points:
        balance = replace(balance, points=policy.reset.points, estimated=True)
    account = replace(account, balance=balance, reset_day=today, error_count=0)
    if account.health.state is State.ACTIVE:
        return account
    return _active(account, Cause.RENEWED, now, f"daily-reset {today}")


def apply(account: Account, news: News, policy: PoolPolicy) -> Account:
    """The account after the news. The caller passes it through ``as_of`` first and after."""
    account = as_of(account, news.at, policy)
    if isinstance(news, Measurement):
        return _measured(account, news, policy)
    return _settled(account, news, policy)


def _settled(account: Account, news: Settled, policy: PoolPolicy) -> Account:
    at, outcome = news.at, news.outcome
    used = replace(account, last_used_at=_later(account.last_used_at, at))
    if isinstance(outcome, Succeeded):
        return _succeeded(used, outcome, news, policy)
    if isinstance(outcome, Rejected):
        return _blocked(used, outcome.model, Cause.OPERATOR, at + timedelta(seconds=policy.model_block))
    if isinstance(outcome, _FAILURES_WITHOUT_NEWS) or news.credential_rev != account.credential_rev:
        return used
    detail = getattr(outcome, "detail", "")
    failed = replace(used, last_error=LastError(kind=type(outcome).__name__, detail=detail, at=at))
    if isinstance(outcome, Challenged):
        return _ill(failed, State.INVALID, Cause.CHALLENGED, None, news)
    if account.health.state is State.INVALID:
        return failed
    if isinstance(outcome, Unauthorized):
        return _ill(failed, State.INVALID, Cause.UNAUTHORIZED, None, news)
    if isinstance(outcome, Depleted):
        empty = replace(failed, balance=replace(failed.balance, points=0, estimated=True))
        return _ill(empty, State.DEPLETED, Cause.POINTS_GONE, outcome.until or _renewal(empty, at, policy), news)
    if isinstance(outcome, RateLimited):
        wait = policy.cooldown if outcome.retry_after is None else outcome.retry_after
        until = at + timedelta(seconds=min(max(wait, 1.0), policy.retry_after_cap))
        if outcome.model is not None:
            return _blocked(failed, outcome.model, Cause.RATE_LIMITED, until)
        return _rest(failed, Cause.RATE_LIMITED, until, news)
    assert isinstance(outcome, Transient)  # noqa: S101 - the union is closed
    counted = replace(failed, error_count=failed.error_count + 1)
    limit = policy.timeout_limit if outcome.timeout else policy.error_limit
    if counted.error_count < limit:
        return counted
    cause = Cause.TIMEOUTS if outcome.timeout else Cause.ERRORS
    return _rest(counted, cause, at + timedelta(seconds=policy.cooldown), news)


def _succeeded(account: Account, outcome: Succeeded, news: Settled, policy: PoolPolicy) -> Account:
    account = replace(
        account,
        last_success_at=_later(account.last_success_at, news.at),
        error_count=max(0, account.error_count - 1),
    )
    if outcome.points and account.balance.points is not None:
        left = max(0, account.balance.points - outcome.points)
        account = replace(account, balance=replace(account.balance, points=left, estimated=True))
    if account.health.state is State.COOLDOWN and account.health.cause in (Cause.ERRORS, Cause.TIMEOUTS):
        account = _active(account, Cause.HEALTHY, news.at, news.evidence)
    if account.health.state is State.ACTIVE and account.health.cause is Cause.NEW:
        account = _active(account, Cause.HEALTHY, news.at, news.evidence)
    return _judge_balance(account, news.at, news.evidence, policy)


def _measured(account: Account, news: Measurement, policy: PoolPolicy) -> Account:
    if account.health.cause is Cause.CHALLENGED:
        return account
    known = account.balance
    balance = replace(
        known,
        points=news.points if news.points is not None else known.points,
        estimated=known.estimated if news.points is None else False,
        measured_at=news.at if news.points is not None else known.measured_at,
        subscription_active=known.subscription_active if news.subscription_active is None else news.subscription_active,
        allotment=known.allotment if news.allotment is None else news.allotment,
        next_grant_at=known.next_grant_at if news.next_grant_at is None else news.next_grant_at,
    )
    account = replace(account, balance=balance, last_refresh_at=news.at)
    if account.renews_daily:
        # What was measured today holds today's grant already, even if the account was invalid at the hour.
        account = replace(account, reset_day=reset_day(news.at, policy.reset))
    # The upstream answered this account: whatever rest or invalidity was derived before is out of date,
    # except a rate limit, which a balance query says nothing about.
    if account.health.state is not State.ACTIVE and account.health.cause is not Cause.RATE_LIMITED:
        account = _active(replace(account, error_count=0), Cause.HEALTHY, news.at, news.evidence)
    return _judge_balance(account, news.at, news.evidence, policy)


def _judge_balance(account: Account, at: datetime, evidence: str, policy: PoolPolicy) -> Account:
    points = account.balance.points
    if not account.metered or points is None or points >= policy.depleted_threshold:
        return account
    if account.health.state in (State.INVALID, State.DEPLETED):
        return account
    return replace(
        account,
        health=Health(
            state=State.DEPLETED,
            cause=Cause.BELOW_THRESHOLD,
            since=at,
            until=_renewal(account, at, policy),
            evidence=evidence,
        ),
    )


def _renewal(account: Account, at: datetime, policy: PoolPolicy) -> datetime:
    """When a depleted account may have points again: its own known grant, the daily reset, or a fixed rest."""
    granted = account.balance.next_grant_at
    if granted is not None and granted > at:
        return granted
    if account.renews_daily:
        return next_reset(at, policy.reset)
    return at + timedelta(seconds=policy.depleted_rest)


def _ill(account: Account, state: State, cause: Cause, until: datetime | None, news: Settled) -> Account:
    if account.health.cause is Cause.CHALLENGED:
        return account  # nothing outranks a challenge
    return replace(
        account,
        health=Health(state=state, cause=cause, since=news.at, until=until, evidence=news.evidence),
    )


def _rest(account: Account, cause: Cause, until: datetime, news: Settled) -> Account:
    """A cooldown; a longer one that already runs, or an empty balance, stays."""
    health = account.health
    if health.state is State.DEPLETED or (
        health.state is State.COOLDOWN and health.until is not None and health.until >= until
    ):
        return account
    return _ill(account, State.COOLDOWN, cause, until, news)


def _blocked(account: Account, model: str | None, cause: Cause, until: datetime) -> Account:
    if model is None:
        return account
    others = tuple(block for block in account.model_blocks if block.model != model)
    return replace(account, model_blocks=(*others, ModelBlock(model=model, cause=cause, until=until)))


def _active(account: Account, cause: Cause, at: datetime, evidence: str) -> Account:
    return replace(
        account, health=Health(state=State.ACTIVE, cause=cause, scope=Scope.ACCOUNT, since=at, evidence=evidence)
    )


def _later(old: datetime | None, new: datetime) -> datetime:
    return new if old is None or new > old else old


# The operator's own verbs.


def paused(account: Account) -> Account:
    """Intent only: health goes on being derived."""
    return replace(account, intent=Intent.PAUSED)


def resumed(account: Account) -> Account:
    """Intent only."""
    return replace(account, intent=Intent.ENABLED)


def cleared(account: Account, now: datetime, policy: PoolPolicy) -> Account:
    """The operator vouches for the account: every derived block goes, a challenge included.

    An empty balance is no block but a fact: a depleted account whose figure was measured stays depleted.
    """
    fresh = replace(account, error_count=0, model_blocks=(), last_error=None)
    if fresh.balance.estimated and fresh.metered and (fresh.balance.points or 0) < policy.depleted_threshold:
        fresh = replace(fresh, balance=replace(fresh.balance, points=None))
    return _judge_balance(_active(fresh, Cause.OPERATOR, now, "operator"), now, "operator", policy)


def renewed_credentials(account: Account, now: datetime) -> Account:
    """New credentials were handed in: the account starts afresh; what was measured stays as an estimate."""
    fresh = replace(
        account,
        error_count=0,
        model_blocks=(),
        last_error=None,
        credential_rev=account.credential_rev + 1,
        balance=replace(account.balance, estimated=True),
    )
    return _active(fresh, Cause.NEW, now, "operator")


def unreadable(account: Account, now: datetime, detail: str) -> Account:
    """The stored credential cannot be opened: set aside until a readable one is stored."""
    return replace(
        account,
        last_error=LastError(kind="VaultError", detail=detail, at=now),
        health=Health(state=State.INVALID, cause=Cause.VAULT, since=now, evidence="vault"),
    )


def why_not(account: Account, now: datetime, model: str | None = None) -> str | None:
    """The one eligibility predicate: None when the account may serve, else the reason in one word.

    ``account`` is as of ``now``. Serves sticky, queue, prewarm, failover, explain and readyz alike.
    """
    if account.intent is not Intent.ENABLED:
        return "paused"
    if account.health.state is not State.ACTIVE:
        return account.health.state.value
    if model is not None and any(block.model == model and block.until > now for block in account.model_blocks):
        return "model_blocked"
    return None


def next_change(account: Account) -> datetime | None:
    """When time alone will change the account next, apart from the daily reset."""
    moments = [block.until for block in account.model_blocks]
    if account.health.until is not None and account.health.state in (State.COOLDOWN, State.DEPLETED):
        moments.append(account.health.until)
    return min(moments, default=None)
