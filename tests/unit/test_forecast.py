"""The outlook: points by hour, renewals at their own hours, what can still be paid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.pool.account import Account, Balance, Cause, Intent, ResetClock, State
from poe_gateway.pool.forecast import Forecast, forecast
from poe_gateway.pool.policy import DailyReset
from poe_gateway.pool.prices import Price, Sample, estimate
from poe_gateway.pool.usage import Rate, UsageRow, ewma
from tests.unit.builders import NOON, account, health

RESET = DailyReset(points=1000)
HOUR = timedelta(hours=1)


def row(hours_ago: float, requests: int = 1, points: int = 10, model: str = "m", offer: str = "mock") -> UsageRow:
    return UsageRow(hour=NOON - hours_ago * HOUR, offer=offer, model=model, requests=requests, points=points)


def priced(*points: int) -> Price:
    price = estimate([Sample(each, 0, NOON) for each in points])
    assert price is not None
    return price


def holding(account_id: str, points: int | None, **fields: Any) -> Account:
    allotment = fields.pop("allotment", 1000)
    return account(account_id, balance=Balance(points=points, allotment=allotment), **fields)


def outlook(accounts: list[Account], per_hour: float, price: int = 20, **fields: Any) -> Forecast:
    return forecast(
        accounts,
        {("mock", "m"): Rate(per_hour / 20, per_hour)},
        {("mock", "m"): priced(price)},
        NOON,
        reset=RESET,
        threshold=20,
        **fields,
    )


class TestRates:
    def test_no_use(self) -> None:
        assert ewma([], NOON) == {}

    def test_steady_use_is_its_own_mean(self) -> None:
        rates = ewma([row(n, 5, 100) for n in range(1, 49)], NOON)
        assert rates["mock", "m"].requests == pytest.approx(5, rel=1e-6)
        assert rates["mock", "m"].points == pytest.approx(100, rel=1e-6)

    def test_half_an_hour_counts_as_half(self) -> None:
        now = NOON + 0.5 * HOUR
        rates = ewma([row(0, 5, 50), *(row(n, 10, 100) for n in range(1, 49))], now)
        assert rates["mock", "m"].points == pytest.approx(100, rel=1e-6)

    def test_newer_hours_count_more(self) -> None:
        rising = ewma([row(1, points=100), row(13, points=10)], NOON)["mock", "m"].points
        falling = ewma([row(1, points=10), row(13, points=100)], NOON)["mock", "m"].points
        assert rising > 2 * falling

    def test_half_life(self) -> None:
        """After a long silence the mean halves with every half-life."""
        rows = [row(n) for n in range(1, 50)]
        first = ewma(rows, NOON)["mock", "m"].points
        later = ewma(rows, NOON + 6 * HOUR)["mock", "m"].points
        assert later == pytest.approx(first / 2, rel=0.01)

    def test_models_and_offers_are_apart(self) -> None:
        rates = ewma([row(1, model="a", points=10), row(1, model="b", points=30), row(1, offer="x", points=7)], NOON)
        assert {key: rate.points for key, rate in rates.items()} == {
            ("mock", "a"): 10,
            ("mock", "b"): 30,
            ("x", "m"): 7,
        }

    def test_old_rows_do_not_count(self) -> None:
        assert ewma([row(24 * 10)], NOON) == {}


class TestOffers:
    def test_points_run_out_and_come_back_at_midnight(self) -> None:
        """1,960 points above the threshold, 500 an hour; midnight in Los Angeles is twelve hours away."""
        (offer,) = outlook([holding("a", 1000), holding("b", 1000)], 500).offers
        assert [hour.available for hour in offer.hours[:5]] == [1960, 1460, 960, 460, 0]
        assert offer.depleted_at == NOON + 3 * HOUR
        assert offer.hours[12].renewed == 1960 and offer.hours[12].accounts_renewed == 2
        assert offer.hours[13].available == 1460
        assert [hour.at for hour in offer.hours] == [NOON + n * HOUR for n in range(24)]
        assert {hour.use for hour in offer.hours} == {500}

    def test_enough_lasts(self) -> None:
        (offer,) = outlook([holding("a", 1000)], 30).offers
        assert offer.depleted_at is None

    def test_a_renewal_in_time_saves_the_hour(self) -> None:
        known = ResetClock(low=13 * 3600.0, high=14 * 3600.0, seen=2, last_jump_at=NOON)
        late = outlook([holding("a", 500)], 200).offers[0]
        soon = outlook([holding("a", 500, reset_clock=known)], 200).offers[0]
        assert late.depleted_at == NOON + 2 * HOUR
        assert soon.hours[2].renewed == 900 and soon.depleted_at == NOON + 6 * HOUR

    def test_renewals_come_again_every_day(self) -> None:
        (offer,) = outlook([holding("a", 1000)], 10, hours=60).offers
        assert [n for n, hour in enumerate(offer.hours) if hour.renewed] == [12, 36]

    def test_a_renewal_lowers_nothing(self) -> None:
        (offer,) = outlook([holding("a", 5000)], 10).offers
        assert offer.hours[12].renewed == 120, "what was used meanwhile at most"
        assert offer.hours[13].available == 4970

    def test_a_named_grant_comes_once(self) -> None:
        named = Balance(points=100, allotment=1000, next_grant_at=NOON + 3.5 * HOUR)
        (offer,) = outlook([account("a", renews_daily=False, balance=named)], 10, hours=48).offers
        assert [n for n, hour in enumerate(offer.hours) if hour.renewed] == [3]

    def test_no_renewal_is_invented(self) -> None:
        (offer,) = outlook([holding("a", 100, renews_daily=False, allotment=None)], 10).offers
        assert not any(hour.renewed for hour in offer.hours)

    def test_who_counts(self) -> None:
        (offer,) = outlook(
            [
                holding("paused", 500, intent=Intent.PAUSED),
                holding("invalid", 500, health=health(State.INVALID, Cause.UNAUTHORIZED)),
                holding("resting", 500, health=health(State.COOLDOWN, Cause.ERRORS, 2)),
                holding("unmeasured", None),
            ],
            10,
        ).offers
        assert (offer.accounts, offer.unmeasured, offer.unmetered) == (2, 1, 0)
        assert offer.hours[0].available == 480

    def test_unmetered_accounts_never_run_out(self) -> None:
        found = outlook([holding("a", 30), account("free", metered=False, renews_daily=False)], 500)
        assert found.offers[0].depleted_at is None and found.offers[0].unmetered == 1
        assert found.models[0].affordable is None and found.models[0].unpaid_at is None

    def test_what_is_kept_for_the_owner_is_not_spent(self) -> None:
        (offer,) = outlook([holding("a", 1000)], 10, kept=lambda each: 300).offers
        assert offer.hours[0].available == 680
        assert offer.hours[13].available == 670

    def test_offers_are_apart(self) -> None:
        found = outlook([holding("a", 100), holding("b", 900, offer="other")], 50)
        assert [(offer.offer, offer.hours[0].available, offer.hours[0].use) for offer in found.offers] == [
            ("mock", 80, 50),
            ("other", 880, 0),
        ]

    @given(
        st.lists(st.tuples(st.integers(0, 3000), st.booleans(), st.integers(0, 86_400)), max_size=12),
        st.floats(0, 3000),
    )
    def test_points_are_neither_made_nor_lost(self, pool: list[tuple[int, bool, int]], use: float) -> None:
        accounts = [
            holding(
                str(number),
                points,
                renews_daily=daily,
                reset_clock=ResetClock(low=max(0, at - 60), high=max(1, at), seen=2, last_jump_at=NOON)
                if daily
                else None,
            )
            for number, (points, daily, at) in enumerate(pool)
        ]
        for offer in outlook(accounts, use, hours=48).offers:
            for now, then in zip(offer.hours, offer.hours[1:], strict=False):
                assert then.available == pytest.approx(max(0, now.available + now.renewed - use), abs=3)


class TestModels:
    @pytest.mark.parametrize(
        "points, price, affordable",
        [(1000, 20, 50), (1019, 20, 50), (39, 20, 1), (20, 20, 1), (19, 20, 0), (1000, 300, 3), (299, 300, 0)],
    )
    def test_requests_that_can_be_paid(self, points: int, price: int, affordable: int) -> None:
        (model,) = outlook([holding("a", points)], 0, price).models
        assert (model.affordable, model.price) == (affordable, price)

    def test_an_account_pays_alone(self) -> None:
        assert outlook([holding(str(n), 250) for n in range(10)], 0, 300).models[0].affordable == 0

    def test_the_dear_model_ends_first(self) -> None:
        found = forecast(
            [holding("a", 1000), holding("b", 600)],
            {("mock", "cheap"): Rate(5, 100.0)},
            {("mock", "cheap"): priced(20), ("mock", "dear"): priced(500), ("mock", "dearest"): priced(2000)},
            NOON,
            reset=RESET,
            threshold=20,
        )
        unpaid = {model.model: model.unpaid_at for model in found.models}
        assert unpaid["dearest"] == NOON
        assert unpaid["dear"] is not None and NOON + 5 * HOUR <= unpaid["dear"] <= NOON + 9 * HOUR
        assert unpaid["cheap"] is None

    def test_a_free_model_has_no_end(self) -> None:
        (model,) = outlook([holding("a", 0)], 0, 0).models
        assert model.affordable is None and model.unpaid_at is None


def test_the_calendar_is_the_accounts_own() -> None:
    """Clocks are put forward at 2:00 on 8 March 2026: from 23:30 on, 3:00 local is two and a half hours away."""
    eve = datetime(2026, 3, 8, 7, 30, tzinfo=UTC)
    found = forecast(
        [holding("a", 100)], {}, {}, eve, reset=DailyReset(hour=3, points=1000), threshold=20, hours=24
    )  # fmt: skip
    assert [n for n, hour in enumerate(found.offers[0].hours) if hour.renewed] == [2]
