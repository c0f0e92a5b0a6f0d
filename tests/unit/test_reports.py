"""Values of the reports: moments, CSV, the folding of currencies, cost of accounts and survival."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from poe_gateway.api.figures import period
from poe_gateway.errors import InvalidRequest
from poe_gateway.metering.account_cost import Lifetime, cost_lines, survival
from poe_gateway.metering.reports import (
    Cost,
    Figures,
    Group,
    collected,
    csv_cells,
    csv_heads,
    csv_text,
    moment,
    total,
)

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "end", "wanted"),
    [
        ("2026-11-01", False, datetime(2026, 10, 31, 23, tzinfo=UTC)),
        ("2026-11-01", True, datetime(2026, 11, 1, 23, tzinfo=UTC)),
        ("2026-10-25", True, datetime(2026, 10, 25, 23, tzinfo=UTC)),
        ("2026-03-29", False, datetime(2026, 3, 28, 23, tzinfo=UTC)),
        ("2026-03-29", True, datetime(2026, 3, 29, 22, tzinfo=UTC)),
        ("2026-11-01T08:00", True, datetime(2026, 11, 1, 7, tzinfo=UTC)),
        ("2026-11-01T08:00:00Z", False, datetime(2026, 11, 1, 8, tzinfo=UTC)),
        ("2026-11-01T08:00:00-05:00", False, datetime(2026, 11, 1, 13, tzinfo=UTC)),
        (" 2026-11-01 ", False, datetime(2026, 10, 31, 23, tzinfo=UTC)),
    ],
)
def test_moments(text: str, end: bool, wanted: datetime) -> None:
    assert moment(text, BERLIN, end=end) == wanted


@pytest.mark.parametrize("text", ["", "today", "2026-13-01", "2026-02-30", "9999-12-31T23:59:59-23:00", "1"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="write a date"):
        moment(text, BERLIN)


@pytest.mark.parametrize("text", ["9999-12-31", "0001-01-01"])
def test_dates_at_the_ends_of_the_calendar_are_refused_or_taken_but_never_fail_otherwise(text: str) -> None:
    for end in (False, True):
        try:
            assert moment(text, BERLIN, end=end).tzinfo is UTC
        except ValueError as error:
            assert "write a date" in str(error)


def test_a_period_without_ends_is_thirty_days_with_this_one() -> None:
    over = period(None, None, "Europe/Berlin", NOON)
    assert over.since == datetime(2026, 10, 21, 22, tzinfo=UTC), "the clocks have changed since"
    assert over.since.astimezone(BERLIN).isoformat() == "2026-10-22T00:00:00+02:00"
    assert over.until > NOON
    ended = period(None, "2026-11-30", "UTC", NOON)
    assert (ended.since, ended.until) == (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("since", "until", "zone", "param"),
    [
        ("2026-11-02", "2026-11-01", "UTC", "to"),
        ("x", None, "UTC", "from"),
        (None, "x", "UTC", "to"),
        (None, None, "Nowhere/Land", "zone"),
        (None, None, "../etc/passwd", "zone"),
        (None, None, "America", "zone"),
    ],
)
def test_periods_that_are_refused(since: str | None, until: str | None, zone: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as told:
        period(since, until, zone, NOON)
    assert told.value.param == param


def group(*keys: str | None, unit: str | None = None, attempts: int = 1, billed: int = 0) -> Group:
    return Group(keys=keys, unit=unit, figures=Figures(attempts=attempts), cost=Cost(billed=billed))


async def stream(*groups: Group) -> AsyncGenerator[Group, None]:
    for each in groups:
        yield each


async def test_currencies_of_one_line_are_kept_apart() -> None:
    groups = [group("a"), group("a", unit="EUR", billed=5), group("a", unit="USD", billed=7), group("b", unit="USD")]
    lines, truncated = await collected(stream(*groups), 2)
    assert not truncated and [each.keys for each in lines] == [("a",), ("b",)]
    assert lines[0].figures.attempts == 3
    assert lines[0].costs == {"EUR": Cost(billed=5), "USD": Cost(billed=7)}
    assert total(lines).figures.attempts == 4 and total(lines).costs["USD"] == Cost(billed=7)
    assert await collected(stream(*groups), 1) == (lines[:1], True)
    assert await collected(stream(), 1) == ([], False)


FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What spreadsheets take for the beginning of a formula, or skip before one."""
CELLS = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12), max_size=4)


