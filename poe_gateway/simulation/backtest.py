"""Recorded requests against another policy: the same callers, the same pool, a real broker on virtual time.

What cannot be known is assumed, and said (``ASSUMED``): the records tell nothing of accounts that were not used then,
nor of what callers would have done had they been answered otherwise.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta

import msgspec

from poe_gateway.dispatch.failover import Tell, as_error, next_step
from poe_gateway.errors import GatewayError
from poe_gateway.pool import outcome as outcomes
from poe_gateway.pool.account import Account, Balance, Intent
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.decision import Decision
from poe_gateway.pool.lease import Want
from poe_gateway.pool.memory import MemoryAccounts, MemoryHub
from poe_gateway.pool.outcome import Depleted, Failure, Outcome, Rejected, Succeeded, Transient
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.pool.renewal import reset_day
from poe_gateway.simulation.records import AccountFacts, Records
from poe_gateway.simulation.report import quantile
from poe_gateway.simulation.virtual_time import BEGIN, World, WorldClock
from poe_gateway.upstreams.base import Fate

_ATTEMPTS = 3
_TICK = 1.0
_QUICK = 0.5
"""Seconds after which an upstream says that there are no points."""
ASSUMED = (
    "An account that was not used then has no recorded outcomes: it is taken to be healthy.",
    "An answer takes as long, and costs as much, on another account as it did on its own.",
    "Callers come as they came then, and wait as long as the policy lets them.",
    "Keys are all alike: the accounts that they may use, weights and priorities are not in the records.",
    "All processes of then are one; sessions and prefixes are left out.",
)


class BadPolicy(ValueError):
    """A setting of the policy is unknown or its value does not fit; the message says which."""


class Course(msgspec.Struct, kw_only=True):
    """How a day went, or would have gone."""

    requests: int = 0
    served: int = 0
    failed_over: int = 0
    """Served after another account had failed."""
    refused: Counter[str] = msgspec.field(default_factory=Counter)
    """Code -> requests."""
    waits: list[float] = []
    """Seconds in the line, of every slot that was won."""
    work: Counter[str] = msgspec.field(default_factory=Counter)
    """Account -> answers."""
    dry: dict[str, float] = {}
    """Account -> seconds after the first record at which it had no points left for a request."""

    @property
    def busiest(self) -> float:
        """Share of the account with most answers."""
        return max(self.work.values(), default=0) / max(1, sum(self.work.values()))

    def gini(self, accounts: int) -> float:
        """0: all accounts answered as much; towards 1: one answered all."""
        shares = sorted([*self.work.values(), *[0] * (accounts - len(self.work))])
        whole = sum(shares)
        if not whole:
            return 0.0
        return sum((2 * rank - len(shares) - 1) * share for rank, share in enumerate(shares, 1)) / (len(shares) * whole)


def policy_with(settings: Sequence[str], base: Mapping[str, object] | None = None) -> PoolPolicy:
    """The default policy with ``key=value`` settings (``reset.hour=3`` for an inner one). Raises BadPolicy."""
    fields: dict[str, object] = dict(base or {})
    reset: dict[str, object] = {}
    known = {*PoolPolicy.__struct_fields__} - {"reset", "model_strategies"}
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.strip()
        if not equals:
            raise BadPolicy(f"'{setting}' is not of the form key=value")
        if key.startswith("reset."):
            reset[key.removeprefix("reset.")] = value.strip()
        elif key in known:
            fields[key] = value.strip()
        else:
            raise BadPolicy(f"there is no setting '{key}'; known: {', '.join(sorted(known))}, reset.*")
    try:
        return msgspec.convert({**fields, **({"reset": reset} if reset else {})}, PoolPolicy, strict=False)
    except msgspec.ValidationError as error:
        raise BadPolicy(f"the policy does not fit: {error}") from None


def recorded(records: Records) -> Course:
    """What really happened, as far as the records tell."""
    course = Course()
    for decision in records.decisions:
        course.requests += 1
        good = [attempt for attempt in decision.tries if attempt.outcome == "Succeeded"]
        if good:
            course.served += 1
            course.work[good[-1].account_id] += 1
            course.failed_over += len(decision.tries) > 1
        else:
            course.refused[decision.error_code or "unknown"] += 1
        for choice in decision.choices:
            if choice.account_id is not None:
                course.waits.append(choice.wait_seconds)
        for attempt in decision.tries:
            if attempt.outcome == "Depleted":
                after = (decision.at - records.begin).total_seconds()
                course.dry.setdefault(attempt.account_id, after)
    course.waits.sort()
    return course


def replay(records: Records, policy: PoolPolicy, accounts: Sequence[AccountFacts] = ()) -> Course:
    """The same requests under ``policy``."""
    return _Replay(records, policy, accounts).run()


class _Replay:
    """One pool, one broker, all slots in its hands."""

    def __init__(self, records: Records, policy: PoolPolicy, accounts: Sequence[AccountFacts]) -> None:
        self._records = records
        self._policy = policy
        self._world = World()
        self._clock = WorldClock(self._world, (records.begin - BEGIN).total_seconds())
        self._loop = self._world.loop("replay")
        self._errors: list[str] = []
        self._loop.on_error = self._errors.append
        self._course = Course()
        self._asked: set[asyncio.Task[None]] = set()
        facts = {each.id: each for each in accounts}
        names = sorted({*records.offers, *facts})
        pool = [self._account(name, facts.get(name)) for name in names]
        self._left = {each.id: each.balance.points for each in pool}
        """Points that the accounts really have; None: not known, never at an end."""
        self.broker = Broker(store=MemoryAccounts(MemoryHub(self._clock)), policy=policy, clock=self._clock)
        self.broker.grants_valid = lambda: True
        self.broker.accept(pool)
        limits = {each.id: each.max_inflight or policy.max_inflight for each in pool}
        self.broker.regrant(limits, policy.global_inflight)

    def _account(self, account_id: str, facts: AccountFacts | None) -> Account:
        facts = facts or AccountFacts(id=account_id)
        points = facts.balance.points if facts.balance is not None else None
        if points is None:
            points = self._records.funds(account_id)
        now = self._clock.now()
        return Account(
            id=account_id,
            provider="replay",
            name=account_id,
            offer=facts.offer or self._records.offers.get(account_id, ""),
            intent=Intent(facts.intent),
            metered=points is not None,
            renews_daily=points is not None,
            reset_day=reset_day(now, self._policy.reset),
            balance=Balance(points=points, estimated=False, measured_at=now),
            max_inflight=facts.max_inflight,
            priority=facts.priority,
            weight=facts.weight,
            labels=tuple(sorted(facts.labels)),
            keep_percent=facts.keep_percent,
            created_at=now,
        )

    def run(self) -> Course:
        world, records = self._world, self._records
        for decision in records.decisions:
            world.call_at((decision.at - records.begin).total_seconds(), self._arrive, decision)
        ticker = self._loop.create_task(self._tick())
        try:
            world.run((records.decisions[-1].at - records.begin).total_seconds())
            while self._asked and not self._errors:
                world.run(world.now + self._policy.acquire_timeout)
        finally:
            ticker.cancel()
            world.close()
        if self._errors:
            raise RuntimeError(f"the replay failed: {self._errors[0]}")
        self._course.waits.sort()
        return self._course

    async def _tick(self) -> None:
        day = reset_day(self._clock.now(), self._policy.reset)
        while True:
            await asyncio.sleep(_TICK)
            self.broker.tick()
            today = reset_day(self._clock.now(), self._policy.reset)
            if today != day:
                day = today
                for account_id, points in self._left.items():
                    if points is not None:
                        self._left[account_id] = max(points, self._policy.reset.points)

    def _arrive(self, decision: Decision) -> None:
        self._course.requests += 1
        task = self._loop.create_task(self._ask(decision))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _ask(self, decision: Decision) -> None:
        course, tried = self._course, set[str]()
        told: GatewayError | None = None
        """What the caller hears when no other account can be had."""
        deadline = self._clock.monotonic() + self._policy.acquire_timeout
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                lease = await self.broker.lease(self._want(decision, deadline, frozenset(tried)))
            except GatewayError as error:
                course.refused[(told or error).code or "refused"] += 1
                return
            course.waits.append(lease.waited)
            outcome, fate, seconds = self._answer(decision, lease.account.id)
            await asyncio.sleep(seconds)
            self.broker.settle(lease, outcome)
            if isinstance(outcome, Succeeded):
                course.served += 1
                course.work[lease.account.id] += 1
                course.failed_over += attempt > 1
                return
            step = next_step(outcome, fate, attempt, _ATTEMPTS)
            if isinstance(step, Tell):
                course.refused[step.error.code or "failed"] += 1
                return
            tried.add(lease.account.id)
            told = as_error(outcome, fate)

    def _want(self, decision: Decision, deadline: float, tried: frozenset[str]) -> Want:
        need = self._records.need(decision)
        return Want(
            offers=frozenset(decision.offers),
            model=decision.model,
            key=decision.model.lower(),
            caller=decision.key_id,
            evidence=decision.request_id,
            deadline=deadline,
            tried=tried,
            need=need,
            expected=self._records.points(decision),
            fingerprint=decision.fingerprint,
        )

    def _answer(self, decision: Decision, account_id: str) -> tuple[Outcome, Fate, float]:
        """How this account answers, and after how many seconds."""
        failed = self._records.failure(decision, account_id, self._clock.now())
        if failed is not None:
            return _failure(failed.outcome, decision), Fate(failed.fate or Fate.UNKNOWN), failed.seconds
        cost = self._records.points(decision)
        left = self._left[account_id]
        if left is not None:
            if left < cost:
                self._course.dry.setdefault(account_id, self._world.now)
                return Depleted(), Fate.NOT_SENT, _QUICK
            self._left[account_id] = left - cost
        return Succeeded(points=cost), Fate.ACCEPTED, self._records.seconds(decision)


def _failure(name: str, decision: Decision) -> Failure:
    """The outcome of that name; its particulars are not in the records."""
    if name == "Rejected":
        return Rejected(model=None)
    kind = getattr(outcomes, name, None)
    if kind is None or not issubclass(kind, msgspec.Struct) or kind is Succeeded:
        return Transient(detail=f"recorded as {name}")
    made: Failure = kind()
    return made


def compared(courses: Mapping[str, Course], accounts: int) -> list[tuple[str, ...]]:
    """Rows of a table: what is measured, then one figure for each course."""
    each = list(courses.values())
    codes = sorted({code for course in each for code in course.refused})
    rows: list[tuple[str, ...]] = [
        ("requests", *(str(course.requests) for course in each)),
        ("served", *(str(course.served) for course in each)),
        ("served after a failover", *(str(course.failed_over) for course in each)),
        *((f"refused: {code}", *(str(course.refused[code]) for course in each)) for code in codes),
        ("wait p50", *(f"{quantile(course.waits, 0.5):.2f} s" for course in each)),
        ("wait p95", *(f"{quantile(course.waits, 0.95):.2f} s" for course in each)),
        ("wait max", *(f"{max(course.waits, default=0.0):.2f} s" for course in each)),
        ("accounts used", *(f"{len(course.work)} of {accounts}" for course in each)),
        ("share of the busiest", *(f"{course.busiest:.0%}" for course in each)),
        ("Gini of the shares", *(f"{course.gini(accounts):.2f}" for course in each)),
        ("accounts run dry", *(str(len(course.dry)) for course in each)),
        ("first dry after", *(_first_dry(course) for course in each)),
    ]
    return rows


def _first_dry(course: Course) -> str:
    if not course.dry:
        return "-"
    account_id, seconds = min(course.dry.items(), key=lambda item: (item[1], item[0]))
    return f"{timedelta(seconds=round(seconds))} ({account_id})"
