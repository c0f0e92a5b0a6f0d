"""How an account changes: pure functions (account, news) -> account. Time is part of the state.

Rules, in one place:
- Operator intent is never touched by news, and news never by the operator's pause.
- ``Rejected``, ``Cancelled`` and ``AdapterDrift`` change nothing but, at most, a block of account+model;
  ``NetworkFault`` costs seconds and no strike.
- Rests double with every strike up to a cap, and end on any fresh evidence. What comes back from one is on trial: one
  request at a time until one succeeds.
- A challenge ends only by the operator's hand. ``invalid`` ends by new credentials, a successful check, or the
  operator.
- A reset by the calendar never lowers a balance and leaves ``invalid`` alone; a figure that nobody measured is
  ``estimated``.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

import msgspec
from msgspec.structs import replace

from poe_gateway.pool.account import (
    UNPRICED_MODELS,
    Account,
    Cause,
    Health,
    Intent,
    LastError,
    ModelBlock,
    ResetClock,
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
from poe_gateway.pool.renewal import next_reset, reset_day, reset_instant, trusted

_FAILURES_WITHOUT_NEWS = (Cancelled, AdapterDrift, Rejected)
_FAILED = (Cause.ERRORS, Cause.TIMEOUTS)
_MODEL_BLOCKS = 64
"""Of one account, the newest: callers may make up names of models."""
_TIMED = (State.COOLDOWN, State.DEPLETED)


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt ended."""

    outcome: Outcome
    at: datetime
    model: str
    """Public name. Blocks go by it, whatever the upstream calls the model; empty: not known."""
    evidence: str
    credential_rev: int
    """Which credentials were used: a fault of older ones says nothing about newer ones."""
    began: datetime | None = None
    """When the attempt began; None: not known."""
    expected: int = 0
    """Points that the request is believed to have cost, where the upstream does not tell."""
    key: str = ""
    """The model's key in the price book."""
    accepted: bool = False
    """The upstream had taken the message before the attempt failed: it has its price all the same."""
    model_only: bool = False
    """The fault is the account's with this model alone."""
    withheld: bool = False
    """The fault is not (yet) the account's: nothing but ``last_error`` and ``last_used_at`` changes."""


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """A balance was read from the upstream."""

    at: datetime
    points: int | None
    subscription_active: bool | None = None
    allotment: int | None = None
    next_grant_at: datetime | None = None
    evidence: str = ""
    drift: int = 0
    """Points missing without our doing, carried on to the next measurement (``reconcile``)."""
    clock: ResetClock | None = None
    """What a jump of the balance taught about the account's own hour; None: nothing new."""


News = Settled | Measurement


def as_of(account: Account, now: datetime, policy: PoolPolicy, day: str | None = None) -> Account:
    """The account as it is at ``now``: resets have come, rests have lapsed, old model blocks are gone.

    ``day`` is ``reset_day(now, policy.reset)`` where the caller already has it. Idempotent.
    """
    renewed = account
    until = account.health.until
    if until is not None and until <= now and account.health.state in _TIMED:
        # In the order in which they came true, so that it does not matter when somebody looks.
        reset = _due_reset(account, now, policy, day)
        if reset is None or until < reset:
            renewed = _lapsed(renewed, until)
    if account.renews_daily:
        renewed = _with_daily_reset(renewed, now, policy, day)
    if renewed.balance.next_grant_at is not None:
        renewed = _with_grant(renewed, now)
    health = renewed.health
    if health.until is not None and health.until <= now and health.state in _TIMED:
        renewed = _lapsed(renewed, health.until)
    elif health.cause is Cause.BELOW_THRESHOLD and (renewed.balance.points or 0) >= _threshold(renewed, policy):
        # The operator keeps less for the owner now.
        renewed = _active(renewed, Cause.RENEWED, now, health.evidence)
    if renewed.keep_percent and renewed.health.state is State.ACTIVE:
        renewed = _judge_balance(renewed, now, health.evidence, policy)
    if renewed.model_blocks and any(block.until <= now for block in renewed.model_blocks):
        renewed = replace(renewed, model_blocks=tuple(b for b in renewed.model_blocks if b.until > now))
    return renewed


