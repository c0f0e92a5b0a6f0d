"""Keepers and brokers of several processes under any order of events, on virtual time.

Every process has an event loop of its own on the world's clock: a frozen one is not run, a killed one never again,
while the time goes on for the others. What is judged is what the upstream would see: a frozen process's requests go
on, a killed one's end. All is settled by one hub; ``Near`` has all processes in one place, where they see each other,
``Far`` has them in two, cut off from the database now and then.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from poe_gateway.clock import Ids, ServerClock
from poe_gateway.errors import GatewayError
from poe_gateway.pool.account import Cause, Health, State
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.deaths import Residence
from poe_gateway.pool.keeper import Keeper
from poe_gateway.pool.lease import Lease, Want
from poe_gateway.pool.memory import MemoryAccounts, MemoryGrants, MemoryHub, filled
from poe_gateway.pool.outcome import Cancelled, Outcome, RateLimited, Succeeded, Transient
from poe_gateway.pool.pauses import Pauses
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.pool.store import GLOBAL, StoreUnavailable
from tests.unit.builders import NOON, account

LIFETIME = 10.0
POLICY = PoolPolicy(max_inflight=2, global_inflight=4, grant_lifetime=LIFETIME, request_timeout=20 * LIFETIME)
PAUSES = Pauses(round=1.0, need=0.5, patient=4.0, idle=3.0, promise=4.0)
LIMITS = {"a": 2, "b": 2, "c": 1}
OUTCOMES: tuple[Outcome, ...] = (Succeeded(), Succeeded(), Cancelled(), RateLimited(retry_after=15), Transient())


class Time:
    """The world's: of the database, and of everybody's monotonic clock."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


class WrongClock:
    """A machine's: its calendar is off."""

    def __init__(self, time: Time, skew: float) -> None:
        self.time, self.skew = time, skew

    def now(self) -> datetime:
        return self.time.now() + timedelta(seconds=self.skew)

    def monotonic(self) -> float:
        return self.time.seconds


class Loop(asyncio.BaseEventLoop):
    """Runs when told, until nothing is due; knows no files and no sockets."""

    def __init__(self, time: Time) -> None:
        super().__init__()
        self._time = time
        self._selector = self

    def time(self) -> float:
        return self._time.seconds

    def select(self, timeout: float | None) -> list[Any]:
        return []

    def _process_events(self, events: list[Any]) -> None:
        """There are none."""

    def due(self) -> float:
        """When something is to be done next."""
        while self._scheduled and self._scheduled[0]._cancelled:
            self._run_once()
        return self._time.seconds if self._ready else self._scheduled[0]._when if self._scheduled else float("inf")

    def step(self) -> None:
        asyncio._set_running_loop(self)
        try:
            while self.due() <= self._time.seconds:
                self._run_once()
        finally:
            asyncio._set_running_loop(None)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(work)
        finally:
            asyncio._set_running_loop(None)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        return task


class Machine:
    """Places: the processes of one machine, by number; a killed one is gone."""

    def __init__(self, place: str, pid: int, alive: set[int]) -> None:
        self.place, self.pid, self.alive = place, pid, alive

    def here(self) -> Residence:
        return Residence(place=self.place, pid=self.pid, started=0)

    def lives(self, residence: Residence) -> bool | None:
        return residence.pid in self.alive if residence.place == self.place else None


class Line:
    """The way to the hub, which may be cut for one process alone."""

    def __init__(self, hub: MemoryHub) -> None:
        self._hub = hub
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)

    async def call(self) -> None:
        await self._hub.call()
        if self.cut:
            raise StoreUnavailable("cut off")


