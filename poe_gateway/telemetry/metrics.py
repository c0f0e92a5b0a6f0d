"""The listener that keeps Prometheus metrics, and their exposition for one process or several.

Import this module only after ``processes.configure_multiprocess`` where several workers share a directory. Labels are
bounded: a name that the catalogue does not know, or one too many, becomes ``other``; no key and no text of a caller is
ever a label. Children are looked up once per combination of label values and kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector

from poe_gateway.money import decimal_of
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
from poe_gateway.telemetry.processes import sweep

PREFIX = "poe_gateway"
OTHER = "other"
STATES = ("active", "cooldown", "depleted", "invalid")

_LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
_WAITS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

if getattr(values.ValueClass, "_multiprocess", False):
    # The library asks the kernel for the pid at every sample to notice forks; workers are spawned, never forked.
    _own = os.getpid()
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: _own)  # type: ignore[no-untyped-call]
disable_created_metrics()  # type: ignore[no-untyped-call]


class _Bounded:
    """A label whose number of values is limited."""

    __slots__ = ("_limit", "_seen")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def __call__(self, value: str | None) -> str:
        if value is None:
            return ""
        if value in self._seen:
            return value
        if len(self._seen) >= self._limit:
            return OTHER
        self._seen.add(value)
        return value


class _Family:
    """A metric with its children kept by their label values, a tuple in the order of ``labels``."""

    __slots__ = ("_children", "_metric")

    def __init__(self, metric: Counter | Gauge | Histogram) -> None:
        self._metric = metric
        self._children: dict[tuple[str, ...], Any] = {}

    def __call__(self, *values: str) -> Any:
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values) if values else self._metric
        return child


class Metrics:
    """``known_model`` tells whether a model name is in the catalogue (others count as ``other``).

    ``directory`` is the one given to ``configure_multiprocess``; None = this process stands alone.
    """

    def __init__(self, *, known_model: Callable[[str], bool], directory: Path | None = None, version: str = "") -> None:
        self._known_model = known_model
        self._directory = directory
        self._registry = registry = CollectorRegistry(auto_describe=False)

        def counter(name: str, text: str, *labels: str) -> _Family:
            return _Family(Counter(f"{PREFIX}_{name}", text, labels, registry=registry))

        def gauge(name: str, text: str, mode: Any, *labels: str) -> _Family:
            return _Family(Gauge(f"{PREFIX}_{name}", text, labels, registry=registry, multiprocess_mode=mode))

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> _Family:
            return _Family(Histogram(f"{PREFIX}_{name}", text, labels, registry=registry, buckets=buckets))

        self._requests = counter(
            "requests_total", "Requests answered.", "route", "model", "provider", "stream", "status_class"
        )
        self._durations = histogram(
            "request_duration_seconds", "From arrival to the last byte.", _LONG, "route", "stream"
        )
        self._ttft = histogram("time_to_first_token_seconds", "From arrival to the first piece.", _LONG, "provider")
        self._errors = counter("errors_total", "Requests that ended with an error.", "code")
        self._disconnects = counter("client_disconnects_total", "Callers that left before the end.", "route")
        self._failovers = counter("failovers_total", "Attempts beyond a request's first.", "provider")
        self._tokens = counter("tokens_total", "Tokens, told by the upstream or estimated.", "provider", "type")
        self._raw = counter("raw_cost_total", "What upstreams ask, in units of the currency.", "currency", "provider")
        self._billed = counter(
            "billed_cost_total", "What callers are charged, in units of the currency.", "currency", "provider"
        )
        self._limited = counter("limit_refusals_total", "Requests refused by a caller's own limit.", "what")
        self._replays = counter("idempotent_replays_total", "Requests answered from the record of an earlier one.")
        self._outcomes = counter("upstream_outcomes_total", "Attempts by how they ended.", "provider", "outcome")
        self._attempt_seconds = histogram("attempt_duration_seconds", "One attempt on one account.", _LONG, "provider")
        self._points = counter("points_spent_total", "Points told as spent.", "provider")
        self._waits = histogram("wait_seconds", "Time in the queue for a slot.", _WAITS, "result")
        self._accounts = gauge("accounts", "Accounts of the pool.", "mostrecent", "provider", "state")
        self._pool_points = gauge("pool_points", "Points left in the pool.", "mostrecent", "provider")
        self._inflight = gauge("inflight", "Requests holding a slot.", "livesum")
        self._waiting = gauge("waiting", "Requests queueing for a slot.", "livesum")
        self._unshipped = gauge("ledger_waiting", "Records that are not in the database yet.", "livesum")
        self._oldest = gauge("ledger_oldest_seconds", "Age of the oldest of them.", "livemax")
        self._orphans = counter("orphans_total", "Attempts whose end nobody saw.")
        self._drift = counter(
            "ledger_drift_points_total", "Points by which our rows and upstreams' figures differ.", "provider", "kind"
        )
        self._transitions = counter(
            "account_transitions_total", "Changes of an account's state.", "provider", "old", "new", "cause"
        )
        self._lost = counter("slots_lost_total", "Slots that lapsed while in use.")
        self._grants = counter("grant_changes_total", "Times that this process got or gave slots.", "direction")
        self._duties = counter("duties_total", "Scheduled duties that ran.", "name", "ok")
        self._lag = histogram("event_loop_lag_seconds", "How late the event loop woke a timer.", _LAGS)
        self._alerts = counter("alerts_total", "Things that the operator should look at.", "kind")
        self._escalations = counter(
            "escalations_total", "Requests that left one leg of their way for the next.", "profile", "tier", "reason"
        )
        self._notices = counter("notices_total", "Notices to the operator.", "level")
        gauge("build_info", "Always 1; the version as a label.", "mostrecent", "version")(version).set(1)

        self._route = _Bounded(100)
        self._provider = _Bounded(50)
        self._model = _Bounded(1_000)
        self._code = _Bounded(200)
        self._duty = _Bounded(100)
        self._profile = _Bounded(100)
        self._tier = _Bounded(200)
        self._currency = _Bounded(50)
        self._orphans_told = 0
        self._shown: set[tuple[str, str]] = set()
        self._listeners: dict[type[Any], Callable[[Any], None]] = {
            RequestFinished: self._on_request,
            AttemptFinished: self._on_attempt,
            WaitFinished: lambda record: self._waits(record.result).observe(record.seconds),
            AccountChanged: self._on_account,
            PoolSnapshot: self._on_pool,
            LedgerSnapshot: self._on_ledger,
            LedgerDrift: lambda record: self._drift(self._provider(record.provider), record.kind).inc(record.points),
            GrantsChanged: lambda record: self._grants("more" if record.new > record.old else "fewer").inc(),
            LeaseLost: lambda record: self._lost().inc(record.slots),
            DutyFinished: lambda record: self._duties(self._duty(record.name), _flag(record.ok)).inc(),
            LoopLag: lambda record: self._lag().observe(record.seconds),
            Alert: lambda record: self._alerts(record.kind).inc(),
            Escalated: self._on_escalated,
            Notice: lambda record: self._notices(record.level).inc(),
        }

    def __call__(self, record: Event) -> None:
        self._listeners[type(record)](record)

    def exposition(self) -> tuple[bytes, str]:
        """The metrics of all processes and their content type. Reads files where processes share a directory."""
        registry = self._registry
        if self._directory is not None:
            sweep(self._directory)
            registry = CollectorRegistry()
            MultiProcessCollector(registry, path=str(self._directory))  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4

    def _on_escalated(self, record: Escalated) -> None:
        labels = self._profile(record.profile), self._tier(record.tier), self._code(record.reason)
        self._escalations(*labels).inc()

    def _on_request(self, record: RequestFinished) -> None:
        route, stream = self._route(record.route), _flag(record.stream)
        provider = self._provider(record.provider)
        model = record.model
        if model is not None and not self._known_model(model):
            model = OTHER
        self._requests(route, self._model(model), provider, stream, f"{record.status // 100}xx").inc()
        self._durations(route, stream).observe(record.seconds)
        if record.ttft_seconds is not None:
            self._ttft(provider).observe(record.ttft_seconds)
        if record.error_code is not None:
            self._errors(self._code(record.error_code)).inc()
        if record.client_gone:
            self._disconnects(route).inc()
        if record.attempts > 1:
            self._failovers(provider).inc(record.attempts - 1)
        if record.limited_by is not None:
            self._limited(self._code(record.limited_by)).inc()
        if record.replayed:
            # Told and paid once, by the request that was made first.
            self._replays().inc()
            return
        tokens = (
            ("prompt", record.prompt_tokens),
            ("completion", record.completion_tokens),
            ("cached", record.cached_tokens),
        )
        for kind, count in tokens:
            if count:
                self._tokens(provider, kind).inc(count)
        if record.unit is not None:
            currency = self._currency(record.unit)
            for family, amount in ((self._raw, record.raw_cost), (self._billed, record.billed_cost)):
                if amount:
                    # A counter is a float; exact figures are the ledger's.
                    family(currency, provider).inc(float(decimal_of(amount, record.unit)))

    def _on_attempt(self, record: AttemptFinished) -> None:
        provider = self._provider(record.provider)
        self._outcomes(provider, self._code(record.outcome)).inc()
        self._attempt_seconds(provider).observe(record.seconds)
        if record.points:
            self._points(provider).inc(record.points)

    def _on_account(self, record: AccountChanged) -> None:
        labels = (self._provider(record.provider), record.old_state, record.new_state, self._code(record.cause))
        self._transitions(*labels).inc()

    def _on_pool(self, record: PoolSnapshot) -> None:
        counts = {
            (self._provider(provider), state): count
            for provider, states in record.accounts.items()
            for state, count in {**dict.fromkeys(STATES, 0), **states}.items()
        }
        for labels in self._shown - counts.keys():
            self._accounts(*labels).set(0)
        for labels, count in counts.items():
            self._accounts(*labels).set(count)
        self._shown |= counts.keys()
        for provider in {provider for provider, _ in self._shown} | record.points.keys():
            self._pool_points(self._provider(provider)).set(record.points.get(provider, 0))
        self._inflight().set(record.inflight)
        self._waiting().set(record.waiting)

    def _on_ledger(self, record: LedgerSnapshot) -> None:
        self._unshipped().set(record.waiting)
        self._oldest().set(record.oldest_seconds)
        self._orphans().inc(max(0, record.orphans - self._orphans_told))
        self._orphans_told = record.orphans


def _flag(value: bool) -> str:
    return "true" if value else "false"