def _due_reset(account: Account, now: datetime, policy: PoolPolicy, day: str | None) -> datetime | None:
    """When the daily reset came true that the account has not had yet, None when it has had it."""
    if not account.renews_daily or account.reset_day is None:
        return None
    today = own_day(account, now, policy, day)
    return _instant(account, today, policy) if account.reset_day < today else None


def _instant(account: Account, day: str, policy: PoolPolicy) -> datetime:
    clock, reset = account.reset_clock, policy.reset
    late = clock.high if clock is not None and trusted(clock) else 0.0
    return reset_instant(date.fromisoformat(day), reset.zone, reset.hour, late)


def _lapsed(account: Account, at: datetime) -> Account:
    """A rest is over. Whether the account is well again nobody knows: one request tries."""
    health = account.health
    if health.state is State.DEPLETED:
        # The points of then are no figure any more; how many there are now is believed at best.
        balance = replace(account.balance, points=account.balance.allotment, estimated=True)
        account = replace(account, balance=balance)
    return _active(account, Cause.RENEWED, at, health.evidence, trial=health.cause is not Cause.NETWORK)


def _with_daily_reset(account: Account, now: datetime, policy: PoolPolicy, day: str | None) -> Account:
    today = own_day(account, now, policy, day)
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
    account = replace(account, balance=balance, reset_day=today, error_count=0, strikes=0)
    if account.health.state is State.ACTIVE:
        return account
    return _active(account, Cause.RENEWED, _instant(account, today, policy), f"daily-reset {today}")


def _with_grant(account: Account, now: datetime) -> Account:
    """The grant that the upstream named has come to an account in service: believed until the next measurement.

    Once: from then on the figure is not what was measured less what was booked.
    """
    balance = account.balance
    granted, points, whole = balance.next_grant_at, balance.points, balance.allotment
    if granted is None or granted > now or account.health.state is not State.ACTIVE or points is None or not whole:
        return account
    measured = balance.measured_at is not None and balance.measured_at < granted
    if not measured or points >= whole or points + balance.booked != balance.measured:
        return account
    return replace(account, balance=replace(balance, points=whole, estimated=True))


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
        if news.withheld:
            return used
        blocked = outcome.model and (news.model or outcome.model)
        return _blocked(used, blocked, Cause.OPERATOR, at + timedelta(seconds=policy.model_block))
    if news.accepted:
        used = _judge_balance(_booked(used, Succeeded(), news), at, news.evidence, policy)
    if isinstance(outcome, _FAILURES_WITHOUT_NEWS) or news.credential_rev != account.credential_rev:
        return used
    detail = getattr(outcome, "detail", "")
    failed = replace(used, last_error=LastError(kind=type(outcome).__name__, detail=detail, at=at))
    if news.withheld:
        return failed
    if isinstance(outcome, Challenged):
        return _ill(failed, State.INVALID, Cause.CHALLENGED, None, news)
    if account.health.state is State.INVALID:
        return failed
    if isinstance(outcome, Unauthorized):
        return _ill(failed, State.INVALID, Cause.UNAUTHORIZED, None, news)
    if isinstance(outcome, Depleted):
        empty = replace(failed, balance=replace(failed.balance, points=0, estimated=True))
        return _ill(empty, State.DEPLETED, Cause.POINTS_GONE, outcome.until or _renewal(empty, at, policy), news)
    if isinstance(outcome, NetworkFault):
        return _rest(failed, Cause.NETWORK, at + timedelta(seconds=policy.network_rest), news, strike=False)
    if isinstance(outcome, RateLimited):
        told = outcome.retry_after is not None
        wait = policy.rest.seconds(failed.strikes) if outcome.retry_after is None else outcome.retry_after
        until = at + timedelta(seconds=min(max(wait, 1.0), policy.retry_after_cap))
        if outcome.model is not None:
            return _blocked(failed, news.model or outcome.model, Cause.RATE_LIMITED, until)
        return _rest(failed, Cause.RATE_LIMITED, until, news, told=told)
    assert isinstance(outcome, Transient)  # noqa: S101 - the union is closed
    if news.model_only:
        return _blocked(failed, news.model, Cause.ERRORS, at + timedelta(seconds=policy.rest.seconds(0)))
    counted = replace(failed, error_count=failed.error_count + 1)
    limit = policy.timeout_limit if outcome.timeout else policy.error_limit
    if counted.error_count < limit and not account.health.trial:
        return counted
    cause = Cause.TIMEOUTS if outcome.timeout else Cause.ERRORS
    return _rest(counted, cause, at + timedelta(seconds=policy.rest.seconds(counted.strikes)), news)


