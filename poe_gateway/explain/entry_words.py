"""Entries of an account's history in plain English. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

from poe_gateway.explain.history import (
    AccountEntry,
    AlertRaised,
    AttemptFailed,
    BalanceMeasured,
    HealthChanged,
    OperatorActed,
)
from poe_gateway.explain.words import OUTCOMES, SCOPES, WITHHELD, counted, known

VERBS = {"upsert": "credentials handed in", "change": "terms changed"}
"""Verbs of the operator that do not speak for themselves."""


def entry_in_words(entry: AccountEntry) -> str:
    """One sentence or two, without the entry's own time."""
    match entry:
        case HealthChanged():
            return _health(entry)
        case BalanceMeasured():
            return _balance(entry)
        case AttemptFailed():
            return _failure(entry)
        case OperatorActed():
            return f"Operator: {known(VERBS, entry.verb)}{f' ({entry.detail})' if entry.detail else ''}."
        case AlertRaised():
            return f"Alert ({entry.alert}): {entry.message}"
        case _:
            assert_never(entry)


def _health(entry: HealthChanged) -> str:
    until = f" until {_moment(entry.until)}" if entry.until is not None else ""
    because = f", by {entry.evidence}" if entry.evidence else ""
    if entry.model:
        return f"Not used for {entry.model}{until} ({entry.cause}){because}."
    if entry.old_state == entry.state and entry.old_cause == entry.cause:
        return f"Stays {entry.state} ({entry.cause}){until}{because}."
    return f"{entry.old_state} ({entry.old_cause}) became {entry.state} ({entry.cause}){until}{because}."


def _balance(entry: BalanceMeasured) -> str:
    measured = f"Measured {counted(entry.measured, 'point')}"
    if entry.renewed:
        return f"{measured}: renewed."
    if entry.expected is None:
        return f"{measured}."
    if not entry.unexplained:
        return f"{measured}, as expected."
    gap, word = abs(entry.unexplained), "fewer" if entry.unexplained > 0 else "more"
    if entry.expected - entry.measured != entry.unexplained:  # part of it was missing at earlier readings
        return f"{measured}, {entry.expected:,} were expected; {gap:,} {word} in all than this pool's doing explains."
    return f"{measured}, {gap:,} {word} than the {entry.expected:,} that were expected."


def _failure(entry: AttemptFailed) -> str:
    what = f"An attempt{f' for {entry.model}' if entry.model else ''} {known(OUTCOMES, entry.outcome)}"
    detail = f" ({entry.detail})" if entry.detail else ""
    request = f", request {entry.evidence}" if entry.evidence else ""
    if entry.withheld:
        return f"{what}{detail}{request}. The account was left as it is: {known(WITHHELD, entry.withheld)}."
    charged = f" Charged to {known(SCOPES, entry.charged_to)}." if entry.charged_to else ""
    return f"{what}{detail}{request}.{charged}"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
