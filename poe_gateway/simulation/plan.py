"""What happens on a simulated day: drawn from a seed before it begins, so that it can be read and repeated."""

from __future__ import annotations

from collections.abc import Iterator
from math import cos, exp, pi

import msgspec

from poe_gateway.clock import Ids
from poe_gateway.pool.account import Account
from poe_gateway.pool.pauses import Pauses
from poe_gateway.pool.policy import DailyReset, PoolPolicy, Strategy
from poe_gateway.simulation.virtual_time import BEGIN

DAY = 86_400.0
POINTS = "site:points"
PLAIN = "site:plain"
PRICES = {"small": 4, "medium": 20, "large": 100}
"""Points by model, before noise."""
_TYPICAL = 15
"""Points that a request costs on average."""
_LABELS = ("team-a", "team-b", "spare")
_STRATEGIES = (Strategy.BALANCED, Strategy.BALANCED, *Strategy)


class PlannedAccount(msgspec.Struct, frozen=True, kw_only=True):
    """One account as its provider knows it. ``account``: as the operator handed it in."""

    account: Account
    points: int
    allotment: int
    renewal: float
    """Second of the day at which its points are renewed."""
    models: tuple[str, ...]
    """That it may use."""
    per_minute: int
    """Requests a minute before it is told to slow down."""


class PlannedKey(msgspec.Struct, frozen=True, kw_only=True):
    """One service key and the habits of its callers. ``rate``: requests per day; ``patience`` in seconds."""

    id: str
    rate: float
    patience: float
    priority: int
    weight: int
    labels: tuple[str, ...]
    without: tuple[str, ...]
    sessions: int
    """Sessions that it keeps going; 0: none."""
    burst: int
    """Requests that come together."""


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One request. ``seconds``: how long its answer takes; ``leaves``: after which its caller goes away, or None."""

    at: float
    number: int
    key: PlannedKey
    model: str
    size: int
    """Characters of the prompt."""
    body: int
    """Equal numbers are equal bodies."""
    seconds: float
    stream: bool
    session: str | None
    leaves: float | None


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Something goes wrong from ``at`` on for ``seconds``. ``kind`` as in ``troubles``; ``target`` is a process's,
    account's or place's number."""

    at: float
    kind: str
    seconds: float
    target: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    seed: int
    days: float
    processes: int
    places: int
    """Machines on which they live."""
    accounts: tuple[PlannedAccount, ...]
    keys: tuple[PlannedKey, ...]
    policy: PoolPolicy
    pauses: Pauses
    typical: float
    """Seconds that half of all answers take at most."""
    latency: float
    """Of the database, in seconds."""
    losses: float
    doorbell: bool
    """Whether processes hear of changes at once."""
    told: bool
    """Whether the provider tells what a request cost."""
    troubles: tuple[Trouble, ...]

    @property
    def seconds(self) -> float:
        return self.days * DAY

    @property
    def capacity(self) -> int:
        """Requests that may run at a time."""
        limits = [self.policy.limit_of(each.account) for each in self.accounts]
        slots = min(limits) if self.policy.strategy is Strategy.SINGLE else sum(limits)
        return min(slots, self.policy.global_inflight)


def draw(seed: int, *, days: float = 1.0, processes: int | None = None, accounts: int | None = None) -> Plan:
    """The plan of a seed; ``processes`` and ``accounts`` set what is drawn otherwise."""
    ids = Ids(seed)
    rng = ids.rng
    drawn_processes = rng.choice((1, 2, 2, 3, 4))
    drawn_accounts = rng.choice((1, 2, 3, 5, 8, 12, 20, 30, 60))
    processes = processes or drawn_processes
    count = accounts or drawn_accounts
    lifetime = rng.choice((120.0, 300.0, 300.0))
    each = rng.choice((1, 2, 2, 3))
    typical = rng.choice((8.0, 15.0, 80.0))
    # Between an idle pool and one that is asked for too much at the busy hours.
    rate = min(6000.0, count * each * DAY / (2 * typical) * rng.choice((0.1, 0.3, 0.6, 1.2)))
    points = max(500, round(rate * _TYPICAL / count * rng.choice((0.7, 1.5, 5.0))))
    policy = PoolPolicy(
        max_inflight=each,
        global_inflight=max(1, int(count * each * rng.choice((0.5, 0.8, 1.5, 3.0)))),
        grant_lifetime=lifetime,
        request_timeout=rng.choice((300.0, 600.0)),
        acquire_timeout=rng.choice((60.0, 120.0, 300.0)),
        queue_limit=rng.choice((20, 200, 1000)),
        strategy=rng.choice(_STRATEGIES),
        reset=DailyReset(points=points),
    )
    pool = tuple(_account(ids, number, policy) for number in range(count))
    return Plan(
        seed=seed,
        days=days,
        processes=processes,
        places=1 if processes < 4 or rng.random() < 0.5 else 2,
        accounts=pool,
        keys=_keys(ids, rate),
        policy=policy,
        pauses=Pauses(round=lifetime / 10, need=5.0, patient=lifetime / 2, idle=lifetime / 2, promise=lifetime / 5),
        typical=typical,
        latency=rng.choice((0.02, 0.1, 0.6)),
        losses=rng.choice((0.0, 0.0, 0.002, 0.02)),
        doorbell=rng.random() < 0.7,
        told=rng.random() < 0.7,
        troubles=_troubles(ids, days, processes, count, lifetime),
    )


