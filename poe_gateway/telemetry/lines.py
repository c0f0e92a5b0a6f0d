"""The listener that writes records to the log. Quiet ones (snapshots, grants, succeeded attempts) at debug level."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from poe_gateway.money import shown
from poe_gateway.telemetry.events import (
    AccountChanged,
    Alert,
    AttemptFinished,
    DutyFinished,
    Escalated,
    Event,
    GrantsChanged,
    LeaseLost,
    LedgerDrift,
    LedgerSnapshot,
    LoopLag,
    Notice,
    PoolSnapshot,
    RequestFinished,
    WaitFinished,
)
from poe_gateway.telemetry.logs import get_logger

_MESSAGES: dict[type[Event], str] = {
    AttemptFinished: "attempt",
    RequestFinished: "request",
    AccountChanged: "account changed",
    WaitFinished: "wait",
    GrantsChanged: "grants changed",
    LeaseLost: "slots lost",
    DutyFinished: "duty",
    PoolSnapshot: "pool",
    LedgerSnapshot: "ledger",
    LedgerDrift: "ledger drift",
    LoopLag: "event loop lag",
    Escalated: "a request goes on to its next leg",
}
_UNTOLD: tuple[object, ...] = (None, "", {}, ())
_NUMBERS = {name: logging.getLevelNamesMapping()[name.upper()] for name in ("debug", "info", "warning", "error")}
_COSTS = ("raw_cost", "billed_cost")
_BAD_STATES = frozenset({"invalid"})


class LogListener:
    """Built after ``logs.configure``. Seconds are rounded to microseconds, empty fields left out.

    Costs are told as decimal text in their unit, never as the integers of the ledger.
    """

    def __init__(self, logger: str = "poe_gateway") -> None:
        self._log = get_logger(logger).bind()

    def __call__(self, record: Event) -> None:
        if isinstance(record, Notice):
            fields = {name: value for name, value in record.fields.items() if name != "event"}
            getattr(self._log, record.level)(record.message, **fields)
            return
        if isinstance(record, Alert):
            told = {name: value for name, value in record.fields.items() if name not in ("event", "kind")}
            if record.account_id is not None:
                told["account_id"] = record.account_id
            self._log.warning(record.message, kind=record.kind, **told)
            return
        level = level_of(record)
        if not self._log.is_enabled_for(_NUMBERS[level]):
            return
        write = getattr(self._log, level)
        write(_MESSAGES[type(record)], **_told(record))


def level_of(record: Event) -> str:
    """How loudly a record is told."""
    match record:
        case RequestFinished():
            return "error" if record.status == 500 else "warning" if record.status > 500 else "info"
        case AttemptFinished():
            return "debug" if record.outcome in ("Succeeded", "Cancelled") else "warning"
        case AccountChanged():
            return "warning" if record.new_state in _BAD_STATES else "info"
        case DutyFinished():
            return "info" if record.ok else "error"
        case LedgerDrift():
            return "info" if record.kind == "corrected" else "warning"
        case Escalated():
            return "info"
        case LeaseLost() | Alert():
            return "warning"
        case Notice():
            return record.level
        case _:
            return "debug"


def _told(record: Event) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, value in msgspec.structs.asdict(record).items():
        if value in _UNTOLD:
            continue
        told[name] = round(value, 6) if isinstance(value, float) else value
    if isinstance(record, RequestFinished) and record.unit is not None:
        told |= {name: shown(told[name], record.unit) for name in _COSTS if isinstance(told.get(name), int)}
    return told
