"""Who of the registered processes is dead, and who only seems to be. Pure but for the look at the machine.

A registration that lapsed proves nothing: a process that was stopped, or that hangs, still has its connections, and
the upstreams work for it. So the dead are told from the frozen by whoever lives in the same place and can look:

- gone from this machine: dead at once, even before the registration lapses;
- lapsed and still there: frozen. It may not renew, and what it holds stays withheld until it is gone, says itself
  that nothing of it runs any more, or has been frozen for longer than any request may last;
- lapsed in another place: its living neighbours there judge. Without neighbours it is dead: if it lives it has stopped
  its work by itself (see ``presence``), unless it froze.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Protocol

import msgspec


class Residence(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process lives: a running machine as its processes see it, and which of these processes it is."""

    place: str
    pid: int
    started: int
    """Tells two processes apart that had the same number one after the other. Its unit is the place's own."""


class Places(Protocol):
    """What can be known about processes from here."""

    def here(self) -> Residence | None:
        """Of this process; None where that cannot be told."""

    def lives(self, residence: Residence) -> bool | None:
        """Whether that process exists; None when it cannot be seen from here. False is a proof."""


class Nowhere:
    """Places of which nothing is known: every process lives apart."""

    def here(self) -> Residence | None:
        return None

    def lives(self, residence: Residence) -> bool | None:
        return None


class Standing(StrEnum):
    """Of a registration, as stored."""

    LIVE = "live"
    FROZEN = "frozen"
    DEAD = "dead"


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """One registered process on the database's clock. ``overdue``: lapsed for longer than a request may last."""

    instance: str
    standing: Standing
    residence: Residence | None
    lapsed: bool
    overdue: bool


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What to declare. ``gone`` needs no further look at the clock, ``lapsed`` and ``frozen`` do."""

    gone: tuple[str, ...] = ()
    """Proven dead."""
    lapsed: tuple[str, ...] = ()
    """Taken for dead."""
    frozen: tuple[str, ...] = ()
    overdue: tuple[str, ...] = ()
    """Frozen, or hidden from all who live, for longer than any request may last."""


def judged(registrations: Iterable[Registration], places: Places, *, only_proven: bool = False) -> Judgement:
    """The verdicts on all that are not dead already; those that are as they should be are in none of the lists.

    ``only_proven``: a lapse means nothing at the moment (the database was away for all).
    """
    known = [each for each in registrations if each.standing is not Standing.DEAD]
    inhabited = {
        each.residence.place
        for each in known
        if each.residence is not None and each.standing is Standing.LIVE and not each.lapsed
    }
    gone: list[str] = []
    lapsed: list[str] = []
    frozen: list[str] = []
    overdue: list[str] = []
    for each in known:
        lives = None if each.residence is None else places.lives(each.residence)
        if lives is False:
            gone.append(each.instance)
        elif only_proven:
            continue
        elif each.overdue:
            overdue.append(each.instance)
        elif each.standing is Standing.FROZEN or not each.lapsed:
            continue
        elif lives:
            frozen.append(each.instance)
        elif each.residence is None or each.residence.place not in inhabited:
            lapsed.append(each.instance)
    return Judgement(gone=tuple(gone), lapsed=tuple(lapsed), frozen=tuple(frozen), overdue=tuple(overdue))


def strangers(mine: Residence | None, others: Iterable[str | None]) -> int:
    """How many of the ``others``' places cannot be seen from here."""
    return sum(1 for place in others if mine is None or place != mine.place)