@given(st.lists(CELLS.filter(bool), max_size=6))
def test_csv_reads_back_and_holds_no_formula(rows: list[list[str]]) -> None:
    text = csv_text(rows)
    back = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    for row, read in zip(rows, back, strict=True):
        for cell, told in zip(row, read, strict=True):
            assert told in (cell, f"'{cell}")
            assert not told.startswith(FORMULAS)
            assert (told == cell) != cell.startswith(FORMULAS)


def test_csv_of_a_report() -> None:
    one = group("2026-11-20", "key_1", unit="USD", billed=-12_500_000)
    rows = [csv_heads(("day", "key"), ("key",)), csv_cells(one, ['=cmd|"x"'])]
    text = csv_text(rows)
    assert text.count("\r\n") == 2 and text.endswith("\r\n")
    [line] = csv.DictReader(io.StringIO(text, newline=""))
    assert line["key_name"] == '\'=cmd|"x"'
    assert (line["currency"], line["billed_cost"], line["raw_cost"]) == ("USD", "-0.125", "0"), "a number stays one"
    assert line["attempts"] == "1" and line["day"] == "2026-11-20"
    assert csv_cells(group("x"), [])[-4:] == [None] * 4


def life(number: int = 1, **fields: Any) -> Lifetime:
    made: dict[str, Any] = {"account_id": f"acct_{number}", "name": f"n{number}", "provider": "mock"}
    return Lifetime(**{**made, "began_at": NOON - 10 * DAY, **fields})


def test_survival_counts_those_that_are_old_enough() -> None:
    lives = [
        life(1),
        life(2, ended_at=NOON - 9 * DAY, ended_by="deleted"),  # after one day
        life(3, ended_at=NOON - 5 * DAY, ended_by="invalid"),  # after five
        life(4, began_at=NOON - 2 * DAY),
    ]
    told = [(each.days, each.of, each.alive, str(each.share)) for each in survival(lives, NOON)]
    assert told == [(1, 4, 4, "1.0000"), (3, 3, 2, "0.6667"), (7, 3, 1, "0.3333")]
    assert survival([], NOON) == () and survival([life(began_at=NOON + DAY)], NOON) == ()


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400) | st.none()), max_size=20))
def test_survival_is_a_share_of_fewer_and_fewer(ages: list[tuple[int, int | None]]) -> None:
    lives = [
        life(began_at=NOON - age * DAY, ended_at=None if lived is None else NOON - age * DAY + lived * DAY)
        for age, lived in ages
    ]
    told = survival(lives, NOON)
    assert all(0 <= each.alive <= each.of for each in told)
    assert [each.of for each in told] == sorted((each.of for each in told), reverse=True)
    assert [each.alive for each in told] == sorted((each.alive for each in told), reverse=True)


def test_cost_by_batch_vendor_and_account() -> None:
    euro = {"price": 300_000_000, "currency": "EUR"}
    lives = [
        life(1, batch="b", vendor="v", points=2_000, requests=3, **euro),
        life(2, batch="b", points=1_000, price=100_000_000),
        life(3, batch="b", points=500),
        life(4, points=0, expires_at=NOON, **euro),
        life(5, batch="a", ended_at=NOON - 4 * DAY, ended_by="invalid", expires_at=NOON),
    ]
    a, b, rest = cost_lines(lives, "batch", NOON)
    assert [a.group, b.group, rest.group] == ["a", "b", None]
    assert (b.accounts, b.points, b.requests, b.days) == (3, 3_500, 3, Decimal(30))
    assert b.prices["EUR"].per_1000("EUR") == Decimal("1.5")
    assert b.prices["USD"].per_1000("USD") == 1, "points of accounts without a price or of another currency stay out"
    assert rest.prices["EUR"].per_1000("EUR") is None and rest.expired == 1
    assert (a.in_service, a.invalid, a.expired, a.days) == (0, 1, 0, Decimal(6)), "an end is told once"
    assert [each.name for each in cost_lines(lives, "account", NOON)] == ["n1", "n2", "n3", "n4", "n5"]
    assert [each.group for each in cost_lines(lives, "vendor", NOON)] == ["v", None]
    assert cost_lines([], "batch", NOON) == []


def test_cost_is_rounded_once_half_to_even() -> None:
    [line] = cost_lines([life(points=3, price=1)], "account", NOON)
    assert str(line.prices["USD"].per_1000("USD")) == "0.00000333"
    assert replace(life(), ended_at=NOON - 20 * DAY).days(NOON) == 0, "never below nothing"
