"""What ``/status`` tells everybody: how it goes, without a word about accounts, keys, models or hosts."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, Field

SETUP_URL = "/docs#/health/status"
"""The operation ``status`` in our own documentation, which says what to do."""
_CALLERS = ("/v1/", "/api/")
"""How the routes of callers begin; probes and operators are not counted."""
_REQUESTS = "poe_gateway_requests_total"
_SECONDS = "poe_gateway_request_duration_seconds_sum"
_TIMED = "poe_gateway_request_duration_seconds_count"
_ESCALATIONS = "poe_gateway_escalations_total"
_WANTED = (_REQUESTS, _SECONDS, _TIMED, _ESCALATIONS)


class RequestCounts(BaseModel):
    """Requests of callers since the first of the running processes began, over all of them."""

    total: int
    errors: int = Field(description="answered with a status of 500 or more: failures of the gateway or its upstreams")
    error_rate: float = Field(description="errors / total, from 0 to 1")
    escalations: int = Field(description="times that another model was asked because one failed or was not good enough")
    avg_latency_ms: float = Field(description="from arrival to the last byte, streams included")


class Status(BaseModel):
    """How the gateway does."""

    status: str = "ok"
    ready: bool = Field(description="it can serve: the database answers, accounts are there, and nothing is missing")
    uptime_secs: int = Field(description="of the process that answers")
    version: str
    requests: RequestCounts
    missing: list[str] | None = Field(
        None, description="names of variables and files that should hold a key and do not; absent when ready"
    )
    setup_url: str | None = Field(
        None, description="where it says what to do, on this gateway itself; absent when ready"
    )


def request_counts(exposition: bytes) -> RequestCounts:
    """The counts in a text of Prometheus metrics."""
    lines = [line for line in exposition.decode().splitlines() if line.startswith(_WANTED)]
    sums = dict.fromkeys(_WANTED, 0.0)
    errors = 0.0
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            if sample.name not in sums or not sample.labels.get("route", _CALLERS[0]).startswith(_CALLERS):
                continue
            sums[sample.name] += sample.value
            if sample.name == _REQUESTS and sample.labels.get("status_class") == "5xx":
                errors += sample.value
    total, timed = sums[_REQUESTS], sums[_TIMED]
    return RequestCounts(
        total=int(total),
        errors=int(errors),
        error_rate=round(errors / total, 4) if total else 0.0,
        escalations=int(sums[_ESCALATIONS]),
        avg_latency_ms=round(1000 * sums[_SECONDS] / timed, 1) if timed else 0.0,
    )
