"""The broker under any order of events: Hypothesis drives it and looks at every promise after each step.

Time stands still but for the machine's own steps; waiting requests run on an event loop of the machine's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from poe_gateway.errors import GatewayError
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Intent
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.index import Seat
from poe_gateway.pool.lease import Lease, Want
from poe_gateway.pool.memory import MemoryAccounts, filled
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
from tests.unit.builders import StepClock, account

NAMES = ("a", "b", "c", "d")
OFFER_OF = {"a": "x", "b": "x", "c": "y", "d": "y"}
OFFERS = (frozenset({"x"}), frozenset({"y"}), frozenset({"x", "y"}))
OUTCOMES: tuple[Outcome, ...] = (
    Succeeded(points=1),
    Succeeded(),
    RateLimited(retry_after=30),
    RateLimited(retry_after=30, model="gpt"),
    Depleted(),
    Unauthorized(),
    Challenged(),
    Transient(),
    Transient(timeout=True),
    Rejected(),
    Rejected(model="gpt"),
    Cancelled(),
    NetworkFault(),
    AdapterDrift(),
)
names = st.sampled_from(NAMES)


class BrokerMachine(RuleBasedStateMachine):
    """Accounts, leases and waiting requests of one process."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = StepClock()
        self.policy = PoolPolicy(queue_limit=6, max_inflight=2)
        self.broker = Broker(store=MemoryAccounts(filled(self.clock, ())), policy=self.policy, clock=self.clock)
        self.valid = True
        self.broker.grants_valid = lambda: self.valid
        self.loop = asyncio.new_event_loop()
        self.requests: list[asyncio.Task[Lease]] = []
        self.open: list[Lease] = []
        self.revs: Counter[str] = Counter()
        self.count = 0
        self.broker.on_release = lambda seat: None
        grant = self.broker._grant

        def watched(seat: Seat, want: Want, *rest: Any, queued: bool) -> Lease:
            assert seat.used < seat.held, "an account beyond what is held"
            assert not (seat.account.health.trial and seat.used), "two requests on trial"
            assert seat.spendable is None or seat.spendable >= want.need, "an account that cannot pay"
            assert self.broker.guard.held_until(seat.account.id) is None, "an account that is held back"
            assert self.broker.whole.used < self.broker.whole.held, "the pool beyond what is held"
            assert transitions.why_not(seat.account, self.clock.now(), want.model) is None, "an account that may not"
            assert seat.account.offer in want.offers and seat.account.id not in want.tried
            assert want.affinity in (None, seat.account.id)
            assert self.broker.seats.get(seat.account.id) is seat
            return grant(seat, want, *rest, queued=queued)

        self.broker._grant = watched  # type: ignore[method-assign]
        for name in NAMES[:3]:
            self._accept(name)
            self.broker.regrant({name: 1})
        self.broker.regrant({}, 3)

    def teardown(self) -> None:
        for task in self.requests:
            task.cancel()
        self.spin()
        for lease in self.open:
            self.broker.settle(lease, Cancelled())
        assert (self.broker.whole.used, len(self.broker.line), len(self.broker.leases)) == (0, 0, 0)
        self.loop.close()

    def spin(self) -> None:
        """Let everything run that can."""

        async def turns() -> None:
            for _ in range(8):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        for task in [each for each in self.requests if each.done()]:
            self.requests.remove(task)
            if task.cancelled():
                continue
            error = task.exception()
            if error is None:
                self.open.append(task.result())
            else:
                assert isinstance(error, GatewayError), error

    def _accept(self, name: str, **fields: Any) -> None:
        self.revs[name] += 1
        seat = self.broker.seats.get(name)
        known = seat.account if seat is not None else account(name, offer=OFFER_OF[name], renews_daily=name in "ac")
        self.broker.accept([replace(known, rev=self.revs[name], **fields)])

    # What may happen.

    @rule(
        offers=st.sampled_from(OFFERS),
        model=st.sampled_from(("gpt", "gpt", "claude")),
        caller=st.sampled_from(("one", "one", "two")),
        tried=st.frozensets(names, max_size=2),
        affinity=st.one_of(st.none(), st.none(), names),
        steadfast=st.booleans(),
        patience=st.sampled_from((20.0, 200.0, 100_000.0)),
        need=st.sampled_from((0, 0, 300, 600, 5000)),
        body=st.integers(0, 5),
        priority=st.sampled_from((0, 0, 1)),
    )
    def request(
        self,
        offers: frozenset[str],
        model: str,
        caller: str,
        tried: frozenset[str],
        affinity: str | None,
        steadfast: bool,
        patience: float,
        need: int,
        body: int,
        priority: int,
    ) -> None:
        self.count += 1
        want = Want(
            need=need,
            expected=need // 2,
            key=model,
            fingerprint=f"body-{body}",
            priority=priority,
            offers=offers,
            model=model,
            caller=caller,
            evidence=f"req-{self.count}",
            deadline=self.clock.monotonic() + patience,
            tried=tried,
            affinity=affinity if affinity not in tried else None,
            steadfast=steadfast and affinity is not None and affinity not in tried,
        )
        self.requests.append(self.loop.create_task(self.broker.lease(want)))
        self.spin()

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99), outcome=st.sampled_from(OUTCOMES), twice=st.booleans())
    def settle(self, which: int, outcome: Outcome, twice: bool) -> None:
        lease = self.open.pop(which % len(self.open))
        self.broker.settle(lease, outcome)
        if twice:
            self.broker.settle(lease, Challenged())
        self.spin()

    @precondition(lambda self: self.requests)
    @rule(which=st.integers(0, 99), settled=st.booleans(), before=st.booleans())
    def leave(self, which: int, settled: bool, before: bool) -> None:
        """A waiting request goes away, perhaps in the very moment in which a slot comes free."""
        lease = self.open.pop() if settled and self.open else None
        if lease is not None and before:
            self.broker.settle(lease, Succeeded())
        self.requests[which % len(self.requests)].cancel()
        if lease is not None and not before:
            self.broker.settle(lease, Succeeded())
        self.spin()

    @precondition(lambda self: len(self.broker.line))
    @rule(which=st.integers(0, 99))
    def run_out_of_time(self, which: int) -> None:
        tickets = [ticket for lane in self.broker.line.lanes() for ticket in self.broker.line.tickets(lane)]
        self.broker._out_of_time(tickets[which % len(tickets)])
        self.spin()

    @rule(name=names, slots=st.integers(0, 2))
    def regrant(self, name: str, slots: int) -> None:
        self.broker.regrant({name: slots})
        self.spin()

    @rule(whole=st.integers(0, 4))
    def regrant_whole(self, whole: int) -> None:
        self.broker.regrant({}, whole)
        self.spin()

    @rule()
    def lose_everything(self) -> None:
        self.broker.lose_grants()
        self.spin()

    @rule(name=names, intent=st.sampled_from(Intent))
    def store(self, name: str, intent: Intent) -> None:
        self._accept(name, intent=intent)
        self.spin()

    @rule(name=names)
    def vouch(self, name: str) -> None:
        now: datetime = self.clock.now()
        self.broker.step(name, lambda each: transitions.cleared(each, now, self.policy))
        self.broker.serve_waiting()
        self.spin()

    @rule(name=names)
    def remove(self, name: str) -> None:
        self.broker.remove([name])
        self.spin()

    @rule(seconds=st.sampled_from((1.0, 31.0, 121.0, 3601.0, 86_400.0)))
    def time_passes(self, seconds: float) -> None:
        self.clock.step(seconds)
        self.broker.tick()
        self.spin()

    # What must hold.

    @invariant()
    def slots_add_up(self) -> None:
        broker = self.broker
        assert broker.whole.used == len(broker.leases) == len(self.open)
        by_seat = Counter(id(lease.seat) for lease in self.open)
        for seat in broker.seats.values():
            assert seat.used == by_seat.pop(id(seat), 0)
        for lease in self.open:
            if id(lease.seat) in by_seat:
                assert lease.seat.used == by_seat[id(lease.seat)], "of a removed account"

    @invariant()
    def seats_say_what_their_accounts_are(self) -> None:
        broker, now = self.broker, self.clock.now()
        opened: Counter[str] = Counter()
        allowed: Counter[str] = Counter()
        reserved: Counter[int] = Counter()
        reasons: Counter[str] = Counter()
        for lease in self.open:
            reserved[id(lease.seat)] += lease.want.need
        for seat in broker.seats.values():
            fit = transitions.why_not(seat.account, now) is None and broker.guard.held_until(seat.account.id) is None
            assert seat.allowed is fit
            assert seat.reserved == reserved[id(seat)]
            assert (seat.row >= 0) is seat.open
            allowed[seat.account.offer] += seat.allowed
            opened[seat.account.offer] += seat.open
            reasons.update([seat.reason] if seat.reason is not None else [])
        for offer in ("x", "y"):
            assert broker._index.open_count(offer) == opened[offer]
        assert +allowed == +broker._allowed
        assert reasons == sum(broker.reasons.values(), Counter())
        assert broker.blocks == sum(bool(seat.account.model_blocks) for seat in broker.seats.values())

    def _shut(self, want: Want) -> frozenset[str]:
        return self.broker.guard.shut(want.offers, want.key, want.fingerprint)

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        broker, now = self.broker, self.clock.now()
        waiting = [ticket for lane in broker.line.lanes() for ticket in broker.line.tickets(lane)]
        assert len(waiting) == len(broker.line) == len(self.requests)
        for ticket in waiting:
            assert not ticket.granted.done()
            fits = [
                seat
                for seat in broker.seats.values()
                if seat.account.offer in ticket.want.offers - self._shut(ticket.want)
                and seat.account.id not in ticket.want.tried
                and ticket.want.affinity in (None, seat.account.id)
                and transitions.why_not(seat.account, now, ticket.want.model) is None
                and broker.guard.held_until(seat.account.id) is None
                and (seat.funds is None or seat.funds >= ticket.want.need)
            ]
            if broker.whole.used < broker.whole.held:
                free = [seat for seat in fits if seat.open and seat.can_pay(ticket.want.need)]
                assert not free, f"{ticket.want} waits beside {free}"
            if not ticket.want.tried:
                assert fits or broker.prospects.why_hopeless(ticket.want) is None, "waits for what cannot come"


BrokerMachine.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestBroker = BrokerMachine.TestCase
