"""Metrics of one process and of several, one of them killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from poe_gateway.telemetry.events import (
    AccountChanged,
    AttemptFinished,
    DutyFinished,
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
from poe_gateway.telemetry.metrics import Metrics
from poe_gateway.telemetry.processes import TooLate, clear_stale, configure_multiprocess, mark_process_dead

REQUEST = RequestFinished(
    request_id="req_1",
    route="/v1/chat/completions",
    status=200,
    seconds=1.5,
    model="mock-1",
    provider="mock",
    stream=True,
    attempts=2,
    ttft_seconds=0.2,
    prompt_tokens=7,
    completion_tokens=5,
    key_name="somebody",
)


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    body, content_type = metrics.exposition()
    assert content_type.startswith("text/plain")
    return parsed(body.decode())


def parsed(text: str):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found, name, /, **labels) -> float | None:
    return found.get((f"poe_gateway_{name}", tuple(sorted(labels.items()))))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(known_model=lambda name: name.startswith("mock-"), version="1.2.3")


def test_a_request_in_numbers(metrics):
    metrics(REQUEST)
    found = samples(metrics)
    labels = {"route": "/v1/chat/completions", "provider": "mock", "stream": "true"}
    assert value(found, "requests_total", model="mock-1", status_class="2xx", **labels) == 1
    assert value(found, "request_duration_seconds_sum", route="/v1/chat/completions", stream="true") == 1.5
    assert value(found, "time_to_first_token_seconds_count", provider="mock") == 1
    assert value(found, "tokens_total", provider="mock", type="prompt") == 7
    assert value(found, "tokens_total", provider="mock", type="completion") == 5
    assert value(found, "failovers_total", provider="mock") == 1
    assert value(found, "build_info", version="1.2.3") == 1


def test_names_follow_the_prefix_and_the_units(metrics):
    metrics(REQUEST)
    for name, _ in samples(metrics):
        assert name.startswith("poe_gateway_")
        assert not name.endswith("_created")


def test_every_record_is_understood(metrics):
    metrics(
        AttemptFinished(
            request_id="r", attempt=1, account_id="a", provider="mock", model="m", outcome="Depleted", points=3
        )
    )
    metrics(WaitFinished(request_id="r", seconds=0.3, result="timeout"))
    metrics(
        AccountChanged(account_id="a", provider="mock", old_state="active", new_state="invalid", cause="challenged")
    )
    metrics(GrantsChanged(account_id="a", old=0, new=2))
    metrics(LeaseLost(account_id=None, slots=2))
    metrics(DutyFinished(name="reset", ok=True, seconds=0.1))
    metrics(LoopLag(seconds=0.004))
    metrics(Notice(level="warning", message="hm"))
    found = samples(metrics)
    assert value(found, "upstream_outcomes_total", provider="mock", outcome="Depleted") == 1
    assert value(found, "points_spent_total", provider="mock") == 3
    assert value(found, "wait_seconds_count", result="timeout") == 1
    labels = {"provider": "mock", "old": "active", "new": "invalid", "cause": "challenged"}
    assert value(found, "account_transitions_total", **labels) == 1
    assert value(found, "grant_changes_total", direction="more") == 1
    assert value(found, "slots_lost_total") == 2
    assert value(found, "duties_total", name="reset", ok="true") == 1
    assert value(found, "event_loop_lag_seconds_count") == 1
    assert value(found, "notices_total", level="warning") == 1


def test_money_is_counted_by_currency_and_provider(metrics):
    paid = replace(REQUEST, org="org_1", unit="USD", raw_cost=1_250_000, billed_cost=1_500_000, cached_tokens=4)
    metrics(paid)
    metrics(paid)
    metrics(replace(paid, unit="EUR", raw_cost=None, billed_cost=100_000_000))
    metrics(replace(paid, unit="points", raw_cost=30, billed_cost=30))
    found = samples(metrics)
    assert value(found, "raw_cost_total", currency="USD", provider="mock") == 0.025
    assert value(found, "billed_cost_total", currency="USD", provider="mock") == 0.03
    assert value(found, "billed_cost_total", currency="EUR", provider="mock") == 1
    assert value(found, "raw_cost_total", currency="EUR", provider="mock") is None
    assert value(found, "billed_cost_total", currency="points", provider="mock") == 30
    assert value(found, "tokens_total", provider="mock", type="cached") == 16
    assert "org_1" not in metrics.exposition()[0].decode()


def test_a_replayed_answer_costs_nothing(metrics):
    metrics(replace(REQUEST, replayed=True, unit="USD", raw_cost=5, billed_cost=5))
    found = samples(metrics)
    assert value(found, "idempotent_replays_total") == 1
    assert value(found, "tokens_total", provider="mock", type="prompt") is None
    assert value(found, "billed_cost_total", currency="USD", provider="mock") is None


def test_refusals_by_limit(metrics):
    metrics(replace(REQUEST, status=429, limited_by="budget"))
    metrics(REQUEST)
    assert value(samples(metrics), "limit_refusals_total", what="budget") == 1


def test_the_ledger_in_numbers(metrics):
    metrics(LedgerSnapshot(waiting=5, oldest_seconds=2.5, orphans=2))
    metrics(LedgerSnapshot(waiting=3, oldest_seconds=1.5, orphans=3))
    metrics(LedgerDrift(account_id="acct_1", provider="openai_api", kind="foreign", points=40, entries=1))
    metrics(LedgerDrift(account_id="acct_1", provider="openai_api", kind="foreign", points=2, entries=1))
    found = samples(metrics)
    assert (value(found, "ledger_waiting"), value(found, "ledger_oldest_seconds")) == (3, 1.5)
    assert value(found, "orphans_total") == 3, "the record holds all since the start"
    assert value(found, "ledger_drift_points_total", provider="openai_api", kind="foreign") == 42
    assert "acct_1" not in metrics.exposition()[0].decode()


def test_a_snapshot_replaces_the_last_one(metrics):
    metrics(PoolSnapshot(accounts={"mock": {"active": 3}, "poe_web": {"invalid": 1}}, points={"mock": 9}, inflight=4))
    metrics(PoolSnapshot(accounts={"mock": {"cooldown": 3}}, inflight=1, waiting=2))
    found = samples(metrics)
    assert value(found, "accounts", provider="mock", state="active") == 0
    assert value(found, "accounts", provider="mock", state="cooldown") == 3
    assert value(found, "accounts", provider="poe_web", state="invalid") == 0
    assert value(found, "pool_points", provider="mock") == 0
    assert (value(found, "inflight"), value(found, "waiting")) == (1, 2)


def test_labels_are_bounded_and_hold_no_callers_words(metrics):
    for number in range(300):
        metrics(
            RequestFinished(
                request_id="r",
                route=f"/r/{number}",
                status=404,
                seconds=0,
                model=f"secret words {number}",
                error_code=f"c{number}",
            )
        )
    text = metrics.exposition()[0].decode()
    assert "secret words" not in text
    assert 'model="other"' in text
    assert 'route="other"' in text
    assert 'code="other"' in text
    assert len(text.splitlines()) < 3_000
    metrics(REQUEST)
    assert "somebody" not in metrics.exposition()[0].decode()


def test_too_late_after_the_library_was_loaded(tmp_path):
    with pytest.raises(TooLate):
        configure_multiprocess(tmp_path, {})


WORKER = """
import os, sys, time
from pathlib import Path
from poe_gateway.telemetry.processes import configure_multiprocess
directory = Path(sys.argv[1])
configure_multiprocess(directory, os.environ)
from poe_gateway.telemetry.metrics import Metrics
from poe_gateway.telemetry.events import LoopLag, PoolSnapshot, RequestFinished
metrics = Metrics(known_model=lambda name: True, directory=directory)
for _ in range(int(sys.argv[2])):
    metrics(RequestFinished(request_id="r", route="/x", status=200, seconds=1))