def _succeeded(account: Account, outcome: Succeeded, news: Settled, policy: PoolPolicy) -> Account:
    account = replace(
        account,
        last_success_at=_later(account.last_success_at, news.at),
        error_count=max(0, account.error_count - 1),
        strikes=0,
    )
    account = _booked(account, outcome, news)
    if any(block.model == news.model and block.cause is Cause.ERRORS for block in account.model_blocks):
        kept = tuple(block for block in account.model_blocks if block.model != news.model)
        account = replace(account, model_blocks=kept)
    health = account.health
    if health.state is State.COOLDOWN:
        # A rest for failures ends with any success; another only with one that was begun after the rest.
        fresh = news.began is not None and news.began >= health.since
        if health.cause in _FAILED or health.cause is Cause.NETWORK or fresh:
            account = _active(account, Cause.HEALTHY, news.at, news.evidence)
    elif health.state is State.ACTIVE and (health.cause is Cause.NEW or health.trial):
        account = _active(account, Cause.HEALTHY, news.at, news.evidence)
    return _judge_balance(account, news.at, news.evidence, policy)


def _booked(account: Account, outcome: Succeeded, news: Settled) -> Account:
    """The points that the request cost, as told or as believed, leave the balance."""
    balance = account.balance
    if not account.metered or balance.points is None:
        return account
    spent = news.expected if outcome.points is None else outcome.points
    if balance.measured_at is not None and news.at < balance.measured_at:
        # The measurement knew already, but what was missing then is explained now.
        return replace(account, balance=replace(balance, drift=balance.drift - spent)) if spent else account
    unpriced = balance.unpriced
    if outcome.points is None and (news.key in unpriced or len(unpriced) < UNPRICED_MODELS):
        unpriced = {**unpriced, news.key: unpriced.get(news.key, 0) + 1}
    if not spent and unpriced is balance.unpriced:
        return account
    balance = replace(
        balance,
        points=max(0, balance.points - spent),
        booked=balance.booked + spent,
        unpriced=unpriced,
        estimated=True,
    )
    return replace(account, balance=balance)


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
        measured=known.measured if news.points is None else news.points,
        booked=known.booked if news.points is None else 0,
        unpriced=known.unpriced if news.points is None else {},
        drift=known.drift if news.points is None else news.drift,
    )
    account = replace(account, balance=balance, last_refresh_at=news.at, reset_clock=news.clock or account.reset_clock)
    if account.renews_daily:
        # What was measured today holds today's grant already, even if the account was invalid at the hour.
        account = replace(account, reset_day=own_day(account, news.at, policy))
    # The upstream answered this account: whatever rest or invalidity was derived before is out of date. A rest that
    # the upstream itself timed stays: a balance query says nothing about the rate of chats.
    health = account.health
    if health.state is not State.ACTIVE and not health.told:
        limited = health.cause is Cause.RATE_LIMITED
        account = _active(replace(account, error_count=0), Cause.HEALTHY, news.at, news.evidence, trial=limited)
    return _judge_balance(account, news.at, news.evidence, policy)


def _judge_balance(account: Account, at: datetime, evidence: str, policy: PoolPolicy) -> Account:
    points = account.balance.points
    if not account.metered or points is None or points >= _threshold(account, policy):
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


def kept_for_owner(account: Account, policy: PoolPolicy) -> int:
    """Points of the account that the pool never spends."""
    return _whole(account, policy) * account.keep_percent // 100 if account.keep_percent else 0


