"""Records from spools to their stores, exactly once whatever happens on the way.

The order is rows, then corrections, then charges: a charge without its row would be money that no report explains.
What was sent before is recognised by the stores. A spool that is all shipped is closed in three steps that may each be
repeated: the mark (from now on nobody charges from it again), its liens and what buckets know of it, its folder.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

from poe_gateway.clock import Clock
from poe_gateway.errors import StoreUnavailable
from poe_gateway.metering import spool as disk
from poe_gateway.metering.frames import Damage, Story, frame
from poe_gateway.metering.rows import Change, Correction, Outcome, Traffic
from poe_gateway.metering.store import Charger, Entry, RowSink, Sink, charges_of, orphan

T = TypeVar("T")

BATCH = 500
"""Records that are shipped at a time."""
Report = Callable[[str], None]


class Shipper:
    """To the stores of this process."""

    def __init__(
        self,
        rows: RowSink,
        charger: Charger,
        traffic: Sink[Traffic] | None,
        changes: Sink[Change] | None,
        report: Report,
    ) -> None:
        self.rows = rows
        self.charger = charger
        self._traffic = traffic
        self._changes = changes
        self._report = report

    def takes(self, record: object) -> bool:
        """Whether there is a store for records of this kind."""
        return not (
            (isinstance(record, Traffic) and self._traffic is None)
            or (isinstance(record, Change) and self._changes is None)
        )

    async def ship(self, spool: str, entries: Sequence[Entry]) -> None:
        """Records of one spool, in their order. May be repeated. Raises StoreUnavailable."""
        ends = [entry for entry in entries if isinstance(entry.record, Outcome)]
        if ends:
            refused = await self.rows.insert(ends)
            if refused:
                self._report(f"the database refused {refused} rows of the ledger for good (spool {spool})")
        void = set()
        for entry in entries:
            if isinstance(entry.record, Correction) and not await self.rows.amend(entry):
                void.add(entry.seq)
        charges = charges_of([entry for entry in entries if entry.seq not in void])
        if charges:
            await self.charger.charge(spool, charges)
        traffic = _of(Traffic, entries)
        if traffic and self._traffic is not None:
            await self._traffic.put(spool, traffic)
        changes = _of(Change, entries)
        if changes and self._changes is not None:
            await self._changes.put(spool, changes)


class Reading:
    """Goes through files of a spool in slices, in a thread."""

    def __init__(self, directory: Path, story: Story, entries: Iterator[Entry | Damage], report: Report) -> None:
        self._directory = directory
        self._story = story
        self._entries = entries
        self._report = report

    async def next(self) -> list[Entry]:
        """The next records to be shipped, none at the end; what is damaged is kept aside and told. Raises OSError."""
        while True:
            found = await asyncio.to_thread(lambda: list(islice(self._entries, BATCH)))
            damaged = [each.line for each in found if isinstance(each, Damage)]
            if damaged:
                await self.keep(damaged, f"{len(damaged)} records of a spool are damaged")
            entries = [each for each in found if isinstance(each, Entry)]
            if entries or not found:
                return entries

    async def keep(self, lines: list[bytes], what: str) -> None:
        """Put records where an operator finds them. Raises OSError."""
        path = await asyncio.to_thread(disk.set_aside, self._directory, self._story.spool, lines)
        self._report(f"{what}; they are kept in {path.parent.name}/{path.name} beside the spools")


class Drainer:
    """Finishes the spools of processes that are dead."""

    def __init__(self, directory: Path, own: str, shipper: Shipper, clock: Clock, report: Report) -> None:
        self._directory = directory
        self._own = own
        self._shipper = shipper
        self._clock = clock
        self._report = report
        self._left_alone: set[str] = set()
        self.orphans = 0
        """Attempts that were ended here because nobody saw their end."""

    async def drain(self) -> int:
        """Finish every spool whose process is dead; how many. Raises StoreUnavailable: the rest waits."""
        finished = 0
        try:
            folders = await asyncio.to_thread(disk.spools, self._directory)
        except OSError as error:
            self._report(f"the folder of spools cannot be read ({error.strerror})")
            return 0
        for folder in folders:
            if folder.name == self._own or folder.name in self._left_alone:
                continue
            try:
                lock = disk.claim(folder)
                if lock is None:
                    continue
                try:
                    await self.finish(folder)
                    finished += 1
                finally:
                    os.close(lock)
            except (PermissionError, disk.Unreadable) as error:
                self._left_alone.add(folder.name)
                self._report(f"spool {folder.name} is left alone: {_reason(error)}")
            except OSError as error:
                self._report(f"spool {folder.name} cannot be read or removed: {_reason(error)}")
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - one that cannot be shipped must not stop those behind it
                self._report(f"spool {folder.name} cannot be finished ({type(error).__name__})")
        return finished

    async def finish(self, folder: Path, unwritten: Mapping[int, Outcome] | None = None) -> None:
        """Ship what is left, end what is open, close the spool and remove it. The caller holds its lock.

        ``unwritten``: ends that the disk did not take, by the seq of their intents. Raises StoreUnavailable, OSError.
        """
        if not await self._shipper.rows.closed(folder.name):
            await self._ship(folder, unwritten or {})
            await self._shipper.rows.close_spool(folder.name)
        await self._shipper.charger.close(folder.name, self._clock.now())
        await asyncio.to_thread(disk.remove, folder)

    async def _ship(self, folder: Path, unwritten: Mapping[int, Outcome]) -> None:
        files = disk.segments(folder)
        story = Story(folder.name, last=files[-1][0] - 1 if files else 0)
        entries = story.entries(disk.lines(files), after=disk.remembered(folder))
        reading = Reading(self._directory, story, entries, self._report)
        while found := await reading.next():
            known = [entry for entry in found if self._shipper.takes(entry.record)]
            if len(known) < len(found):
                lost = [frame(entry.seq, entry.record) for entry in found if not self._shipper.takes(entry.record)]
                await reading.keep(lost, f"{len(lost)} records of a spool have no store with these settings")
            await self._shipper.ship(folder.name, known)
            with suppress(OSError):  # it only saves work
                await asyncio.to_thread(disk.remember, folder, found[-1].seq)
        # Numbered by rule: whoever comes after us here gives each the same number, and nothing counts twice.
        now = self._clock.now()
        ends = [
            Entry(
                folder.name,
                seq,
                unwritten.get(opened) or orphan(intent, f"{folder.name}-{opened}", now),
                opened,
                intent,
            )
            for seq, (opened, intent) in enumerate(sorted(story.open.items()), story.last + 1)
        ]
        for start in range(0, len(ends), BATCH):
            await self._shipper.ship(folder.name, ends[start : start + BATCH])
        self.orphans += sum(entry.opened not in unwritten for entry in ends)


def _of(kind: type[T], entries: Sequence[Entry]) -> list[tuple[int, T]]:
    return [(entry.seq, entry.record) for entry in entries if isinstance(entry.record, kind)]


def _reason(error: Exception) -> str:
    """Without the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
