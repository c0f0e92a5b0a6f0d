"""One run: the planned day in the world, then quiet, then a last rush that must find every slot in its place."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections import Counter, deque
from hashlib import blake2b

from msgspec.structs import replace

from poe_gateway.accounts.memory import MemoryBook
from poe_gateway.clock import Clock, Ids
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account
from poe_gateway.pool.memory import MemoryHub
from poe_gateway.pool.pricebook_memory import MemoryPrices, MemoryUsage
from poe_gateway.routing.catalog import Catalog, Listing, Model
from poe_gateway.simulation.gateway import Gateway
from poe_gateway.simulation.judge import Judge
from poe_gateway.simulation.plan import PLAIN, POINTS, PRICES, Arrival, Plan, arrivals
from poe_gateway.simulation.report import Report, counted
from poe_gateway.simulation.site import Site
from poe_gateway.simulation.troubles import Troubles
from poe_gateway.simulation.virtual_time import BEGIN, World, WorldClock
from poe_gateway.simulation.wire import Line
from poe_gateway.simulation.wiring import Kinds, Surroundings
from poe_gateway.vault import Vault

_SLACK = 5.0
"""Seconds for news to be read, beside two ways to the database."""
_RUSHING = "rush"
"""Key of the last rush; its requests are not counted."""
_RUSH = 900.0
"""Seconds of the last rush."""


class Database(MemoryHub):
    """The hub, with the moment at which each account was stored last."""

    def __init__(self, clock: Clock, *, fresh: float) -> None:
        super().__init__(clock, fresh=fresh)
        self.stored_at: dict[str, float] = {}

    def put(self, account: Account) -> Account:
        self.stored_at[account.id] = self.clock.monotonic()
        return super().put(account)


class Day:
    """A plan and the world in which it is carried out. ``kinds``: parts with planted bugs."""

    def __init__(self, plan: Plan, kinds: Kinds | None = None) -> None:
        self.plan = plan
        self.world = world = World()
        self.judge = judge = Judge(world)
        self._ids = Ids(plan.seed * 1_000_003 + 17)
        rng = self._ids.rng
        self.hub = Database(WorldClock(world), fresh=3 * plan.pauses.round)
        site = Site(world, judge, plan, Ids(rng.getrandbits(64)))
        key = urlsafe_b64encode(blake2b(b"%d" % plan.seed, digest_size=32).digest()).decode()
        vault = Vault((key,))
        book = MemoryBook(self.hub)
        catalog = Catalog()
        models = [Model(id=each, upstream=each, owned_by="site") for each in PRICES]
        catalog.replace(
            [
                Listing(offer=POINTS, models=tuple(models), fetched_at=BEGIN),
                Listing(offer=PLAIN, models=tuple(models[:2]), fetched_at=BEGIN),
            ]
        )
        self.around = Surroundings(
            world=world,
            plan=plan,
            judge=judge,
            site=site,
            hub=self.hub,
            line=Line(world, Ids(rng.getrandbits(64)), latency=plan.latency, losses=plan.losses),
            book=book,
            bindings={},
            prices=MemoryPrices(self.hub.clock),
            usage=MemoryUsage(),
            vault=vault,
            catalog=catalog,
            kinds=kinds or Kinds(),
        )
        for each in plan.accounts:
            account = self.hub.put(each.account)
            book.sealed[account.id, account.credential_rev] = vault.seal({"token": account.id})
        self._rows: dict[int, Gateway] = {}
        self._arrivals = arrivals(plan)
        self._next = 0
        self._balance = Ids(rng.getrandbits(64)).rng
        self._asked: dict[int, Gateway] = {}
        """Requests under way, and the process that has them."""
        self._requests = 0
        self.told: Counter[str] = Counter()
        """How requests of the day ended: ``served`` or a code."""
        self._troubles = Troubles(
            self.around,
            Ids(rng.getrandbits(64)),
            rows=self._rows,
            born=self._born,
            ask=self._ask,
            coming=lambda: self._arrivals[self._next] if self._next < len(self._arrivals) else None,
        )
        self._every = plan.policy.grant_lifetime / 5

    def watch(self, listener: deque[str]) -> None:
        """Let somebody read every event."""
        self.judge.listener = listener

    def run(self) -> Report:
        """The whole run; ends early at a broken promise."""
        plan, world = self.plan, self.world
        try:
            for row in range(plan.processes):
                self._born(row)
            if self._arrivals:
                world.call_at(self._arrivals[0].at, self._arrive)
            world.call_at(self._every, self._sweep)
            world.run(plan.seconds)
            self._calm_down()
            return self._report()
        finally:
            self.around.site.closed = self.judge.over = True
            world.close()

    # Processes and callers.

    def _born(self, row: int) -> None:
        rng = self._ids.rng
        skew = rng.choice((0.0, rng.uniform(-2, 2), rng.uniform(-3600, 3600)))
        gateway = Gateway(self.around, row, row % self.plan.places, skew, Ids(rng.getrandbits(64)))
        self._rows[row] = gateway
        self.around.gateways.append(gateway)
        self.judge.tell("fate", f"{gateway.name} is born, its calendar is off by {skew:.0f} s")
        gateway.start()

    def _arrive(self) -> None:
        arrival = self._arrivals[self._next]
        self._next += 1
        self._ask(arrival)
        if self._next < len(self._arrivals):
            self.world.call_at(self._arrivals[self._next].at, self._arrive)

    def _ask(self, arrival: Arrival) -> None:
        """Whoever balances the load does not know who is frozen."""
        there = [each for each in self._rows.values() if each.lives and each.ready]
        if not there:
            self.told["nobody_there"] += 1
            self._requests += 1
            return
        gateway = self._balance.choice(there)
        self._asked[arrival.number] = gateway
        self._requests += arrival.key.id != _RUSHING
        gateway.ask(arrival, self._done)

    def _done(self, arrival: Arrival, told: str) -> None:
        self._asked.pop(arrival.number, None)
        if arrival.key.id != _RUSHING:
            self.told[told] += 1

    # What must be true all the time.

    def _sweep(self) -> None:
        for gateway in self._rows.values():
            if gateway.awake:
                gateway.watch.sweep()
                self._is_up_to_date(gateway)
        self.world.call_at(self.world.now + self._every, self._sweep)

    def _is_up_to_date(self, gateway: Gateway) -> None:
        """What was stored before a process looked is known to it."""
        slack = _SLACK + 2 * self.around.line.latency
        for account_id, at in self.hub.stored_at.items():
            if at + slack < gateway.followed_from:
                known, stored = gateway.broker.account(account_id), self.hub.accounts[account_id]
                if known is None or known.rev < stored.rev:
                    self.judge.broken(
                        "what is stored is known",
                        f"{gateway.name} knows revision {known.rev if known else None} of {account_id},"
                        f" {stored.rev} is stored",
                    )

    # The end.

    def _calm_down(self) -> None:
        plan, world = self.plan, self.world
        self.judge.tell("fate", "quiet from now on")
        self._troubles.end()
        policy = plan.policy
        # Whatever runs comes to its end, the dead are buried, the news is stored.
        world.run(world.now + policy.request_timeout + 3 * policy.grant_lifetime)
        for gateway in self._rows.values():
            gateway.watch.empty()
        if self.around.site.open:
            self.judge.broken("every lease ends", f"{len(self.around.site.open)} requests still run at the site")
        self._believed()
        for account in self.around.site.accounts.values():
            account.points = max(account.points, 1_000_000)
            self._heal(account.id)
        world.run(world.now + policy.grant_lifetime)
        self._believed()
        self._rush()

    def _heal(self, account_id: str) -> None:
        """The operator vouches for every account, and its points are plenty."""
        now, policy = self.hub.clock.now(), self.plan.policy
        site = self.around.site.accounts[account_id]
        if site.dead or site.challenged:
            self._troubles.mend(account_id)
        fresh = transitions.cleared(transitions.resumed(self.hub.accounts[account_id]), now, policy)
        balance = replace(fresh.balance, points=1_000_000, estimated=False) if fresh.metered else fresh.balance
        self.hub.put(transitions.as_of(replace(fresh, balance=balance), now, policy))

    def _believed(self) -> None:
        """Every process believes what is stored, as time has made it."""
        for gateway in self._rows.values():
            for stored in self.hub.accounts.values():
                now = self.hub.clock.now()
                true = transitions.as_of(stored, now, self.plan.policy)
                known = gateway.broker.account(stored.id)
                if known is not None:
                    known = transitions.as_of(known, now, self.plan.policy)
                if known is None or _standing(known) != _standing(true):
                    self.judge.broken(
                        "processes believe what is stored",
                        f"{gateway.name} has {stored.id} as {known and _standing(known)}, stored: {_standing(true)}",
                    )

    def _rush(self) -> None:
        """More callers than slots: every slot must come into use."""
        plan, world, site = self.plan, self.world, self.around.site
        site.calm = True
        key = replace(plan.keys[0], id=_RUSHING, labels=(), without=(), patience=10_000.0, priority=0)
        capacity = plan.capacity
        number = 2_000_000_000
        until = world.now + _RUSH
        site.lately = 0
        template = Arrival(
            at=0,
            number=0,
            key=key,
            model="small",
            size=20,
            body=0,
            seconds=20.0,
            stream=True,
            session=None,
            leaves=None,
        )
        while world.now < until and self.judge.violation is None and site.lately < capacity:
            waiting = sum(len(each.broker.line) for each in self._rows.values())
            for _ in range(2 * capacity + 2 - waiting):
                number += 1
                self._ask(replace(template, number=number, body=number))
            world.run(world.now + 5.0)
        if site.lately < capacity:
            idle = [
                f"{each.id} {each.running}/{each.limit}" for each in site.accounts.values() if each.running < each.limit
            ]
            self.judge.broken(
                "no slot is lost for good",
                f"at most {site.lately} of {capacity} slots were in use in the last rush; idle: {', '.join(idle[:20])}",
            )

    def _report(self) -> Report:
        decisions = [each for gateway in self.around.gateways for each in gateway.decisions if each.key_id != _RUSHING]
        site = self.around.site
        fullest = max(site.accounts.values(), key=lambda each: (each.most / each.limit, each.most))
        refused = Counter({code: count for code, count in self.told.items() if code != "served"})
        lost = [number for number, gateway in self._asked.items() if not gateway.lives]
        return Report(
            seed=self.plan.seed,
            days=self.plan.days,
            processes=self.plan.processes,
            accounts=len(self.plan.accounts),
            limit=self.plan.policy.global_inflight,
            requests=self._requests,
            served=self.told["served"],
            failed_over=sum(len(each.tries) > 1 and each.status == 200 for each in decisions),
            refused=counted(refused),
            lost=len(lost),
            waits=sorted(
                choice.wait_seconds for each in decisions for choice in each.choices if choice.account_id is not None
            ),
            most_running=site.most,
            fullest=f"{fullest.most}/{fullest.limit}",
            upstream=counted(site.answers),
            troubles=counted(self._troubles.happened),
            events=self.judge.events,
            steps=self.world.steps,
            digest=self.judge.digest,
            violation=self.judge.violation,
        )


def _standing(account: Account) -> tuple[object, ...]:
    """What processes must agree on. Not since when: what time alone brought about is noticed when somebody looks."""
    health = account.health
    return (
        account.intent.value,
        health.state.value,
        health.cause.value,
        health.until,
        health.trial,
        account.model_blocks,
        account.credential_rev,
    )
