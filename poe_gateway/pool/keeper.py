"""The keeper of the grants: holds this process's share of slots, borrows and yields.

It works behind the requests' backs. What it guarantees, with ``presence``:
- Grants are used only while the registration is surely valid (a margin before it lapses on the database's clock).
- A process that was declared dead drops everything before it registers anew.
- A slot is lowered in memory first and then in the store, never the other way round.
- Slots of an account whose news is not stored yet are not given away: the next holder must see that news.
- Of an account that is not in service nothing is held but what is in use, unless this process is alone. So when it
  comes back on trial, one slot is granted, to one process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from poe_gateway.clock import Clock, Ids
from poe_gateway.pool.account import Account
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.index import Seat
from poe_gateway.pool.pauses import Pauses
from poe_gateway.pool.presence import Presence
from poe_gateway.pool.shares import STARVING, fair_share, pressure, should_yield
from poe_gateway.pool.store import GLOBAL, Ask, GrantStore, LeaseLost, Membership, StoreUnavailable

_BATCH = 500
_SAMPLE = 64
_REACH = 4
"""Slots of the whole pool's limit that are reached for at a time."""


class Keeper:
    """Grants of one process. ``run`` until cancelled, then ``leave``."""

    def __init__(
        self, *, broker: Broker, store: GrantStore, clock: Clock, ids: Ids, pauses: Pauses | None = None
    ) -> None:
        self.pauses = pauses or Pauses()
        self._presence = Presence(broker=broker, store=store, clock=clock, ids=ids, pauses=self.pauses)
        self._rng = ids.rng
        self._broker = broker
        self._store = store
        self._clock = clock
        self._sweep_due = True
        self._resize_due = True
        self._sweep_again = float("inf")
        self._sweep_pause = self.pauses.round
        self._shares: dict[tuple[str, int], int] = {}
        self._shares_of: tuple[tuple[str, ...], bool] = ((), False)
        self._lower: dict[str, Seat] = {}
        self._lower_whole = False
        self._promised: dict[str, float] = {}
        self._resting: set[str] = set()
        """Accounts of which less than the share is held because they were not in service, or are on trial."""
        self._probing: set[str] = set()
        """Accounts on trial whose one slot was granted to this process."""
        self._marked: set[str] = set()
        """Keys of which the holders were asked for slots."""
        self._wake = asyncio.Event()
        self._presence.renewed = self._renewed
        self._presence.reclaimed = self.limits_changed
        self._presence.dropped = self._dropped
        broker.grants_valid = self.valid
        broker.on_shortage = self._wake.set
        broker.on_release = self._released
        broker.on_unheld = self._unheld
        broker.on_unfit = self._unfit

    @property
    def instance(self) -> str:
        """The name of this process: a new one after every loss of its grants."""
        return self._presence.instance

    @property
    def membership(self) -> Membership:
        return self._presence.membership

    @property
    def joined(self) -> asyncio.Event:
        return self._presence.joined

    @property
    def on_lost(self) -> Callable[[int], None]:
        """Told how many slots were in use when this process was declared dead."""
        return self._presence.on_lost

    @on_lost.setter
    def on_lost(self, told: Callable[[int], None]) -> None:
        self._presence.on_lost = told

    def valid(self) -> bool:
        """Whether this process may use what it holds."""
        return self._presence.valid()

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
            tasks.create_task(self._presence.run())
            tasks.create_task(self._keep_forever())

    async def leave(self) -> None:
        """Give everything back at the end. A database that is away is told by the lapse of the registration."""
        await self._presence.leave()

    def _renewed(self, changed: bool) -> None:
        if changed:
            self._resize_due = True
        self._wake.set()
        self._broker.serve_waiting()  # those who came while the grants might not be used

    def _dropped(self) -> None:
        """Declared dead: nothing is held any more, nothing is to be given back under the new name."""
        self._lower.clear()
        self._promised.clear()
        self._resting.clear()
        self._probing.clear()
        self._marked.clear()
        self._lower_whole = False
        self._resize_due = True

    # Holding the right slots.

    async def _keep_forever(self) -> None:
        await self.joined.wait()
        while True:
            instance = self.instance
            try:
                await self._round(instance)
                needy = bool(len(self._broker.line)) and await self._borrow(instance)
            except LeaseLost:
                self._presence.lost(instance)
                await self.joined.wait()
                continue
            except StoreUnavailable:
                await asyncio.sleep(self.pauses.round)
                continue
            pause = self.pauses.need if needy else self.pauses.round
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
        if not self._presence.alone:
            for mark in await self._store.wanted(instance):
                self._consider(mark.key, mark.pressure)
            self._return_idle()
        self._look_after_resting()
        await self._give_back(instance)
        await self._take_back_wishes(instance)
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
        share = self._shares.get((key, cap))
        if share is None:
            share = fair_share(key, cap, self.instance, live, plenty=plenty and key != GLOBAL)
            self._shares[key, cap] = share
        return share

    def _cap(self, account: Account) -> int:
        """The limit over all processes. On trial after a rest it is one: exactly one request shows how it is."""
        return 1 if account.health.trial else self._broker.policy.limit_of(account)

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
            if seat.account.health.trial:
                self._resting.add(seat.account.id)
            if self._unsure(seat) and seat.held > seat.used:
                self._lower_to(seat, seat.used)
                self._sweep_due |= seat.allowed
            elif resize and seat.held > share:
                self._lower_to(seat, max(share, min(seat.used, seat.held)))
            elif seat.held < share and seat.allowed:
                asks.append(Ask(key=seat.account.id, hold=share, cap=cap))
            if len(asks) >= _BATCH:
                short |= await self._raise_to(instance, asks)
                asks = []
        short |= await self._raise_to(instance, asks)
        await self._give_back(instance)
        # Others may still be using what is this process's share: ask again, ever less often.
        self._sweep_pause = min(self.pauses.patient, 2 * self._sweep_pause) if short else self.pauses.round
        self._sweep_again = self._clock.monotonic() + self._sweep_pause if short else float("inf")

    async def _raise_to(self, instance: str, asks: list[Ask]) -> bool:
        """Ask for fair shares; True when some of them could not be had in full."""
        await self._take(instance, asks)
        return any(self._held(ask.key) < ask.hold for ask in asks)

    async def _take(self, instance: str, asks: list[Ask]) -> None:
        if not asks:
            return
        broker = self._broker
        trials = {ask.key for ask in asks if self._on_trial(ask.key) and not self._held(ask.key)}
        held = dict(await self._store.take(instance, asks))
        if instance != self.instance:
            return  # declared dead in the meantime: whatever was granted is not ours
        whole = held.pop(GLOBAL, None)
        if whole is not None and self._lower_whole:
            whole = None  # a smaller figure is on its way to the store
        for key in self._lower:
            held.pop(key, None)
        self._probing.update(key for key in trials if held.get(key))
        for key, slots in held.items():
            seat = broker.seats.get(key)
            if seat is not None and slots > seat.used and self._unsure(seat):
                held[key] = seat.used  # it left service, or came back on trial, while the store was asked
                self._lower[key] = seat
                self._resting.add(key)
                self._sweep_due |= seat.allowed
        broker.regrant(held, whole)

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
                Ask(
                    key=GLOBAL, hold=min(policy.global_inflight, broker.whole.held + _REACH), cap=policy.global_inflight
                )
            )
        for seat in self._needed():
            cap = self._cap(seat.account)
            asks.append(Ask(key=seat.account.id, hold=min(cap, seat.held + 1), cap=cap))
        if not asks:
            return False
        before = {ask.key: self._held(ask.key) for ask in asks}
        await self._take(instance, asks)
        short = {ask.key for ask in asks if self._held(ask.key) <= before[ask.key]}
        self._marked.difference_update(before.keys() - short)  # a wish that is fulfilled is gone from the store
        if not len(broker.line):
            return False
        if short and not self._presence.alone:
            await self._ask_holders(instance, short)
        return not self._presence.alone

    async def _ask_holders(self, instance: str, keys: set[str]) -> None:
        """Who waits for one particular account of which nothing is held starves, however much is held of others."""
        line = self._broker.line
        starving = {lane.account for lane in line.lanes() if lane.account in keys and not self._held(lane.account)}
        if starving:
            await self._store.mark_wanted(instance, [key for key in keys if key in starving], STARVING)
        if others := keys - starving:
            await self._store.mark_wanted(instance, others, pressure(len(line), self._capacity()))
        self._marked.update(keys)

    async def _take_back_wishes(self, instance: str) -> None:
        """Nobody waits here any more: others must not keep slots for us."""
        wishes = list(self._marked)[:_BATCH]
        if wishes and not len(self._broker.line):
            await self._store.take(instance, [Ask(key=key, hold=0, cap=0) for key in wishes])
            self._marked.difference_update(wishes)

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
        """Healthy seats that waiting requests could use if we held more of them: no more than can be used soon.

        Who reached for all of them would take from everybody, and they would take it back.
        """
        broker = self._broker
        own: dict[str, Seat] = {}
        any_of: dict[str, Seat] = {}
        for lane in broker.line.lanes():
            seats = broker.wanted_seats(lane, _SAMPLE, self._rng)
            (any_of if lane.account is None else own).update({seat.account.id: seat for seat in seats})
        room = max(1, min(len(broker.line), broker.whole.held - broker.whole.used + _REACH))
        some = [seat for key, seat in any_of.items() if key not in own and self._lacks(seat)]
        if len(some) > 2 * room:
            some = self._rng.sample(some, 2 * room)
        return [seat for seat in own.values() if self._lacks(seat)] + some

    def _lacks(self, seat: Seat) -> bool:
        return seat.held <= seat.used and seat.held < self._cap(seat.account)

    def _consider(self, key: str, their_pressure: float) -> None:
        """Another process wants ``key``: yield an idle slot now, or promise the next one that comes free."""
        broker = self._broker
        waiting = len(broker.line)
        if key == GLOBAL:
            # Idle while requests wait here: it lacks a slot of an account to go with it. Were that no reason to yield,
            # two processes could each keep one half of a pair.
            idle = broker.whole.held - broker.whole.used
            if idle > 0:
                self._lower_whole_to(broker.whole.held - max(1, idle // 2))
            elif should_yield(waiting, self._capacity(), their_pressure):
                self._promised[GLOBAL] = self._clock.monotonic() + self.pauses.promise
            return
        seat = broker.seats.get(key)
        if seat is None or not should_yield(waiting, self._capacity(), their_pressure):
            return
        if seat.held > seat.used:
            self._lower_to(seat, seat.used)
        elif seat.held:
            self._promised[key] = self._clock.monotonic() + self.pauses.promise

    def _released(self, seat: Seat) -> None:
        """A slot came free: keep promises before it is used again here."""
        self._presence.released()
        now = self._clock.monotonic()
        key = seat.account.id
        promised = self._promised.pop(key, None)
        if self._unsure(seat):
            self._unfit(seat)
        elif promised is not None and promised > now and seat.held > seat.used:
            seat.held -= 1
            self._lower[key] = seat
            self._wake.set()
        whole = self._broker.whole
        promised = self._promised.pop(GLOBAL, None)
        if promised is not None and promised > now and whole.held > whole.used:
            self._lower_whole_to(whole.held - 1)
            self._wake.set()

    # Accounts that rest.

    def _on_trial(self, key: str) -> bool:
        seat = self._broker.seats.get(key)
        return seat is not None and seat.account.health.trial

    def _unsure(self, seat: Seat) -> bool:
        """Whether others may hold slots of this account's trial while we hold older ones."""
        if self._presence.alone:
            return False
        return not seat.allowed or (seat.account.health.trial and seat.account.id not in self._probing)

    def _unfit(self, seat: Seat) -> None:
        """An account left service: keep what is in use, for the rest is taken anew when it comes back.

        Called in the middle of a step of the broker, which brings its own orders in line afterwards.
        """
        key = seat.account.id
        self._probing.discard(key)
        if self._presence.alone:
            return
        self._resting.add(key)
        if seat.held > seat.used:
            seat.held = seat.used
            self._lower[key] = seat
            self._sweep_due |= seat.allowed
            self._wake.set()

    def _look_after_resting(self) -> None:
        """Those that are in service without trial again: take the share of them."""
        seats = self._broker.seats
        back = [
            key
            for key in self._resting
            if (seat := seats.get(key)) is None or (seat.allowed and not seat.account.health.trial)
        ]
        if back:
            self._resting.difference_update(back)
            self._probing.difference_update(back)
            self._sweep_due = True

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
            if seat.held > seat.used and now - seat.idle_since > self.pauses.idle:
                share = self._share(seat.account.id, self._cap(seat.account))
                if seat.held > share:
                    self._lower_to(seat, max(share, seat.used))
                elif seat.held < share and seat.allowed and self._sweep_again == float("inf"):
                    self._sweep_due = True
        share = self._share(GLOBAL, broker.policy.global_inflight)
        if broker.whole.held > max(share, broker.whole.used):
            self._lower_whole_to(max(share, broker.whole.used))