class Process:
    def __init__(self, time: Time, hub: MemoryHub, place: str, pid: int, alive: set[int], skew: float) -> None:
        self.pid, self.place, self.alive = pid, place, alive
        alive.add(pid)
        self.frozen = False
        self.line = Line(hub)
        self.machine = WrongClock(time, skew)
        clock = ServerClock(self.machine)
        self.loop = Loop(time)
        store = MemoryAccounts(self.line)  # type: ignore[arg-type]
        grants = MemoryGrants(self.line, Machine(place, pid, alive))  # type: ignore[arg-type]
        self.broker = Broker(store=store, policy=POLICY, clock=clock)
        self.keeper = Keeper(broker=self.broker, store=grants, clock=clock, ids=Ids(pid), pauses=PAUSES)
        self.accounts = store
        self.frozen_at = 0.0
        self.requests = 0
        self.waiting: list[asyncio.Task[Lease]] = []
        self.open: list[Lease] = []
        self.background = [
            self.loop.start(each) for each in (self.keeper.run(), self.broker.journal.flush_forever(), self.follow())
        ]

    async def follow(self) -> None:
        while True:
            try:
                changes = await self.accounts.changes()
            except StoreUnavailable:
                pass
            else:
                self.broker.accept(changes.stored)
            self.broker.tick()
            await asyncio.sleep(1.0)

    def request(self, patience: float) -> None:
        self.requests += 1
        want = Want(
            offers=frozenset({"mock"}),
            model="gpt",
            caller="one",
            evidence=f"req_{self.pid}_{self.requests}",
            deadline=self.loop.time() + patience,
        )
        self.waiting.append(self.loop.start(self.broker.lease(want)))

    def step(self) -> None:
        self.loop.step()
        assert not any(task.done() for task in self.background), "what must go on for ever has ended"
        for task in [each for each in self.waiting if each.done()]:
            self.waiting.remove(task)
            error = task.exception()
            if error is not None:
                assert isinstance(error, GatewayError), error
                continue
            lease = task.result()
            self.open.append(lease)
            lease.on_revoked = lambda lease=lease: self.break_off(lease)
            if lease.revoked:
                self.break_off(lease)

    def break_off(self, lease: Lease) -> None:
        """The connection to the upstream takes a moment to close."""
        self.loop.call_later(0.2, self.finish, lease, Cancelled())

    def finish(self, lease: Lease, outcome: Outcome) -> None:
        if lease in self.open:
            self.open.remove(lease)
            self.broker.settle(lease, outcome)

    def stop(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.loop.close()


class Near(RuleBasedStateMachine):
    """All processes in one place: killed, frozen, cut off, with wrong clocks."""

    places: tuple[str, ...] = ("here",)

    @initialize(skews=st.lists(st.sampled_from((-3600.0, 0.0, 3600.0)), min_size=2, max_size=3))
    def begin(self, skews: list[float]) -> None:
        self.time = Time()
        healthy = Health(state=State.ACTIVE, cause=Cause.HEALTHY)
        self.hub = filled(
            self.time,
            [account(name, health=healthy, renews_daily=False, max_inflight=limit) for name, limit in LIMITS.items()],
        )
        self.hub.latency, self.hub.fresh = 0.03, 12.0
        self.alive: set[int] = set()
        self.count = 0
        self.processes: list[Process] = []
        for skew in skews:
            self.start(skew)
        self.pass_time(5.0)

    def pass_time(self, seconds: float) -> None:
        """Everything that is due happens at its time, in every process that runs."""
        end = self.time.seconds + seconds
        while True:
            for each in self.processes:
                if each.frozen and self.time.seconds > each.frozen_at + 15 * LIFETIME:
                    each.frozen = False  # longer than a request may last nobody is waited for
                for lease in [lease for lease in each.open if self.time.seconds > lease.taken + 15 * LIFETIME]:
                    if not each.frozen:
                        each.finish(lease, Cancelled())
            running = [each for each in self.processes if not each.frozen]
            for each in running:
                each.step()
            self.look()
            moment = min((each.loop.due() for each in running), default=float("inf"))
            if moment > end:
                break
            self.time.seconds = max(moment, self.time.seconds)
        self.time.seconds = end

    def look(self) -> None:
        """What the upstream sees."""
        open_now = Counter(lease.account.id for process in self.processes for lease in process.open)
        for name, limit in LIMITS.items():
            assert open_now[name] <= limit, f"{open_now[name]} requests on {name}"
        assert open_now.total() <= POLICY.global_inflight, f"{open_now.total()} requests in all"

    # What may happen.

    @precondition(lambda self: len(self.processes) < 4)
    @rule(skew=st.sampled_from((-3600.0, 0.0, 3600.0)))
    def start(self, skew: float) -> None:
        place = self.places[self.count % len(self.places)]
        self.count += 1
        self.processes.append(Process(self.time, self.hub, place, self.count, self.alive, skew))
        self.pass_time(0.0)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 99), number=st.integers(1, 4), patience=st.sampled_from((5.0, 60.0)))
    def request(self, which: int, number: int, patience: float) -> None:
        process = self.processes[which % len(self.processes)]
        if not process.frozen:
            for _ in range(number):
                process.request(patience)
            self.pass_time(0.0)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 99), lease=st.integers(0, 99), outcome=st.sampled_from(OUTCOMES))
    def finish(self, which: int, lease: int, outcome: Outcome) -> None:
        process = self.processes[which % len(self.processes)]
        if process.open and not process.frozen:
            process.finish(process.open[lease % len(process.open)], outcome)
            self.pass_time(0.0)

    @rule(seconds=st.sampled_from((0.1, 1.0, 3.0, 0.9 * LIFETIME, 1.3 * LIFETIME, 3 * LIFETIME)))
    def wait(self, seconds: float) -> None:
        self.pass_time(seconds)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 99))
    def kill(self, which: int) -> None:
        """Its connections are gone, whether it was frozen or not."""
        process = self.processes.pop(which % len(self.processes))
        self.alive.discard(process.pid)
        process.stop()

    @precondition(lambda self: self.processes and len(self.places) == 1)
    @rule(which=st.integers(0, 99))
    def freeze_or_thaw(self, which: int) -> None:
        process = self.processes[which % len(self.processes)]
        process.frozen, process.frozen_at = not process.frozen, self.time.seconds
        self.pass_time(0.0)

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 99))
    def cut_or_mend(self, which: int) -> None:
        """Who never met a stranger does not know that it must stop: a limit that is told (decision 0012)."""
        process = self.processes[which % len(self.processes)]
        if len(self.places) == 1 or process.keeper._presence._wary:
            process.line.cut = not process.line.cut

    @rule()
    def database_goes_or_comes(self) -> None:
        self.hub.away = not self.hub.away

    @precondition(lambda self: self.processes)
    @rule(which=st.integers(0, 99), hours=st.sampled_from((-1, 1)))
    def set_a_calendar(self, which: int, hours: int) -> None:
        self.processes[which % len(self.processes)].machine.skew += 3600.0 * hours

    # How it must end.

    def teardown(self) -> None:
        if not hasattr(self, "processes"):
            return
        try:
            self.quieten()
        finally:
            for process in self.processes:
                process.stop()

    def quieten(self) -> None:
        """All is well again, and the callers leave one after the other: nothing may be lost."""
        self.hub.away = False
        for process in self.processes:
            process.frozen = process.line.cut = False
        for _ in range(100):
            self.pass_time(1.0)
            for process in self.processes:
                for lease in list(process.open):
                    process.finish(lease, Succeeded())
            if not any(process.waiting for process in self.processes):
                break
        self.pass_time(22 * LIFETIME)  # rests are over, and what is withheld for the dead has come back
        if not self.processes:
            return
        self.only_the_living_hold()
        busy = self.processes[0]
        for round_ in range(3):  # slow start: after a rest the first successes open the way
            for lease in list(busy.open):
                busy.finish(lease, Succeeded())
            self.pass_time(20.0)
            for _ in range(POLICY.global_inflight - len(busy.waiting)):
                busy.request(100_000.0)
            self.pass_time(20.0)
            assert busy.open, f"no slot can be had in round {round_}"
        assert len(busy.open) == POLICY.global_inflight, f"{len(busy.open)} slots can be had"

    def only_the_living_hold(self) -> None:
        live = {process.keeper.instance: process for process in self.processes}
        assert set(self.hub.instances) == set(live)
        for key in (*LIMITS, GLOBAL):
            for name, slots in self.hub.granted(key).items():
                broker = live[name].broker
                believed = broker.whole.held if key == GLOBAL else broker.seats[key].held
                assert believed == slots, f"{key}: {name} believes to hold {believed} of {slots}"
        for process in self.processes:
            assert process.broker.whole.used == 0


class Far(Near):
    """Processes in two places that do not see each other."""

    places = ("here", "there")


_SETTINGS = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
Near.TestCase.settings = Far.TestCase.settings = _SETTINGS
TestNear = Near.TestCase
TestFar = Far.TestCase
