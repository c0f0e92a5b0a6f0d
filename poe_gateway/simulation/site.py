"""The simulated provider: it alone knows how many requests really run, what accounts have left and how they are.

A request lives here, not in the process that sent it: when that process is frozen the request goes on to its own end,
when it dies the connection closes. What the pool promises about requests is judged by this side's figures.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from datetime import timedelta
from math import exp

import msgspec

from poe_gateway.chat.events import Bound, ChatEvent, Finished, Measured, TextDelta
from poe_gateway.clock import Ids
from poe_gateway.pool.outcome import (
    AdapterDrift,
    Challenged,
    Depleted,
    NetworkFault,
    RateLimited,
    Rejected,
    Transient,
    Unauthorized,
)
from poe_gateway.simulation.judge import Judge
from poe_gateway.simulation.plan import DAY, PRICES, Plan, PlannedAccount
from poe_gateway.simulation.virtual_time import BEGIN, Timer, World
from poe_gateway.upstreams.base import Fate, Reading, UpstreamFailure

_FAILING = 0.25
"""Part of the requests that fail in a window of server errors or time-outs."""


class Faults(msgspec.Struct):
    """What is wrong with the site at the moment; windows end by themselves."""

    drift: bool = False
    server_errors: bool = False
    time_outs: bool = False
    limits: bool = False
    cut_off: set[int] = set()
    """Places whose way to the site is broken."""
    poison: dict[int, UpstreamFailure] = {}
    """Bodies that every account refuses, and how."""


class SiteAccount:
    """The truth about one account."""

    def __init__(self, planned: PlannedAccount, limit: int) -> None:
        self.planned = planned
        self.id = planned.account.id
        self.limit = limit
        """Requests that may run at a time, as the operator said."""
        self.running = 0
        self.most = 0
        self.points = planned.points
        self.challenged = False
        self.dead = False
        self.renews_at = planned.renewal or DAY
        self.recent: deque[float] = deque()
        """Requests of the last minute."""
        self.limited_until = 0.0
        self.spent = 0


class Connection:
    """One request at the site. ``deliver`` takes its events, its failure (raised to the caller), or its end (None)."""

    __slots__ = ("account", "deliver", "place", "process", "timers", "what")

    def __init__(
        self,
        account: SiteAccount,
        process: str,
        place: int,
        what: str,
        deliver: Callable[[ChatEvent | UpstreamFailure | None], None],
    ) -> None:
        self.account = account
        self.process = process
        self.place = place
        self.what = what
        self.deliver = deliver
        self.timers: list[Timer] = []


class Site:
    """The provider and all its accounts."""

    def __init__(self, world: World, judge: Judge, plan: Plan, ids: Ids) -> None:
        self._world = world
        self._judge = judge
        self._plan = plan
        self._rng = ids.rng
        self.faults = Faults()
        self.closed = False
        self.calm = False
        """Nothing fails by chance, nobody is too fast."""
        self.accounts = {
            each.account.id: SiteAccount(each, plan.policy.limit_of(each.account)) for each in plan.accounts
        }
        self.open: dict[Connection, None] = {}
        self.most = 0
        """Requests that ran at a time."""
        self.lately = 0
        """The same since somebody set it to 0."""
        self.requests = 0
        self.answers: Counter[str] = Counter()
        """How requests ended here."""
        for account in self.accounts.values():
            if account.planned.account.metered:
                world.call_at(account.renews_at, self._renew, account)

    # Requests come and go.

    def request(
        self,
        *,
        process: str,
        place: int,
        account_id: str,
        model: str,
        body: int,
        seconds: float,
        evidence: str,
        deliver: Callable[[ChatEvent | UpstreamFailure | None], None],
    ) -> Connection:
        """A request arrives. ``seconds``: how long its answer takes, if it is answered."""
        account = self.accounts[account_id]
        connection = Connection(account, process, place, evidence, deliver)
        if self.closed:
            return connection
        self.requests += 1
        self.open[connection] = None
        account.running += 1
        account.most = max(account.most, account.running)
        self.most = max(self.most, len(self.open))
        self.lately = max(self.lately, len(self.open))
        self._judge.tell("site", f"{account_id} {evidence} of {process} begins, {account.running}/{account.limit}")
        if account.running > account.limit:
            self._judge.broken(
                "slots of an account", f"{account.running} requests run on {account_id}, its limit is {account.limit}"
            )
        whole = self._plan.policy.global_inflight
        if len(self.open) > whole:
            self._judge.broken("slots of the pool", f"{len(self.open)} requests run, the limit is {whole}")
        self._answer(connection, model, body, seconds)
        return connection

    def close(self, connection: Connection) -> None:
        """The request is over, for whatever reason; the second time nothing happens."""
        if self.open.pop(connection, self) is self:
            return
        connection.account.running -= 1
        for timer in connection.timers:
            timer.cancel()

    def hang_up(self, process: str) -> None:
        """The process died: its connections close."""
        for connection in [each for each in self.open if each.process == process]:
            self.answers["hung up"] += 1
            self.close(connection)

    def _answer(self, connection: Connection, model: str, body: int, seconds: float) -> None:
        """Decide how it goes, and set the timers."""
        rng = self._rng
        soon = 0.05 + rng.random()
        failure, after = self._failure(connection, model, body)
        if failure is not None:
            self._at(connection, after or soon, self._fail, connection, failure)
            return
        account = connection.account
        cost = self._charge(account, model)
        first = min(seconds * 0.5, 0.2 + 2 * rng.random())
        fault = 1.0 if self.calm else rng.random()
        if fault < 0.004:  # never a word: the caller's patience decides
            self._at(connection, max(seconds, 250.0), self._end, connection, "silent")
            return
        if fault < 0.006:
            self._at(connection, first, self._end, connection, "empty")
            return
        self._at(connection, first, self._say, connection, TextDelta("Once upon a time"))
        if fault < 0.012:
            self._at(connection, seconds, self._end, connection, "cut off")
            return
        self._at(connection, seconds, self._finish, connection, cost)

    def _at(self, connection: Connection, seconds: float, callback: Callable[..., None], *args: object) -> None:
        connection.timers.append(self._world.call_at(self._world.now + seconds, callback, *args))

    def _say(self, connection: Connection, event: ChatEvent) -> None:
        connection.deliver(event)

    def _finish(self, connection: Connection, cost: int | None) -> None:
        self.answers["answered"] += 1
        self.close(connection)
        if cost is not None and self._plan.told:
            connection.deliver(Measured(points=cost))
        connection.deliver(Bound({"chat": connection.what}))
        connection.deliver(Finished())
        connection.deliver(None)

    def _end(self, connection: Connection, how: str) -> None:
        self.answers[how] += 1
        self.close(connection)
        connection.deliver(None)

    def _fail(self, connection: Connection, failure: UpstreamFailure) -> None:
        kind = type(failure.outcome).__name__
        self.answers[kind] += 1
        self._judge.tell("site", f"{connection.account.id} {connection.what} fails: {kind}")
        self.close(connection)
        connection.deliver(failure)

    # How it goes.

    def _failure(self, connection: Connection, model: str, body: int) -> tuple[UpstreamFailure | None, float | None]:
        """The failure, and after how many seconds it comes (None: soon)."""
        rng, faults, account = self._rng, self.faults, connection.account
        if connection.place in faults.cut_off:
            if rng.random() < 0.5:
                return UpstreamFailure(NetworkFault("connect"), Fate.NOT_SENT), 3.0
            return UpstreamFailure(Transient("no answer", timeout=True), Fate.UNKNOWN), 30.0
        if faults.drift:
            return UpstreamFailure(AdapterDrift("unknown answer"), Fate.UNKNOWN), None
        if account.dead:
            return UpstreamFailure(Unauthorized("logged out"), Fate.NOT_SENT), None
        if account.challenged:
            return UpstreamFailure(Challenged("bot check"), Fate.NOT_SENT), None
        if body in faults.poison:
            return faults.poison[body], None
        if model not in account.planned.models:
            return UpstreamFailure(Rejected(status=403, code="no_access", model=model), Fate.NOT_SENT), None
        if self.calm:
            return None, None
        limited = self._limited(account)
        if limited is not None:
            return UpstreamFailure(limited, Fate.NOT_SENT), None
        if account.planned.account.metered and account.points < PRICES[model]:
            return UpstreamFailure(Depleted(detail="no points"), Fate.NOT_SENT), None
        chance = rng.random()
        if chance < (_FAILING if faults.server_errors else 0.002):
            return UpstreamFailure(Transient("server error"), Fate.NOT_SENT), None
        if chance > 1 - (_FAILING if faults.time_outs else 0.0005):
            return UpstreamFailure(Transient("no answer", timeout=True), Fate.UNKNOWN), 60.0
        if 0.5 < chance < 0.5002:
            account.challenged = True
            return UpstreamFailure(Challenged("bot check"), Fate.NOT_SENT), None
        return None, None

    def _limited(self, account: SiteAccount) -> RateLimited | None:
        now = self._world.now
        if now < account.limited_until:
            return RateLimited(retry_after=account.limited_until - now)
        recent = account.recent
        while recent and recent[0] < now - 60:
            recent.popleft()
        if len(recent) >= account.planned.per_minute or (self.faults.limits and self._rng.random() < 0.5):
            if self._rng.random() < 0.5:
                return RateLimited()
            account.limited_until = now + self._rng.uniform(5, 120)
            return RateLimited(retry_after=account.limited_until - now)
        recent.append(now)
        return None

    def _charge(self, account: SiteAccount, model: str) -> int | None:
        if not account.planned.account.metered:
            return None
        cost = min(account.points, max(1, round(PRICES[model] * exp(self._rng.gauss(0, 0.1)))))
        account.points -= cost
        account.spent += cost
        return cost

    # Points.

    def read_balance(self, account_id: str, place: int) -> Reading:
        """What the account's own page says. Raises UpstreamFailure."""
        account = self.accounts[account_id]
        if place in self.faults.cut_off:
            raise UpstreamFailure(NetworkFault("connect"))
        if self.faults.drift:
            raise UpstreamFailure(AdapterDrift("unknown page"))
        if account.dead:
            raise UpstreamFailure(Unauthorized("logged out"))
        if account.challenged:
            raise UpstreamFailure(Challenged("bot check"))
        if not account.planned.account.metered:
            return Reading()
        return Reading(
            points=account.points,
            subscription_active=False,
            allotment=account.planned.allotment,
            next_grant_at=None
            if account.planned.account.renews_daily
            else BEGIN + timedelta(seconds=account.renews_at),
        )

    def _renew(self, account: SiteAccount) -> None:
        account.points = max(account.points, account.planned.allotment)
        self._judge.tell("site", f"{account.id} has its points renewed")
        account.renews_at += DAY
        self._world.call_at(account.renews_at, self._renew, account)
