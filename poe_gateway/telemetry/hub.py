"""Emit once, heard by all listeners. Synchronous: a listener must neither block nor await."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import TypeVar

from poe_gateway.telemetry.events import Event

Listener = Callable[[Event], None]
E = TypeVar("E")

_log = logging.getLogger(__name__)


class Telemetry:
    """The hub. Built at composition with its listeners; rooms only call ``emit``."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners: tuple[Listener, ...] = listeners
        self.failures: Counter[str] = Counter()
        """Records that a listener could not take, per listener."""

    def add(self, listener: Listener) -> None:
        """One more listener, from the next record on."""
        self._listeners = (*self._listeners, listener)

    def emit(self, record: Event) -> None:
        """Tell every listener. Never raises: a listener's failure is counted, and logged the first time."""
        for listener in self._listeners:
            try:
                listener(record)
            except Exception as error:  # noqa: BLE001 - telling must not break the doing
                self._failed(listener, record, error)

    def _failed(self, listener: Listener, record: Event, error: Exception) -> None:
        name = getattr(listener, "__qualname__", type(listener).__qualname__)
        self.failures[name] += 1
        if self.failures[name] == 1:
            # The error's text is left out: it may quote the record.
            _log.warning("listener %s failed on %s: %s", name, type(record).__name__, type(error).__name__)


class Recorder:
    """A listener that keeps the newest ``limit`` records, for tests and for the operator's questions."""

    def __init__(self, limit: int = 10_000) -> None:
        self.records: deque[Event] = deque(maxlen=limit)

    def __call__(self, record: Event) -> None:
        self.records.append(record)

    def of(self, kind: type[E]) -> list[E]:
        """The kept records of one class, oldest first."""
        return [record for record in self.records if isinstance(record, kind)]