def _account(ids: Ids, number: int, policy: PoolPolicy) -> PlannedAccount:
    rng = ids.rng
    plain = rng.random() < 0.15
    models = tuple(model for model in PRICES if model == "small" or rng.random() > 0.05)
    points = round(policy.reset.points * rng.choice((1.0, 1.0, 0.3, 3.0)))
    return PlannedAccount(
        account=Account(
            id=f"acc_{number:03}",
            provider="site",
            name=f"account-{number}",
            offer=PLAIN if plain else POINTS,
            metered=not plain,
            renews_daily=not plain and rng.random() < 0.8,
            max_inflight=None if rng.random() < 0.6 else rng.choice((1, 2, 4)),
            priority=rng.choice((0, 0, 0, 1)),
            weight=rng.choice((1, 1, 3)),
            labels=tuple(sorted(rng.sample(_LABELS, rng.choice((0, 0, 1, 2))))),
            keep_percent=rng.choice((0, 0, 0, 20)),
            created_at=BEGIN,
        ),
        points=points,
        allotment=max(points, policy.reset.points),
        renewal=rng.choice((0.0, 0.0, rng.uniform(0, DAY))),
        models=models,
        per_minute=rng.choice((8, 30, 1000)),
    )


def _keys(ids: Ids, rate: float) -> tuple[PlannedKey, ...]:
    """Keys that ask for ``rate`` requests a day together."""
    rng = ids.rng
    count = rng.choice((1, 2, 3, 5))
    shares = [rng.choice((1, 1, 4, 20)) for _ in range(count)]
    return tuple(
        PlannedKey(
            id=f"key_{number}",
            rate=max(50.0, rate * share / sum(shares)),
            patience=rng.choice((20.0, 60.0, 200.0, 1000.0)),
            priority=rng.choice((0, 0, 0, 1, -1)),
            weight=rng.choice((1, 1, 2, 5)),
            labels=rng.choice(((), (), (), (rng.choice(_LABELS),))),
            without=rng.choice(((), (), ("spare",))),
            sessions=rng.choice((0, 0, 3, 20)),
            burst=rng.choice((1, 1, 5, 40)),
        )
        for number, share in enumerate(shares)
    )


_OFTEN = {
    # kind: (times a day, seconds at least, seconds at most)
    "kill": (8, 1.0, 400.0),
    "freeze": (8, 1.0, 900.0),
    "skew": (2, 0.0, 0.0),
    "database_away": (5, 1.0, 400.0),
    "egress": (3, 5.0, 600.0),
    "drift": (1, 30.0, 1800.0),
    "server_errors": (3, 30.0, 900.0),
    "time_outs": (2, 30.0, 300.0),
    "limits": (2, 30.0, 600.0),
    "challenge": (3, 600.0, 20_000.0),
    "dead": (2, 600.0, 20_000.0),
    "pause": (2, 60.0, 7200.0),
    "poison": (4, 0.0, 0.0),
}


def _troubles(ids: Ids, days: float, processes: int, accounts: int, lifetime: float) -> tuple[Trouble, ...]:
    rng = ids.rng
    moods = {kind: rng.choice((0, 1, 1, 5)) for kind in ("processes", "provider")}
    found: list[Trouble] = []
    for kind, (often, least, most) in _OFTEN.items():
        of_processes = kind in ("kill", "freeze", "skew")
        mood = moods["processes" if of_processes else "provider"]
        for _ in range(rng.randint(0, round(2 * often * days)) * mood):
            target = rng.randrange(processes if of_processes else accounts)
            longest = 3 * lifetime if kind == "freeze" else most
            found.append(
                Trouble(at=rng.uniform(0, days * DAY), kind=kind, seconds=rng.uniform(least, longest), target=target)
            )
    return tuple(sorted(found, key=lambda each: (each.at, each.kind)))


def arrivals(plan: Plan) -> list[Arrival]:
    """All requests of the day in order: more by day than by night, some in bursts, some bodies twice."""
    ids = Ids(plan.seed * 7919 + 1)
    rng = ids.rng
    found: list[tuple[float, PlannedKey]] = []
    for key in plan.keys:
        for at in _moments(ids, plan.seconds, key.rate / key.burst):
            found.extend((at + each * rng.uniform(0, 0.5), key) for each in range(key.burst))
    found.sort(key=lambda each: (each[0], each[1].id))
    models = tuple(PRICES)
    longest = 0.9 * plan.policy.request_timeout
    made: list[Arrival] = []
    for number, (at, key) in enumerate(found):
        model, size = rng.choices(models, (6, 3, 1))[0], round(40 * exp(rng.gauss(2, 1)))
        body = number
        if made and rng.random() < 0.03:
            again = rng.choice(made)
            model, size, body = again.model, again.size, again.body
        made.append(
            Arrival(
                at=at,
                number=number,
                key=key,
                model=model,
                size=size,
                body=body,
                seconds=min(longest, plan.typical * exp(rng.gauss(0, 1))),
                stream=rng.random() < 0.7,
                session=f"s{rng.randrange(key.sessions)}" if key.sessions and rng.random() < 0.3 else None,
                leaves=rng.uniform(0.1, 40.0) if rng.random() < 0.04 else None,
            )
        )
    return made


def _moments(ids: Ids, seconds: float, rate: float) -> Iterator[float]:
    """Moments of a Poisson process: ``rate`` a day on average, six times as dense at the busiest hour as at night."""
    rng = ids.rng
    at = 0.0
    while True:
        at += rng.expovariate(1.7 * rate / DAY)
        if at >= seconds:
            return
        busy = (1.0 - cos(2 * pi * at / DAY)) / 2  # 0 at midnight, 1 at noon
        if rng.random() * 1.7 < 0.3 + 1.4 * busy:
            yield at
