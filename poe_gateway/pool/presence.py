"""The presence of this process among the others: registered, or gone and back under a new name.

Times, as parts of the grant lifetime L (``Pauses``): renewal every 0.2 L; what is held is used until 0.6 L after the
last renewal was sent; the database lets it lapse after 0.8 L; every process judges the others each 0.1 L. So a dead
process's slots are free again within L, and within 0.1 L where a process of the same place sees that it is gone.

A process that was declared dead drops everything first, then registers anew under a new name. What ran on the lost
slots is revoked; when the last of it has closed, the old name leaves, which frees whatever was withheld for it.

A process that cannot renew does the same by itself (the fence) before others may take its slots, once it has met any
that cannot see it: nobody there can prove that its work has ended.

After the database was away all have lapsed. Nobody is judged for that until he has had the time to renew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from poe_gateway.clock import Clock, Ids, ServerClock
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.lease import Lease
from poe_gateway.pool.pauses import Pauses
from poe_gateway.pool.store import GrantStore, LeaseLost, Membership, StoreUnavailable


class Presence:
    """Name and registration of one process. ``run`` until cancelled, then ``leave``.

    ``renewed`` is told after every renewal, with whether the others are not the same as before; ``reclaimed`` when
    others were declared dead; ``on_lost`` after everything was dropped, with how many slots had been in use.
    """

    def __init__(self, *, broker: Broker, store: GrantStore, clock: Clock, ids: Ids, pauses: Pauses) -> None:
        self.instance = ids.new("proc", 12)
        self.membership = Membership(live=())
        self.joined = asyncio.Event()
        self.renewed: Callable[[bool], None] = lambda changed: None
        self.reclaimed: Callable[[], None] = lambda: None
        self.dropped: Callable[[], None] = lambda: None
        """Told first of all when this process was declared dead."""
        self.on_lost: Callable[[int], None] = lambda slots: None
        self._broker = broker
        self._store = store
        self._clock = clock
        self._ids = ids
        self._pauses = pauses
        self._lifetime = broker.policy.grant_lifetime
        self._sent = float("-inf")
        """When the last renewal that succeeded was sent, monotonic."""
        self._steady = float("inf")
        """Since when the renewals have succeeded one after the other."""
        self._wary = False
        """Whether there have ever been others that cannot see this process."""
        self._again = asyncio.Event()
        self._retired: dict[str, tuple[Lease, ...]] = {}
        """Earlier names of this process, with what still ran on their slots when they were lost."""
        self._leave_due = asyncio.Event()
        broker.epoch = self.instance

    @property
    def alone(self) -> bool:
        return len(self.membership.live) <= 1

    def valid(self) -> bool:
        """Whether this process may use what it holds."""
        return self._clock.monotonic() < self._sent + self._pauses.trust * self._lifetime

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stay_registered())
            tasks.create_task(self._reclaim())
            tasks.create_task(self._fence())
            tasks.create_task(self._retire())

    async def _stay_registered(self) -> None:
        pauses, lifetime = self._pauses, self._lifetime
        while True:
            sent, instance = self._clock.monotonic(), self.instance
            try:
                async with asyncio.timeout(0.4 * lifetime):
                    if self.joined.is_set():
                        membership = await self._store.renew(instance, pauses.lapse * lifetime)
                    else:
                        membership = await self._store.join(instance, pauses.lapse * lifetime)
            except LeaseLost:
                self.lost(instance)
                continue
            except (StoreUnavailable, TimeoutError):
                await asyncio.sleep(pauses.retry * lifetime)
                continue
            if isinstance(self._clock, ServerClock) and membership.now is not None:
                self._clock.sync(membership.now, sent, self._clock.monotonic())
            if instance != self.instance:
                continue  # the death of that name was noticed elsewhere in the meantime
            if not self.valid():
                self._steady = sent
            self._sent = sent
            self._wary |= membership.strangers > 0
            changed = membership.live != self.membership.live
            self.membership = membership
            self.joined.set()
            self.renewed(changed)
            self._again.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pauses.renew * lifetime):
                    await self._again.wait()

    def lost(self, instance: str) -> None:
        """``instance`` was declared dead: stop using everything, come back under a new name. Synchronous."""
        if instance != self.instance:
            return
        self._retired[instance] = tuple(self._broker.leases)
        self._sent = float("-inf")
        self._again.set()
        self.joined.clear()
        self.membership = Membership(live=())
        # The name goes first: nothing that is held from now on may be mixed up with what was lost.
        self.instance = self._broker.epoch = self._ids.new("proc", 12)
        self.dropped()
        used = self._broker.whole.used
        self._broker.lose_grants()
        self._leave_due.set()
        self.on_lost(used)

    def released(self) -> None:
        """A slot came back, perhaps the last one of an earlier name."""
        if self._retired:
            self._leave_due.set()

    async def _retire(self) -> None:
        """Let earlier names leave when nothing runs on their slots any more."""
        while True:
            await self._leave_due.wait()
            self._leave_due.clear()
            for name in [name for name, leases in self._retired.items() if all(lease.closed for lease in leases)]:
                try:
                    await self._store.leave(name)
                except StoreUnavailable:
                    self._leave_due.set()
                    continue
                self._retired.pop(name, None)
            if self._leave_due.is_set():
                await asyncio.sleep(self._pauses.retry * self._lifetime)

    async def _fence(self) -> None:
        fence, shortly = self._pauses.fence * self._lifetime, 0.01 * self._lifetime
        while True:
            await self.joined.wait()
            left = self._sent + fence - self._clock.monotonic()
            if left > 0:
                await asyncio.sleep(max(left, shortly))
            elif self._wary:
                self.lost(self.instance)
            else:
                await asyncio.sleep(shortly)

    async def _reclaim(self) -> None:
        while True:
            await asyncio.sleep(self._pauses.reclaim * self._lifetime)
            with suppress(StoreUnavailable):
                steady = self.valid() and self._clock.monotonic() >= self._steady + self._pauses.grace * self._lifetime
                if await self._store.reclaim(self._broker.policy.request_timeout, only_proven=not steady):
                    self.reclaimed()

    async def leave(self) -> None:
        """Give everything back at the end. A database that is away is told by the lapse of the registration."""
        self._sent = float("-inf")
        names = [*self._retired, *([self.instance] if self.joined.is_set() else [])]
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(2.0):
                for name in names:
                    await self._store.leave(name)
