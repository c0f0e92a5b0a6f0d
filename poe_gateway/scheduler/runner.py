"""The runner: a metronome beats, duties run. A duty that fails is told and has its next turn; the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from poe_gateway.clock import Clock
from poe_gateway.scheduler.duties import Turn
from poe_gateway.scheduler.leadership import Leadership
from poe_gateway.scheduler.timetable import Duty, Place
from poe_gateway.telemetry.events import DutyFinished
from poe_gateway.telemetry.hub import Telemetry


class Scheduler:
    """Runs a timetable. ``run`` until cancelled."""

    def __init__(
        self, *, timetable: Sequence[Duty], leadership: Leadership, telemetry: Telemetry, clock: Clock
    ) -> None:
        self._duties = {duty.name: duty for duty in timetable}
        self._leadership = leadership
        self._telemetry = telemetry
        self._clock = clock
        self._running: dict[str, asyncio.Task[None]] = {}
        leadership.on_gained = self._leads
        leadership.on_lost = self._leads_no_more

    async def run(self) -> None:
        """Beat until cancelled; then break off what runs and resign."""
        metronome = AsyncIOScheduler(
            timezone=UTC,
            executors={"default": AsyncIOExecutor()},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        for duty in self._duties.values():
            metronome.add_job(self._beat, trigger_of(duty, self._clock.now()), args=[duty], id=duty.name)
        metronome.start()
        for duty in self._duties.values():
            if duty.at_once and duty.place is Place.EVERYWHERE:
                self.begin(duty)
        try:
            await self._leadership.run()
        finally:
            metronome.shutdown(wait=False)
            running = list(self._running.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await self._leadership.resign()

    async def _beat(self, duty: Duty) -> None:
        self.begin(duty)

    def begin(self, duty: Duty) -> bool:
        """Start a turn in the background; False when it is not this process's, or the last turn still runs."""
        if duty.name in self._running or (duty.place is Place.LEADER and not self._leadership.leads):
            return False
        task = asyncio.create_task(self._turn(duty), name=f"duty {duty.name}")
        self._running[duty.name] = task
        task.add_done_callback(lambda _: self._running.pop(duty.name, None))
        return True

    async def _turn(self, duty: Duty) -> None:
        started = self._clock.monotonic()
        leader = duty.place is Place.LEADER
        ok, detail = False, "broken off"
        turn = Turn(
            now=self._clock.now(),
            token=self._leadership.token if leader else 0,
            holds=(lambda: self._leadership.leads) if leader else (lambda: True),
        )
        try:
            async with asyncio.timeout(duty.limit):
                detail = await duty.act(turn)
            ok = True
        except TimeoutError:
            detail = f"took longer than {duty.limit:g} seconds"
        except Exception as error:  # noqa: BLE001 - a duty's failure is told, whatever it is, and ends with this turn
            detail = _kinds(error)
        finally:
            if detail or not duty.quiet:
                seconds = self._clock.monotonic() - started
                self._telemetry.emit(DutyFinished(name=duty.name, ok=ok, seconds=seconds, detail=detail))

    def _leads(self) -> None:
        for duty in self._duties.values():
            if duty.at_once and duty.place is Place.LEADER:
                self.begin(duty)

    def _leads_no_more(self) -> None:
        for name, task in self._running.items():
            if self._duties[name].place is Place.LEADER:
                task.cancel()


def _kinds(error: BaseException) -> str:
    """Class names only: texts of unforeseen errors may hold anything."""
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(sorted({_kinds(each) for each in error.exceptions}))
    return type(error).__name__


class Moments(BaseTrigger):  # type: ignore[misc]  # the library is untyped
    """Fires at each fixed moment of a duty."""

    def __init__(self, duty: Duty) -> None:
        self._duty = duty

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        """The first moment after ``now`` or after the previous one, whichever is later."""
        if self._duty.also_at is None:
            return None
        return self._duty.also_at(max(now, previous) if previous is not None else now)


def trigger_of(duty: Duty, now: datetime) -> BaseTrigger:
    """What the metronome is told about a duty; ``now`` is the start."""
    if duty.every is None:
        return DateTrigger(run_date=now)
    interval = IntervalTrigger(
        seconds=max(1, round(duty.every)),
        start_date=now + timedelta(seconds=duty.every),
        jitter=round(duty.jitter) or None,
        timezone=UTC,
    )
    return interval if duty.also_at is None else OrTrigger([interval, Moments(duty)])
