"""The backtest on small records made by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from poe_gateway.pool.decision import Choice, Decision, Try
from poe_gateway.pool.policy import PoolPolicy, Strategy
from poe_gateway.simulation.backtest import BadPolicy, compared, policy_with, recorded, replay
from poe_gateway.simulation.records import AccountFacts, BadRecords, Funds, Records, read_accounts, read_records
from poe_gateway.simulation.virtual_time import BEGIN

POLICY = PoolPolicy(max_inflight=1, acquire_timeout=60.0)


def decision(
    number: int, at: float, *tries: Try, status: int = 200, code: str | None = None, waited: float = 0.0, need: int = 0
) -> Decision:
    choices = [
        Choice(strategy="balanced", account_id=each.account_id, how="chosen", wait_seconds=waited, need=need)
        for each in tries
    ]
    return Decision(
        request_id=f"req_{number}",
        at=BEGIN + timedelta(hours=3, seconds=at),
        key_id="key_1",
        model="gpt",
        offers=["poe"],
        fingerprint=f"f{number}",
        tokens=10,
        choices=choices or [Choice(how=code or "refused", sample={"acc_b": "cooldown"})],
        tries=list(tries),
        status=status,
        error_code=code,
        seconds=sum(each.seconds for each in tries),
    )


def answered(account_id: str, seconds: float = 10.0, points: int | None = 5, number: int = 1) -> Try:
    return Try(number=number, account_id=account_id, outcome="Succeeded", seconds=seconds, points=points)


def failed(account_id: str, outcome: str, **fields: Any) -> Try:
    return Try(
        **{"number": 1, "account_id": account_id, "outcome": outcome, "fate": "not_sent", "seconds": 1.0, **fields}
    )


def lines(*decisions: Decision) -> list[str]:
    return [msgspec.json.encode(each).decode() for each in decisions]


def test_records_are_read_in_order_of_arrival_and_bad_lines_are_named() -> None:
    records = read_records(["", *lines(decision(2, 5.0, answered("acc_a")), decision(1, 0.0, answered("acc_a")))])
    assert [each.request_id for each in records.decisions] == ["req_1", "req_2"]
    with pytest.raises(BadRecords, match="line 2"):
        read_records([*lines(decision(1, 0.0)), '{"request_id": 7}'])
    with pytest.raises(BadRecords, match="no decision records"):
        read_records(["\n"])


def test_the_pool_is_what_the_records_name() -> None:
    records = Records([decision(1, 0.0, answered("acc_a")), decision(2, 1.0, status=503, code="all_cooling")])
    assert records.offers == {"acc_a": "poe", "acc_b": "poe"}
    assert records.strategy() == "balanced"


def test_what_really_happened() -> None:
    course = recorded(
        Records(
            [
                decision(1, 0.0, answered("acc_a"), waited=2.0),
                decision(2, 1.0, failed("acc_a", "RateLimited"), answered("acc_b", number=2)),
                decision(3, 2.0, failed("acc_a", "Depleted"), status=402, code="all_depleted"),
            ]
        )
    )
    assert (course.requests, course.served, course.failed_over) == (3, 2, 1)
    assert course.refused == {"all_depleted": 1}
    assert course.work == {"acc_a": 1, "acc_b": 1}
    assert course.dry == {"acc_a": 2.0}
    assert max(course.waits) == 2.0


def test_fewer_slots_make_callers_wait() -> None:
    """Four requests of ten seconds come at once to two accounts."""
    records = Records([decision(n, 0.0, answered("acc_a" if n % 2 else "acc_b")) for n in range(4)])
    wide, narrow = replay(records, policy_with(["max_inflight=2"])), replay(records, POLICY)
    assert (wide.served, narrow.served) == (4, 4)
    assert max(wide.waits) == 0.0
    assert narrow.waits == [0.0, 0.0, 10.0, 10.0]
    alone = replay(records, policy_with(["max_inflight=1", "global_inflight=1", "acquire_timeout=60"]))
    assert alone.waits == [0.0, 10.0, 20.0, 30.0]


def test_impatient_callers_are_refused() -> None:
    records = Records([decision(n, 0.0, answered("acc_a")) for n in range(3)])
    course = replay(records, policy_with(["max_inflight=1", "acquire_timeout=15"]))
    assert course.served == 2
    assert course.refused == {"saturated": 1}


def test_a_full_queue_refuses_at_once() -> None:
    records = Records([decision(n, 0.0, answered("acc_a")) for n in range(4)])
    course = replay(records, policy_with(["max_inflight=1", "queue_limit=1"]))
    assert course.served == 2
    assert course.refused == {"queue_full": 2}


def test_the_strategy_moves_the_work() -> None:
    records = Records([decision(n, 20.0 * n, answered(f"acc_{'ab'[n % 2]}")) for n in range(10)])
    even, single = replay(records, POLICY), replay(records, policy_with(["strategy=single"]))
    assert even.work == {"acc_a": 5, "acc_b": 5}
    assert even.gini(2) == 0.0
    assert single.busiest == 1.0
    assert single.gini(2) == 0.5


def test_a_recorded_failure_happens_again_on_its_account_only() -> None:
    """The request failed on acc_a and was answered by acc_b; where it goes to acc_b first, nothing fails."""
    records = Records([decision(1, 0.0, failed("acc_a", "RateLimited"), answered("acc_b", number=2))])
    first_a = replay(records, POLICY, [AccountFacts(id="acc_a", priority=1)])
    first_b = replay(records, POLICY, [AccountFacts(id="acc_b", priority=1)])
    assert (first_a.served, first_a.failed_over) == (1, 1)
    assert (first_b.served, first_b.failed_over) == (1, 0)


def test_what_was_charged_to_the_request_fails_everywhere() -> None:
    refused = failed("acc_a", "Rejected", charged_to="request")
    records = Records(
        [decision(1, 0.0, refused, status=400, code="upstream_rejected"), decision(2, 1.0, answered("acc_b"))]
    )
    course = replay(records, POLICY, [AccountFacts(id="acc_b", priority=1)])
    assert course.served == 1
    assert course.refused == {"upstream_rejected": 1}


def test_a_challenge_lasts_until_the_account_was_seen_to_succeed_again() -> None:
    challenge = failed("acc_a", "Challenged")
    records = Records(
        [
            decision(1, 0.0, challenge, status=502, code="account_unavailable"),
            decision(2, 100.0, answered("acc_b")),
            decision(3, 5000.0, answered("acc_a")),
        ]
    )
    assert records.failure(records.decisions[1], "acc_a", records.decisions[1].at) is not None
    assert records.failure(records.decisions[2], "acc_a", records.decisions[2].at + timedelta(seconds=1)) is None


def test_points_run_out_where_they_ran_out_then_and_may_be_told() -> None:
    spent = [decision(n, 20.0 * n, answered("acc_a", points=40)) for n in range(5)]
    records = Records([*spent, decision(9, 200.0, failed("acc_a", "Depleted"), status=402, code="all_depleted")])
    assert records.funds("acc_a") == 200
    assert records.funds("acc_b") is None
    rich = replay(records, POLICY, [AccountFacts(id="acc_a", balance=Funds(points=10_000))])
    poor = replay(records, POLICY, [AccountFacts(id="acc_a", balance=Funds(points=60))])
    assert rich.served == 5  # the last one was depleted in the records
    assert poor.served < 3
    assert poor.refused["all_depleted"] == 6 - poor.served


def test_a_replay_is_the_same_every_time() -> None:
    records = Records([decision(n, n % 7, answered(f"acc_{'abc'[n % 3]}")) for n in range(30)])
    assert replay(records, POLICY) == replay(records, POLICY)


def test_settings_of_a_policy() -> None:
    policy = policy_with(["max_inflight=3", "cooldown=9.5", "strategy=fill_first", "reset.hour=4"], {"queue_limit": 7})
    assert (policy.max_inflight, policy.cooldown, policy.strategy, policy.reset.hour, policy.queue_limit) == (
        3,
        9.5,
        Strategy.FILL_FIRST,
        4,
        7,
    )
    for bad, why in (("max_inflight", "key=value"), ("colour=red", "no setting 'colour'"), ("cooldown=long", "fit")):
        with pytest.raises(BadPolicy, match=why):
            policy_with([bad])


def test_lists_of_accounts_as_the_admin_api_gives_them() -> None:
    text = '{"data": [{"id": "acc_a", "intent": "paused", "labels": ["x"], "balance": {"points": 12}, "words": 1}]}'
    (facts,) = read_accounts(text)
    assert facts == AccountFacts(id="acc_a", intent="paused", labels=["x"], balance=Funds(points=12))
    assert read_accounts('[{"id": "acc_b"}]') == [AccountFacts(id="acc_b")]
    with pytest.raises(BadRecords, match="accounts"):
        read_accounts("[1]")


def test_a_paused_account_is_not_used() -> None:
    records = Records([decision(n, 20.0 * n, answered("acc_a")) for n in range(3)])
    course = replay(records, POLICY, [AccountFacts(id="acc_a", intent="paused"), AccountFacts(id="acc_b", offer="poe")])
    assert course.work == {"acc_b": 3}


def test_the_table_compares() -> None:
    records = Records([decision(n, 0.0, answered("acc_a")) for n in range(3)])
    rows = compared({"A": recorded(records), "B": replay(records, POLICY)}, 1)
    assert ("requests", "3", "3") in rows
    assert ("wait max", "0.00 s", "20.00 s") in rows
    assert ("share of the busiest", "100%", "100%") in rows
