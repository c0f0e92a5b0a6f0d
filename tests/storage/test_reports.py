"""Sums, rows and lives as MongoDB tells them, over rows written by hand."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from poe_gateway.errors import InvalidRequest
from poe_gateway.metering.account_cost import cost_lines
from poe_gateway.metering.reports import Cost, Dimension, Figures, Filter, Line, collected, first_of, total
from poe_gateway.pool.account import Cause, Health, State
from poe_gateway.storage.account_admin import MongoAccountAdmin
from poe_gateway.storage.client import Database
from poe_gateway.storage.reports import MongoReports, pipeline
from poe_gateway.storage.schema import FORMER_ACCOUNTS
from tests.storage.ledger_rows import CENT, NOON, correction, ledger_row
from tests.storage.making import account, insert

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
async def nobody_left(db: Database) -> None:
    """Other tests delete accounts too."""
    await db[FORMER_ACCOUNTS].delete_many({})


async def lines(db: Database, *by: Dimension, where: Filter | None = None, zone: str | None = None) -> list[Line]:
    async with aclosing(MongoReports(db).groups(by, where or Filter(), zone)) as groups:
        return (await collected(groups, 1_000))[0]


async def put(db: Database, *rows: dict[str, Any]) -> None:
    await db.ledger.insert_many(rows)


async def test_figures_are_exact_and_hold_corrections(db: Database) -> None:
    orphan = ledger_row(6, status="orphaned", raw_cost=None, points=50, billed_cost=9 * CENT, corrected_at=NOON)
    await put(
        db,
        ledger_row(1),
        ledger_row(2, attempt=2, request_id="req_1", account_id="acct_2"),
        ledger_row(3, status="failed", unit=None, raw_cost=None, billed_cost=None, points=None, prompt_tokens=0),
        ledger_row(4, status="cancelled", unit="EUR"),
        ledger_row(5, billed_cost=None, raw_cost=None, unit=None),
        orphan,
        correction(orphan, points=-50, billed_cost=-9 * CENT, raw_cost=1),
    )
    [line] = await lines(db)
    assert line.figures == Figures(
        requests=5,
        attempts=6,
        succeeded=3,
        failed=1,
        cancelled=1,
        orphaned=1,
        prompt_tokens=50,
        completion_tokens=30,
        cached_tokens=12,
        points=28,
        unpriced=1,
        corrections=1,
        corrected_points=-50,
    )
    assert line.costs == {
        "USD": Cost(raw=4 * CENT + 1, billed=6 * CENT, corrected=-9 * CENT),
        "EUR": Cost(raw=2 * CENT, billed=3 * CENT),
    }
    by_status = {each.keys[0]: each.figures.attempts for each in await lines(db, "status")}
    assert by_status == {"succeeded": 3, "failed": 1, "cancelled": 1, "orphaned": 1, "correction": 0}


async def test_large_amounts_stay_exact_and_too_large_ones_are_refused(db: Database) -> None:
    large = 2**53 + 1
    await put(db, ledger_row(1, billed_cost=large), ledger_row(2, billed_cost=large))
    [line] = await lines(db)
    assert line.costs["USD"].billed == 2 * large
    await put(db, ledger_row(3, billed_cost=2**63 - 1))
    with pytest.raises(InvalidRequest):
        await lines(db)


async def test_lines_by_three_dimensions_in_order(db: Database) -> None:
    await put(
        db,
        ledger_row(1, key_id="key_2"),
        ledger_row(2, model="claude"),
        ledger_row(3, at=NOON - timedelta(days=1), org="org_b"),
        ledger_row(4, at=NOON + HOUR),
    )
    found = await lines(db, "day", "key", "model")
    assert [each.keys for each in found] == [
        ("2026-11-19", "key_1", "gpt-4o"),
        ("2026-11-20", "key_1", "claude"),
        ("2026-11-20", "key_1", "gpt-4o"),
        ("2026-11-20", "key_2", "gpt-4o"),
    ]
    assert [each.keys for each in await lines(db, "month", "org")] == [("2026-11", "default"), ("2026-11", "org_b")]
    assert total(found) == total(await lines(db)), "lines add up to the whole"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("org", "org_x"), ("key", "key_x"), ("model", "m"), ("account", "acct_x"), ("provider", "mock")],
        *[("status", "failed"), ("request", "req_x")],
    ],
)
async def test_filters(db: Database, field: str, value: str) -> None:
    stored = {"key": "key_id", "account": "account_id", "request": "request_id"}.get(field, field)
    await put(db, ledger_row(1), ledger_row(2, **{stored: value}))
    [line] = await lines(db, where=Filter(**{field: value}))
    assert line.figures.attempts == 1
    page = await MongoReports(db).rows(Filter(**{field: value}), 10)
    assert [each["_id"] for each in page.rows] == ["spool_a-2"]


async def test_a_time_begins_with_its_first_moment_and_ends_before_its_last(db: Database) -> None:
    await put(db, ledger_row(1, at=NOON), ledger_row(2, at=NOON + HOUR))
    [line] = await lines(db, where=Filter(since=NOON, until=NOON + HOUR))
    assert line.figures.attempts == 1
    assert await lines(db, where=Filter(since=NOON + 2 * HOUR)) == []


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("Europe/Berlin", "2026-11-20", 24),
        ("America/Los_Angeles", "2026-11-01", 25),
        ("America/Santiago", "2026-09-06", 23),  # the clocks go from midnight to one
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("UTC", "2026-03-29", 24),
    ],
)
async def test_days_of_a_zone(db: Database, zone: str, day: str, hours: float) -> None:
    local = ZoneInfo(zone)
    begin = first_of(datetime.fromisoformat(day).date(), local)
    step = timedelta(minutes=30)
    rows = [ledger_row(number, at=begin - HOUR + number * step) for number in range(56)]
    await put(db, *rows)
    found = {each.keys[0]: each.figures.attempts for each in await lines(db, "day", zone=zone)}
    assert found[day] == hours * 2
    assert sum(found.values()) == 56 and len(found) == 3
    until = first_of(datetime.fromisoformat(day).date() + timedelta(days=1), local)
    [bounded] = await lines(db, "day", where=Filter(since=begin, until=until), zone=zone)
    assert bounded.keys == (day,) and bounded.figures.attempts == hours * 2, "python and the server agree"


async def test_the_hour_that_comes_twice(db: Database) -> None:
    begin = datetime(2026, 10, 25, 0, 0, tzinfo=UTC)
    await put(db, *[ledger_row(number, at=begin + number * HOUR / 2) for number in range(4)])
    found = await lines(db, "hour", zone="Europe/Berlin")
    assert [(each.keys[0], each.figures.attempts) for each in found] == [
        ("2026-10-25T02:00+02:00", 2),
        ("2026-10-25T02:00+01:00", 2),
    ]


async def test_a_zone_that_the_server_does_not_know(db: Database) -> None:
    await put(db, ledger_row(1))
    with pytest.raises(InvalidRequest):
        await lines(db, "day", zone="posixrules" if _has("posixrules") else "Factory")


def _has(zone: str) -> bool:
    try:
        ZoneInfo(zone)
    except KeyError:
        return False
    return True


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (Filter(), "moment"),
        (Filter(org="org_a"), "org"),
        (Filter(key="key_1"), "key"),
        (Filter(account="acct_1"), "account"),
    ],
)
async def test_a_report_over_a_time_reads_an_index(db: Database, where: Filter, index: str) -> None:
    many = [
        ledger_row(number, at=NOON - number * HOUR, key_id=f"key_{number % 40}", account_id=f"acct_{number % 40}",
                   org=f"org_{number % 40}")
        for number in range(2_000)
    ]  # fmt: skip
    await put(db, *many)
    bounded = replace(where, since=NOON - 5 * HOUR, until=NOON)
    question = {"aggregate": "ledger", "pipeline": pipeline(("day", "model"), bounded, "UTC"), "cursor": {}}
    plan = str(await db.command("explain", question, verbosity="queryPlanner"))
    winning = plan.partition("'winningPlan'")[2].partition("'rejectedPlans'")[0]
    assert "COLLSCAN" not in winning and f"'indexName': '{index}'" in winning


async def test_rows_newest_first_and_no_moment_torn_apart(db: Database) -> None:
    moments = (1, 2, 3, 3, 3, 4)
    await put(db, *[ledger_row(number, at=NOON + moment * HOUR) for number, moment in enumerate(moments)])
    reports = MongoReports(db)
    first = await reports.rows(Filter(), 2)
    assert [each["_id"] for each in first.rows] == ["spool_a-5", "spool_a-4", "spool_a-3", "spool_a-2"]
    second = await reports.rows(Filter(), 2, first.before)
    assert [each["_id"] for each in second.rows] == ["spool_a-1", "spool_a-0"]
    last = await reports.rows(Filter(), 2, second.before)
    assert last.rows == [] and last.before is None


async def test_rows_by_their_id_and_by_the_request(db: Database) -> None:
    first = ledger_row(1, request_id="req")
    await put(db, first, ledger_row(2, request_id="req", attempt=2, at=NOON + HOUR), correction(first, points=1))
    reports = MongoReports(db)
    ids = ["spool_a-1", "spool_a-1~", "spool_a-2"]
    assert [each["_id"] for each in await reports.found("req")] == ids
    assert [each["_id"] for each in await reports.found("spool_a-1")] == ids[:2]
    assert [each["_id"] for each in await reports.found("spool_a-1~")] == ids[1:2]
    assert await reports.found("nothing") == []


async def test_lives_of_accounts_and_what_they_delivered(db: Database) -> None:
    bought = NOON - timedelta(days=40)
    dead = Health(state=State.INVALID, cause=Cause.UNAUTHORIZED, since=bought + timedelta(days=2))
    terms: dict[str, Any] = {"batch": "b1", "vendor": "shop", "purchase_price": 250 * CENT, "currency": "EUR"}
    await insert(
        db,
        [
            account(1, purchased_at=bought, **terms),
            account(2, purchased_at=bought, health=dead, expires_at=NOON, **terms),
            account(3, purchased_at=bought, **terms),
            account(4, demo=True),
            account(5, provider="poe_web", created_at=NOON),
        ],
    )
    row = ledger_row(1, account_id="acct_00001", points=1_500)
    await put(
        db,
        row,
        correction(row, points=-500),
        ledger_row(2, account_id="acct_00003", points=4_000, attempt=2),
        ledger_row(3, account_id="acct_00003", points=100, at=NOON - timedelta(days=99)),
    )
    admin, reports = MongoAccountAdmin(db), MongoReports(db)
    assert await admin.delete("acct_00003") and not await admin.delete("acct_00003")
    assert await admin.delete("acct_00004")
    lives = {each.account_id: each for each in await reports.lifetimes(Filter(since=bought))}
    assert set(lives) == {"acct_00001", "acct_00002", "acct_00003", "acct_00005"}
    one, two, three, five = (lives[key] for key in sorted(lives))
    assert (one.points, one.requests, one.attempts, one.ended_at) == (1_000, 1, 1, None)
    assert (two.ended_by, two.ended_at, two.expires_at, two.points) == ("invalid", dead.since, NOON, 0)
    assert (three.ended_by, three.name, three.batch, three.points) == ("deleted", None, "b1", 4_000)
    assert (three.requests, three.attempts, three.began_at) == (0, 1, bought)
    assert five.price is None and five.began_at == NOON and five.batch is None
    [b1, rest] = cost_lines(lives.values(), "batch", NOON)
    assert (b1.group, b1.accounts, b1.in_service, b1.deleted, b1.invalid, b1.points) == ("b1", 3, 1, 1, 1, 5_000)
    assert b1.prices["EUR"].per_1000("EUR") == Decimal("1.5")
    assert rest.group is None and rest.accounts == 1 and rest.prices == {}
    assert {each.account_id for each in await reports.lifetimes(Filter(provider="poe_web"))} == {"acct_00005"}


async def test_what_is_left_of_a_deleted_account_has_no_name(db: Database) -> None:
    await insert(db, [account(1, batch="b")])
    await MongoAccountAdmin(db).delete("acct_00001")
    left = await db[FORMER_ACCOUNTS].find_one({"_id": "acct_00001"})
    assert left is not None and "user1" not in str(left).lower() and left["batch"] == "b"


async def test_an_account_whose_deletion_did_not_come_through_lives(db: Database) -> None:
    await insert(db, [account(1)])
    await db[FORMER_ACCOUNTS].insert_one(
        {"_id": "acct_00001", "provider": "mock", "created_at": NOON, "deleted_at": NOON}
    )
    [life] = await MongoReports(db).lifetimes(Filter())
    assert life.ended_at is None
