"""Recorded decisions as a backtest needs them: arrivals, durations, prices, and how accounts answered."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime
from statistics import median
from typing import Any

import msgspec

from poe_gateway.pool.decision import Decision, Try

GRAVE = ("Challenged", "Unauthorized")
"""Outcomes that last: an account that met one is believed to answer so until it was seen to succeed again."""
_REQUESTS_OWN = "request"
_UNKNOWN_SECONDS = 10.0


class BadRecords(ValueError):
    """A line is not a decision record; the message names it."""


class AccountFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator's list of accounts tells, as far as it matters. ``points`` None: not known or not metered."""

    id: str
    offer: str | None = None
    intent: str = "enabled"
    priority: int = 0
    weight: int = 1
    labels: list[str] = []
    max_inflight: int | None = None
    keep_percent: int = 0
    balance: Funds | None = None


class Funds(msgspec.Struct, frozen=True, kw_only=True):
    """Of one account."""

    points: int | None = None


class Records:
    """Decisions in order of arrival, and what can be learned from all of them together."""

    def __init__(self, decisions: Iterable[Decision]) -> None:
        self.decisions = sorted(decisions, key=lambda each: (each.at, each.request_id))
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._points: dict[str, list[int]] = defaultdict(list)
        self._history: dict[str, list[tuple[datetime, str]]] = defaultdict(list)
        offers: dict[str, set[str]] = {}
        for decision in self.decisions:
            for attempt in decision.tries:
                known = offers.setdefault(attempt.account_id, set(decision.offers))
                if known & set(decision.offers):
                    known &= set(decision.offers)
                self._history[attempt.account_id].append((decision.at, attempt.outcome))
                if attempt.outcome == "Succeeded":
                    self._seconds[decision.model].append(attempt.seconds)
                    if attempt.points is not None:
                        self._points[decision.model].append(attempt.points)
            for choice in decision.choices:
                for account_id in filter(None, (choice.account_id, *choice.sample)):
                    offers.setdefault(account_id, set(decision.offers))
        self.offers = {account_id: min(known, default="") for account_id, known in sorted(offers.items())}
        """Accounts that are named, and the offer that each seems to belong to."""

    @property
    def begin(self) -> datetime:
        return self.decisions[0].at

    def strategy(self) -> str | None:
        """The strategy in force, by most records."""
        named = Counter(choice.strategy for each in self.decisions for choice in each.choices if choice.strategy)
        return max(sorted(named), key=lambda name: named[name]) if named else None

    def seconds(self, decision: Decision) -> float:
        """How long an answer takes: as recorded, else as others of its model took."""
        for attempt in decision.tries:
            if attempt.outcome == "Succeeded":
                return attempt.seconds
        taken = self._seconds.get(decision.model) or [each for some in self._seconds.values() for each in some]
        return median(taken) if taken else _UNKNOWN_SECONDS

    def points(self, decision: Decision) -> int:
        """What it costs: as recorded, else as others of its model cost, else what was reserved for it."""
        for attempt in decision.tries:
            if attempt.points is not None:
                return attempt.points
        known = self._points.get(decision.model)
        return round(median(known)) if known else self.need(decision)

    def need(self, decision: Decision) -> int:
        """Points that were reserved for it."""
        return max((choice.need for choice in decision.choices), default=0)

    def failure(self, decision: Decision, account_id: str, at: datetime) -> Try | None:
        """How the account would have failed this request; None: it is believed to answer.

        What the request met there itself; what was charged to the request, everywhere; and what lasts.
        """
        for attempt in decision.tries:
            if attempt.outcome not in ("Succeeded", "Cancelled") and (
                attempt.account_id == account_id or attempt.charged_to == _REQUESTS_OWN
            ):
                return attempt
        newest = [outcome for moment, outcome in self._history.get(account_id, ()) if moment <= at]
        if newest and newest[-1] in GRAVE:
            return Try(number=0, account_id=account_id, outcome=newest[-1], fate="not_sent", seconds=1.0)
        return None

    def funds(self, account_id: str) -> int | None:
        """Points that it had at the beginning: those it spent until it was depleted, None when it never was."""
        spent = 0
        for decision in self.decisions:
            for attempt in decision.tries:
                if attempt.account_id != account_id:
                    continue
                if attempt.outcome == "Depleted":
                    return spent
                spent += attempt.points or 0
        return None


def read_records(lines: Iterable[str]) -> Records:
    """From JSON lines. Raises BadRecords."""
    decoder = msgspec.json.Decoder(Decision)
    decisions: list[Decision] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            decisions.append(decoder.decode(line))
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise BadRecords(f"line {number} is no decision record: {error}") from None
    if not decisions:
        raise BadRecords("there are no decision records in it")
    return Records(decisions)


def read_accounts(text: str) -> list[AccountFacts]:
    """From the admin API's answer (``{"data": […]}``), or a plain list. Raises BadRecords."""
    try:
        found: Any = msgspec.json.decode(text)
        if isinstance(found, dict):
            found = found.get("data", found.get("items"))
        return msgspec.convert(found, list[AccountFacts])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BadRecords(f"no list of accounts: {error}") from None