def purse(account: Account, policy: PoolPolicy) -> int | None:
    """Points that the pool may spend on the account after a renewal; None: not known."""
    whole = _whole(account, policy)
    return whole - kept_for_owner(account, policy) if whole else None


def _whole(account: Account, policy: PoolPolicy) -> int:
    """Points after a renewal; 0: not known."""
    return account.balance.allotment or (policy.reset.points if account.renews_daily else 0)


def _threshold(account: Account, policy: PoolPolicy) -> int:
    return policy.depleted_threshold + kept_for_owner(account, policy)


def own_day(account: Account, now: datetime, policy: PoolPolicy, day: str | None = None) -> str:
    """The local day whose renewal of points the account has had by ``now``; ``day``: by the configured hour."""
    clock = account.reset_clock
    if clock is None or not trusted(clock):
        return day or reset_day(now, policy.reset)
    return reset_day(now, policy.reset, clock.high)


def _renewal(account: Account, at: datetime, policy: PoolPolicy) -> datetime:
    """When a depleted account may have points again: its own known grant, the daily reset, or a fixed rest."""
    granted = account.balance.next_grant_at
    if granted is not None and granted > at:
        return granted
    if account.renews_daily:
        clock = account.reset_clock
        return next_reset(at, policy.reset, clock.high if clock is not None and trusted(clock) else 0.0)
    return at + timedelta(seconds=policy.depleted_rest)


def _ill(
    account: Account, state: State, cause: Cause, until: datetime | None, news: Settled, *, told: bool = False
) -> Account:
    if account.health.cause is Cause.CHALLENGED:
        return account  # nothing outranks a challenge
    return replace(
        account,
        health=Health(state=state, cause=cause, since=news.at, until=until, evidence=news.evidence, told=told),
    )


def _rest(
    account: Account, cause: Cause, until: datetime, news: Settled, *, told: bool = False, strike: bool = True
) -> Account:
    """A cooldown; a longer one that already runs, or an empty balance, stays. One rest is one strike."""
    health = account.health
    if health.state is State.DEPLETED or (
        health.state is State.COOLDOWN and health.until is not None and health.until >= until
    ):
        return account
    if strike and health.state is not State.COOLDOWN:
        account = replace(account, strikes=account.strikes + 1)
    return _ill(account, State.COOLDOWN, cause, until, news, told=told)


def lifted(account: Account, now: datetime, evidence: str) -> Account:
    """What the request ``evidence`` brought about is undone, a rest or an error: the fault was not the account's."""
    if account.health.state is State.ACTIVE and account.error_count:
        return replace(account, error_count=account.error_count - 1)
    if account.health.state is not State.COOLDOWN or account.health.evidence != evidence:
        return account
    fresh = replace(account, error_count=0, strikes=max(0, account.strikes - 1))
    return _active(fresh, Cause.HEALTHY, now, evidence)


def _blocked(account: Account, model: str | None, cause: Cause, until: datetime) -> Account:
    if model is None:
        return account
    others = tuple(block for block in account.model_blocks if block.model != model)[-(_MODEL_BLOCKS - 1) :]
    return replace(account, model_blocks=(*others, ModelBlock(model=model, cause=cause, until=until)))


def _active(account: Account, cause: Cause, at: datetime, evidence: str, *, trial: bool = False) -> Account:
    health = Health(state=State.ACTIVE, cause=cause, scope=Scope.ACCOUNT, since=at, evidence=evidence, trial=trial)
    return replace(account, health=health)


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
    fresh = replace(account, error_count=0, strikes=0, model_blocks=(), last_error=None)
    if fresh.balance.estimated and fresh.metered and (fresh.balance.points or 0) < _threshold(fresh, policy):
        fresh = replace(fresh, balance=replace(fresh.balance, points=None))
    return _judge_balance(_active(fresh, Cause.OPERATOR, now, "operator"), now, "operator", policy)


def renewed_credentials(account: Account, now: datetime) -> Account:
    """New credentials were handed in: the account starts afresh; what was measured stays as an estimate."""
    fresh = replace(
        account,
        error_count=0,
        strikes=0,
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