metrics(PoolSnapshot(accounts={"mock": {"active": 5}}, points={"mock": 100}, inflight=int(sys.argv[2])))
print("ready", flush=True)
for line in sys.stdin:
    print(metrics.exposition()[0].decode() + "# end", flush=True)
"""


class Worker:
    def __init__(self, directory: Path, requests: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(directory), str(requests)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def scrape(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        text = ""
        while not text.endswith("# end\n"):
            text += self.process.stdout.readline()
        return parsed(text)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def test_several_processes_are_one_and_the_killed_one_leaves_no_ghost(tmp_path):
    labels = {"route": "/x", "model": "", "provider": "", "stream": "false", "status_class": "2xx"}
    workers = [Worker(tmp_path, 3), Worker(tmp_path, 4)]
    try:
        found = workers[0].scrape()
        assert value(found, "requests_total", **labels) == 7
        assert value(found, "inflight") == 7
        assert value(found, "accounts", provider="mock", state="active") == 5
        assert value(found, "pool_points", provider="mock") == 100
        workers[1].kill()
        workers.append(Worker(tmp_path, 1))
        found = workers[0].scrape()
        assert value(found, "requests_total", **labels) == 8, "a counter never falls while a sibling lives"
        assert value(found, "inflight") == 4
    finally:
        for worker in workers:
            worker.kill()
    assert list(tmp_path.glob("*.db"))
    clear_stale(tmp_path)
    assert not list(tmp_path.glob("*.db")), "nobody lives: a new beginning"


def test_marking_a_process_dead_takes_its_living_gauges_only(tmp_path):
    for name in (
        "gauge_livesum_4711.db",
        "gauge_mostrecent_4711.db",
        "counter_4711.db",
        f"gauge_livesum_{os.getpid()}.db",
    ):
        (tmp_path / name).touch()
    mark_process_dead(4711, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "gauge_mostrecent_4711.db",
        "counter_4711.db",
        f"gauge_livesum_{os.getpid()}.db",
    }
