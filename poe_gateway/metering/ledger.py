"""Every attempt is written down before it is made, and again when it is over.

``open``, ``close`` and ``note`` are one write into this process's spool; nothing awaits. ``run`` ships what is written
to the database and finishes the spools of processes that died. With the database away the records wait: the newest few
thousand in memory, all of them on disk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from poe_gateway.clock import Clock, Ids
from poe_gateway.errors import StoreUnavailable
from poe_gateway.metering import spool as disk
from poe_gateway.metering.frames import Story, opened_by
from poe_gateway.metering.rows import Change, Correction, Intent, Outcome, Traffic
from poe_gateway.metering.shipping import BATCH, Drainer, Reading, Shipper
from poe_gateway.metering.spool import SEGMENT, Spool, SpoolFailed
from poe_gateway.metering.store import Charger, Entry, RowSink, Sink

IN_MEMORY = 10_000
"""Records that wait in memory; what comes after them is read back from the disk in its turn."""
_UNWRITTEN = 10_000
"""Ends of attempts that wait in memory for a disk that takes no more."""
_PAUSE = 0.2
_RETRY = 1.0
_LOOK = 2.0
_REMEMBER = 1.0
_REPEAT = 60.0
"""Seconds: between two shipments, after a failed one, between two looks for the dead, between two notes of how far
shipping is, and before the same trouble is told again."""


class LedgerState(msgspec.Struct, frozen=True, kw_only=True):
    """How the ledger of this process stands."""

    waiting: int
    """Records that are not known to be in the database."""
    oldest: float
    """Seconds that the first of them has been waiting."""
    open: int
    """Attempts without an end."""
    failed: bool
    """The disk did not take the last record, or could not be synced: no attempt can begin."""
    orphans: int = 0
    """Attempts of dead processes that this one has ended, so far."""


class Ledger:
    """Of this process. ``start``, then ``run`` as one task, ``leave`` at the end."""

    def __init__(
        self,
        directory: Path,
        rows: RowSink,
        charger: Charger,
        clock: Clock,
        ids: Ids,
        traffic: Sink[Traffic] | None = None,
        changes: Sink[Change] | None = None,
        *,
        on_trouble: Callable[[str], None] = lambda what: None,
        in_memory: int = IN_MEMORY,
        segment: int = SEGMENT,
    ) -> None:
        """``directory``: of all spools of this machine, made where it is missing. ``segment``: bytes."""
        self.process = ids.new("spool")
        """Names this start of this process: its spool, and the borrower of its slices."""
        self.on_trouble = on_trouble
        self._directory = directory
        self._clock = clock
        self._in_memory = in_memory
        self._segment = segment
        self._shipper = Shipper(rows, charger, traffic, changes, self._report)
        self._drainer = Drainer(directory, self.process, self._shipper, clock, self._report)
        self._spool: Spool | None = None
        self._unwritten: dict[int, Outcome] = {}
        """By the seq of their intents, which stay open until their ends are written."""
        self._pending: deque[tuple[Entry, float]] = deque()
        """What is to be shipped next, with the monotonic second of its writing."""
        self._beyond: tuple[int, float] | None = None
        """First seq, and its second, of what is on disk only, behind all that is in memory."""
        self._gap: _Gap | None = None
        """What is on disk only, before all that is in memory."""
        self._waiting = 0
        self._stored = 0
        """Records that were shipped, so far."""
        self._synced = 0
        self._shipped = 0
        self._remembered = 0
        self._remembered_at = 0.0
        self._failed = False
        self._shipping = asyncio.Lock()
        self._told: dict[str, float] = {}

    async def start(self) -> None:
        """Make the spool of this process. Raises SpoolFailed."""
        self._spool = await asyncio.to_thread(Spool.create, self._directory, self.process, self._segment)

    # The path of a request: nothing here awaits.

    def open(self, intent: Intent) -> str:
        """Write down an attempt that is about to be made; the id of its row. Raises SpoolFailed: do not make it."""
        spool = self._writable()
        seq = self._append(spool, intent)
        spool.open[seq] = intent
        return f"{self.process}-{seq}"

    def close(self, outcome: Outcome) -> None:
        """Write down how an attempt ended. A row that is closed already stays as it is.

        An end that the disk does not take waits in memory for better times. Raises SpoolFailed when too many do: the
        attempt then counts as reserved when this process is gone.
        """
        spool = self._writable()
        opened = opened_by(outcome.row)
        intent = spool.open.get(opened)
        if intent is None or opened in self._unwritten or outcome.row != f"{self.process}-{opened}":
            return
        try:
            self._end(spool, opened, intent, outcome)
        except SpoolFailed:
            if len(self._unwritten) >= _UNWRITTEN:
                raise
            self._unwritten[opened] = outcome

    def note(self, record: Traffic | Change | Correction) -> None:
        """Write down what belongs to no attempt of this process. Raises SpoolFailed, ValueError: there is no store."""
        if not self._shipper.takes(record):
            raise ValueError(f"there is no store for a {type(record).__name__}")
        spool = self._writable()
        self._gather(Entry(self.process, self._append(spool, record), record))

    def _writable(self) -> Spool:
        if self._spool is None:
            raise SpoolFailed("the ledger is not open")
        return self._spool

    def _append(self, spool: Spool, record: Intent | Outcome | Correction | Traffic | Change) -> int:
        try:
            seq = spool.append(record)
        except SpoolFailed as failed:
            self._failed = True
            self._report(str(failed))
            raise
        self._failed = False
        return seq

    def _end(self, spool: Spool, opened: int, intent: Intent, outcome: Outcome) -> None:
        seq = self._append(spool, outcome)
        del spool.open[opened]
        self._gather(Entry(self.process, seq, outcome, opened, intent))

    def _gather(self, entry: Entry) -> None:
        self._waiting += 1
        if self._beyond is None:
            if len(self._pending) < self._in_memory:
                self._pending.append((entry, self._clock.monotonic()))
            else:
                self._beyond = (entry.seq, self._clock.monotonic())

    # Behind it.

    async def run(self) -> None:
        """Ship, and finish the dead, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ship_for_ever())
            tasks.create_task(self._drain_for_ever())

    async def flush(self, timeout: float) -> bool:  # noqa: ASYNC109 - what is bounded is the shipping, not the caller
        """Ship what is written now; False: not all of it within ``timeout`` seconds."""
        wanted = self._stored + self._waiting + len(self._unwritten)
        try:
            async with asyncio.timeout(timeout):
                await self._ship()
        except (StoreUnavailable, OSError):  # a timeout is an OSError too
            return False
        except Exception as error:  # noqa: BLE001 - what cannot be shipped must not keep a process from its end
            self._report(f"the ledger could not be shipped ({type(error).__name__})")
            return False
        return self._stored >= wanted or self._waiting == 0

    async def leave(self, patience: float = 10.0) -> bool:
        """Ship everything, close the spool and remove it. Afterwards nothing can be written.

        False: the database did not take it within ``patience`` seconds; then the files stay for the next process.
        """
        if self._spool is None:
            return True
        flushed = await self.flush(patience)
        # Nothing of ours may be under way when the lock is let go of: others charge from this spool then.
        async with self._shipping:
            spool, self._spool = self._spool, None
            try:
                await asyncio.to_thread(disk.remember, spool.folder, self._shipped)
                if not flushed:
                    return False
                await self._sync(spool)
                async with asyncio.timeout(patience):
                    await self._drainer.finish(spool.folder, self._unwritten)
            except (StoreUnavailable, OSError):
                return False
            finally:
                spool.close()
        return True

    def state(self) -> LedgerState:
        """For readiness and figures."""
        since = None
        if not self._waiting:
            pass
        elif self._gap is not None:
            since = self._gap.since
        elif self._pending:
            since = self._pending[0][1]
        elif self._beyond is not None:
            since = self._beyond[1]
        return LedgerState(
            waiting=self._waiting + len(self._unwritten),
            oldest=0.0 if since is None else max(0.0, self._clock.monotonic() - since),
            open=0 if self._spool is None else len(self._spool.open) - len(self._unwritten),
            failed=self._failed,
            orphans=self._drainer.orphans,
        )

    async def _ship_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            try:
                await self._ship()
                await self._tidy()
            except StoreUnavailable:
                await asyncio.sleep(_RETRY)
            except Exception as error:  # noqa: BLE001 - what waits must go on waiting, and be told of
                self._report(f"the ledger could not be shipped ({type(error).__name__})")
                await asyncio.sleep(_RETRY)

    async def _drain_for_ever(self) -> None:
        while True:
            try:
                await self._drainer.drain()
            except StoreUnavailable:
                pass  # the next look is the next try
            except Exception as error:  # noqa: BLE001 - what waits must go on waiting, and be told of
                self._report(f"spools of dead processes could not be finished ({type(error).__name__})")
            await asyncio.sleep(_LOOK)

    async def _ship(self) -> None:
        """Until nothing waits that was there at the beginning. Raises StoreUnavailable, OSError."""
        async with self._shipping:
            spool = self._spool
            if spool is None:
                return
            self._write_late(spool)
            await self._sync(spool)
            until = self._synced
            while self._shipped < until and await self._ship_some(spool):
                pass

    async def _ship_some(self, spool: Spool) -> bool:
        """The next batch; False: there is none."""
        if self._gap is None and not self._pending and self._beyond is not None:
            first, since = self._beyond
            self._gap, self._beyond = _Gap(self._directory, spool, first, since, self._report), None
        if self._gap is not None:
            await self._ship_gap(spool, self._gap)
            return True
        batch: list[Entry] = []
        for entry, _ in self._pending:
            if entry.seq > self._synced or len(batch) == BATCH:
                break
            batch.append(entry)
        if not batch:
            return False
        await self._shipper.ship(self.process, batch)
        for _ in batch:
            self._pending.popleft()
        self._done(batch)
        return True

    async def _ship_gap(self, spool: Spool, gap: _Gap) -> None:
        if self._synced < gap.last:
            await self._sync(spool)
        batch = gap.batch or await gap.next(self._shipped)
        if not batch:
            self._gap = None
            if not self._pending and self._beyond is None:
                self._waiting = 0  # what was damaged on the disk is kept aside and told of: it waits no more
            return
        gap.batch = batch
        await self._shipper.ship(self.process, batch)
        gap.batch = []
        self._done(batch)
        if self._shipped == gap.last:
            self._gap = None

    def _done(self, batch: list[Entry]) -> None:
        self._waiting -= len(batch)
        self._stored += len(batch)
        self._shipped = batch[-1].seq

    def _write_late(self, spool: Spool) -> None:
        """Ends that the disk did not take when they came."""
        for opened, outcome in list(self._unwritten.items()):
            try:
                self._end(spool, opened, spool.open[opened], outcome)
            except SpoolFailed:
                return
            del self._unwritten[opened]

    async def _sync(self, spool: Spool) -> None:
        """What is shipped must be on the disk: power loss may take what is not."""
        unsynced = spool.unsynced()
        if unsynced is None:
            return
        try:
            await asyncio.to_thread(disk.sync_files, spool.folder, unsynced[0])
        except OSError as error:
            self._failed = True
            self._report(f"the spool cannot be brought to the disk ({error.strerror})")
            raise
        spool.synced(*unsynced)
        self._synced = unsynced[1]

    async def _tidy(self) -> None:
        now, spool, shipped = self._clock.monotonic(), self._spool, self._shipped
        if spool is None or shipped == self._remembered or now - self._remembered_at < _REMEMBER:
            return
        self._remembered, self._remembered_at = shipped, now
        try:
            await asyncio.to_thread(disk.remember, spool.folder, shipped)
            await asyncio.to_thread(disk.trim, spool.folder, shipped)
        except OSError as error:
            self._report(f"the spool cannot be tidied ({error.strerror})")

    def _report(self, what: str) -> None:
        now = self._clock.monotonic()
        if now - self._told.get(what, -_REPEAT) >= _REPEAT:
            self._told[what] = now
            self.on_trouble(what)


class _Gap:
    """A stretch of this process's own spool that is read back from the disk."""

    def __init__(self, directory: Path, spool: Spool, first: int, since: float, report: Callable[[str], None]) -> None:
        self.last = spool.last
        self.since = since
        self.batch: list[Entry] = []
        """Read, and not known to be shipped."""
        self._directory = directory
        self._folder = spool.folder
        self._first = first
        self._report = report
        self._reading: Reading | None = None

    async def next(self, shipped: int) -> list[Entry]:
        """What follows, up to ``last``, then nothing. Raises OSError; then, as after a cancellation, it goes on behind
        ``shipped``: what was read and not handed over is read again."""
        reading = self._reading or self._begin(max(self._first, shipped + 1))
        self._reading = None
        entries = await reading.next()
        self._reading = reading
        return [entry for entry in entries if entry.seq <= self.last]

    def _begin(self, first: int) -> Reading:
        files = disk.segments(self._folder)
        # Each file begins with what was open then: nothing before the file of the first one is needed.
        begin = max((index for index, (seq, _) in enumerate(files) if seq <= first), default=0)
        story = Story(self._folder.name)
        entries = story.entries(disk.lines(files[begin:]), after=first - 1)
        return Reading(self._directory, story, entries, self._report)
