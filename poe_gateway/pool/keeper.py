"""The keeper of the grants: keeps this process registered, holds its share of slots, borrows and yields.

It works behind the requests' backs. What it guarantees:
- Grants are used only while the registration is surely valid (a margin before it lapses on the database's clock).
- A process that was declared dead drops everything before it registers anew.
- A slot is lowered in memory first and then in the store, never the other way round.
- Slots of an account whose news is not stored yet are not given away: the next holder must see that news.

Times, as parts of the grant lifetime L: renewal every 0.2 L; local use ends 0.6 L after the last renewal was sent; the
database lets it lapse after 0.8 L; others look for lapsed processes every 0.1 L. So a dead process's slots are free
again within L.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from poe_gateway.clock import Clock, Ids
from poe_gateway.pool.account import Account
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.index import Seat
from poe_gateway.pool.shares import fair_share, pressure, should_yield
from poe_gateway.pool.store import GLOBAL, Ask, GrantStore, LeaseLost, Membership, StoreUnavailable

_BATCH = 500
_SAMPLE = 64
_NEED_PAUSE = 0.05
"""Seconds between attempts to borrow while requests wait."""
_ROUND = 0.25
"""Seconds between looks at what others want; a doorbell shortens it."""
_PATIENT = 2.0
"""Longest pause between attempts to get a fair share that others still use."""
_IDLE = 2.0
"""Seconds a borrowed slot may lie idle before it goes back."""


class Keeper:
    """Grants of one process. ``run`` until cancelled, then ``leave``."""

    def __init__(self, *, broker: Broker, store: GrantStore, clock: Clock, ids: Ids) -> None:
        self.instance = ids.new("proc", 12)
        self.membership = Membership(live=())
        self.joined = asyncio.Event()
        self.on_lost: Callable[[int], None] = lambda slots: None
        """Told how many slots were in use when this process was declared dead."""
        self._ids = ids
        self._rng = ids.rng
        self._broker = broker
        self._store = store
        self._clock = clock
        self._lifetime = broker.policy.grant_lifetime
        self._valid_until = 0.0
        self._sweep_due = True
        self._resize_due = True
        self._sweep_again = float("inf")
        self._sweep_pause = _ROUND
        self._shares: dict[str, int] = {}
        self._shares_of: tuple[tuple[str, ...], bool] = ((), False)
        self._lower: dict[str, Seat] = {}
        self._lower_whole = False
        self._promised: dict[str, float] = {}
        self._wake = asyncio.Event()
        self._rejoin = asyncio.Event()
        broker.grants_valid = self.valid
        broker.on_shortage = self._wake.set
        broker.on_release = self._released
        broker.on_unheld = self._unheld

    def valid(self) -> bool:
        """Whether this process may use what it holds."""
        return self._clock.monotonic() < self._valid_until

    def ring(self) -> None:
        """The database may have news (a doorbell): look now instead of at the next round."""
        self._wake.set()

    def limits_changed(self) -> None:
        """Limits of accounts changed: bring every grant to its share, downwards too."""
        self._resize_due = True
        self._wake.set()

    def _unheld(self) -> None:
        """Accounts came or came back to service of which nothing is held yet."""
        self._sweep_due = True
        self._wake.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stay_alive())
            tasks.create_task(self._reclaim_forever())
            tasks.create_task(self._keep_forever())

    # Staying alive.

    async def _stay_alive(self) -> None:
        pause = 0.2 * self._lifetime
        while True:
            sent, instance = self._clock.monotonic(), self.instance
            try:
                async with asyncio.timeout(0.4 * self._lifetime):
                    if self.joined.is_set():
                        membership = await self._store.renew(instance, 0.8 * self._lifetime)
                    else:
                        membership = await self._store.join(instance, 0.8 * self._lifetime)
            except LeaseLost:
                self._lost(instance)
                continue
            except (StoreUnavailable, TimeoutError):
                await asyncio.sleep(0.05 * self._lifetime)
                continue
            if instance != self.instance:
                continue  # the death of that name was noticed elsewhere in the meantime
            self._valid_until = sent + 0.6 * self._lifetime
            if membership != self.membership:
                self.membership = membership
                self._resize_due = True
            if not self.joined.is_set():
                self.joined.set()
            self._wake.set()
            self._broker.serve_waiting()  # those who came while the grants might not be used
            self._rejoin.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._rejoin.wait()

    def _lost(self, instance: str) -> None:
        """Declared dead: stop using everything, then come back under a new name."""
        if instance != self.instance:
            return
        self._rejoin.set()
        self._valid_until = 0.0
        self.joined.clear()
        self.instance = self._ids.new("proc", 12)
        self.membership = Membership(live=())
        self._lower.clear()
        self._promised.clear()
        self._lower_whole = False
        self._resize_due = True
        used = self._broker.whole.used
        self._broker.lose_grants()
        self.on_lost(used)

    async def _reclaim_forever(self) -> None:
        while True:
            await asyncio.sleep(0.1 * self._lifetime)
            try:
                if await self._store.reclaim():
                    self._resize_due = True
                    self._wake.set()
            except StoreUnavailable:
                continue

    # Holding the right slots.

    async def _keep_forever(self) -> None:
        await self.joined.wait()
        while True:
            instance = self.instance
            try:
                await self._round(instance)
                needy = bool(len(self._broker.line)) and await self._borrow(instance)
            except LeaseLost:
                self._lost(instance)
                await self.joined.wait()
                continue
            except StoreUnavailable:
                await asyncio.sleep(_ROUND)
                continue
            pause = _NEED_PAUSE if needy else _ROUND
            try:
                async with asyncio.timeout(pause):
                    if needy:
                        await asyncio.sleep(pause)
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self.joined.wait()

    async def _round(self, instance: str) -> None:
        alone = len(self.membership.live) <= 1
        if not alone:
            for mark in await self._store.wanted(instance):
                self._consider(mark.key, mark.pressure)
            self._return_idle()
        await self._give_back(instance)
        if self._clock.monotonic() >= self._sweep_again:
            self._sweep_due = True
        if self._sweep_due or self._resize_due:
            resize = self._resize_due
            self._sweep_due = self._resize_due = False
            await self._sweep(instance, resize=resize)

    def _share(self, key: str, cap: int) -> int:
        live = self.membership.live
        plenty = len(self._broker.seats) >= 2 * len(live)
        if self._shares_of != (live, plenty):
            self._shares.clear()
            self._shares_of = (live, plenty)
        if len(live) <= 1:
            return cap
        share = self._shares.get(key)
        if share is None:
            share = fair_share(key, cap, self.instance, live, plenty=plenty and key != GLOBAL)
            self._shares[key] = share
        return min(share, cap)

    def _cap(self, account: Account) -> int:
        return account.max_inflight or self._broker.policy.max_inflight

    async def _sweep(self, instance: str, *, resize: bool) -> None:
        """Raise all grants to their fair shares; ``resize``: and return what is above and idle."""
        broker = self._broker
        cap = broker.policy.global_inflight
        share = self._share(GLOBAL, cap)
        short = False
        if broker.whole.held < share:
            short = await self._raise_to(instance, [Ask(key=GLOBAL, hold=share, cap=cap)])
        elif resize and broker.whole.held > share:
            self._lower_whole_to(max(share, broker.whole.used))
        asks: list[Ask] = []
        for number, seat in enumerate(list(broker.seats.values()), 1):
            if number % _BATCH == 0:
                await asyncio.sleep(0)  # a look at all accounts takes long where there are many
            cap = self._cap(seat.account)
            share = self._share(seat.account.id, cap)
            if resize and seat.held > share:
                self._lower_to(seat, max(share, min(seat.used, seat.held)))
            elif seat.held < share and seat.allowed:
                asks.append(Ask(key=seat.account.id, hold=share, cap=cap))
            if len(asks) >= _BATCH:
                short |= await self._raise_to(instance, asks)
                asks = []
        short |= await self._raise_to(instance, asks)
        await self._give_back(instance)
        # Others may still be using what is this process's share: ask again, ever less often.
        self._sweep_pause = min(_PATIENT, 2 * self._sweep_pause) if short else _ROUND
        self._sweep_again = self._clock.monotonic() + self._sweep_pause if short else float("inf")

    async def _raise_to(self, instance: str, asks: list[Ask]) -> bool:
        """Ask for fair shares; True when some of them could not be had in full."""
        await self._take(instance, asks)
        return any(self._held(ask.key) < ask.hold for ask in asks)

    async def _take(self, instance: str, asks: list[Ask]) -> None:
        if not asks:
            return
        held = dict(await self._store.take(instance, asks))
        if instance != self.instance:
            return  # declared dead in the meantime: whatever was granted is not ours
        whole = held.pop(GLOBAL, None)
        if whole is not None and self._lower_whole:
            whole = None  # a smaller figure is on its way to the store
        for key in self._lower:
            held.pop(key, None)
        self._broker.regrant(held, whole)

    async def _give_back(self, instance: str) -> None:
        broker = self._broker
        lowered = {
            key: seat.held for key, seat in list(self._lower.items())[:_BATCH] if not broker.journal.hurried(key)
        }
        whole = self._lower_whole
        figures = dict(lowered)
        if whole:
            figures[GLOBAL] = broker.whole.held
        if not figures:
            return
        await self._store.give_back(instance, figures)
        for key, slots in lowered.items():
            seat = self._lower.get(key)
            if seat is not None and seat.held == slots:
                del self._lower[key]
        if whole and broker.whole.held == figures[GLOBAL]:
            self._lower_whole = False

    def _lower_to(self, seat: Seat, slots: int) -> None:
        if slots < seat.held:
            self._broker.regrant({seat.account.id: slots})
            self._lower[seat.account.id] = seat

    def _lower_whole_to(self, slots: int) -> None:
        self._lower_whole = True
        self._broker.regrant({}, slots)

    # Between processes.

    async def _borrow(self, instance: str) -> bool:
        """Requests wait: reach for slots that are free, and ask the holders of the others. True while in need."""
        broker = self._broker
        policy = broker.policy
        asks: list[Ask] = []
        if broker.whole.used >= policy.global_inflight:
            return False  # the limit itself is reached: nothing to reach for
        if broker.whole.used >= broker.whole.held:
            asks.append(
                Ask(key=GLOBAL, hold=min(policy.global_inflight, broker.whole.held + 4), cap=policy.global_inflight)
            )
        for seat in self._needed():
            cap = self._cap(seat.account)
            asks.append(Ask(key=seat.account.id, hold=min(cap, seat.held + 1), cap=cap))
        if not asks:
            return False
        before = {ask.key: self._held(ask.key) for ask in asks}
        await self._take(instance, asks)
        short = [ask.key for ask in asks if self._held(ask.key) <= before[ask.key]]
        if not len(broker.line):
            return False
        if short and len(self.membership.live) > 1:
            await self._store.mark_wanted(instance, short, pressure(len(broker.line), self._capacity()))
        return len(self.membership.live) > 1

    def _capacity(self) -> int:
        """Slots that this process could use at once: of its accounts (of a large pool: its part of the whole)."""
        broker = self._broker
        if len(broker.seats) > 1000:
            return broker.whole.held
        return min(broker.whole.held, sum(seat.held for seat in broker.seats.values() if seat.allowed))

    def _held(self, key: str) -> int:
        if key == GLOBAL:
            return self._broker.whole.held
        seat = self._broker.seats.get(key)
        return seat.held if seat is not None else 0

    def _needed(self) -> list[Seat]:
        """A bounded sample of healthy seats that waiting requests could use if we held more of them."""
        broker = self._broker
        wanted: dict[str, Seat] = {}
        for lane in broker.line.lanes():
            if lane.account is not None:
                own = broker.seats.get(lane.account)
                if own is not None and own.allowed:
                    wanted[lane.account] = own
                continue
            for offer in lane.offers:
                seats = broker.seats_of(offer)
                if len(seats) > _SAMPLE:
                    seats = self._rng.sample(seats, _SAMPLE)
                wanted.update({seat.account.id: seat for seat in seats if seat.allowed})
        return [seat for seat in wanted.values() if seat.held < self._cap(seat.account)]

    def _consider(self, key: str, their_pressure: float) -> None:
        """Another process wants ``key``: yield an idle slot now, or promise the next one that comes free."""
        broker = self._broker
        waiting = len(broker.line)
        if key == GLOBAL:
            if should_yield(waiting, self._capacity(), their_pressure):
                idle = broker.whole.held - broker.whole.used
                if idle > 0:
                    self._lower_whole_to(broker.whole.held - max(1, idle // 2))
                else:
                    self._promised[GLOBAL] = self._clock.monotonic() + 2.0
            return
        seat = broker.seats.get(key)
        if seat is None or not should_yield(waiting, self._capacity(), their_pressure):
            return
        if seat.held > seat.used:
            self._lower_to(seat, seat.used)
        elif seat.held:
            self._promised[key] = self._clock.monotonic() + 2.0

    def _released(self, seat: Seat) -> None:
        """A slot came free: keep promises before it is used again here."""
        now = self._clock.monotonic()
        key = seat.account.id
        promised = self._promised.pop(key, None)
        if promised is not None and promised > now and seat.held > seat.used:
            seat.held -= 1
            self._lower[key] = seat
            self._wake.set()
        whole = self._broker.whole
        promised = self._promised.pop(GLOBAL, None)
        if promised is not None and promised > now and whole.held > whole.used:
            self._lower_whole_to(whole.held - 1)
            self._wake.set()

    def _return_idle(self) -> None:
        """Slots above the fair share that nobody used for a while go back to those whose share they are."""
        broker = self._broker
        if len(broker.line):
            return
        now = self._clock.monotonic()
        if len(broker.seats) > _BATCH:
            seats = self._rng.sample(list(broker.seats.values()), _BATCH)
        else:
            seats = list(broker.seats.values())
        for seat in seats:
            if seat.held > seat.used and now - seat.idle_since > _IDLE:
                share = self._share(seat.account.id, self._cap(seat.account))
                if seat.held > share:
                    self._lower_to(seat, max(share, seat.used))
                elif seat.held < share and seat.allowed and self._sweep_again == float("inf"):
                    self._sweep_due = True
        share = self._share(GLOBAL, broker.policy.global_inflight)
        if broker.whole.held > max(share, broker.whole.used):
            self._lower_whole_to(max(share, broker.whole.used))

    async def leave(self) -> None:
        """Give everything back at the end. A database that is away is told by the lapse of the registration."""
        self._valid_until = 0.0
        if not self.joined.is_set():
            return
        try:
            async with asyncio.timeout(2.0):
                await self._store.leave(self.instance)
        except (StoreUnavailable, TimeoutError):
            return
