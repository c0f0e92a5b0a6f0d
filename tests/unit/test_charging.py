"""The money of one request, on every way out of the walk: each attempt has its row, what is reserved comes back, what
is spent is counted once."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from poe_gateway.auth.keys import Principal
from poe_gateway.chat.events import ChatEvent, Measured, TextDelta, ToolCallDelta
from poe_gateway.chat.request import ChatRequest, Message, TextPart
from poe_gateway.clock import Ids
from poe_gateway.dispatch.charging import Charging
from poe_gateway.dispatch.journey import WalkPolicy
from poe_gateway.dispatch.stream import ChatStream
from poe_gateway.errors import BudgetExceeded, Forbidden, GatewayError, RateLimitExceeded, StoreUnavailable, Unavailable
from poe_gateway.limits.limiter import Limiter
from poe_gateway.limits.memory import MemoryBuckets
from poe_gateway.limits.terms import Budget, Rates, Scope
from poe_gateway.limits.windows import Windows
from poe_gateway.metering.learned import Learned
from poe_gateway.metering.ledger import Ledger
from poe_gateway.metering.memory import MemoryRows
from poe_gateway.metering.pricelist import MemoryPriceRules, PriceDraft, PriceList
from poe_gateway.money import POINTS, UNIT
from poe_gateway.pool.account import Account
from poe_gateway.pool.outcome import AdapterDrift, Cancelled, Depleted, RateLimited, Rejected, Transient
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from tests.unit.builders import account
from tests.unit.walking import Part, Told, Walk

CENT = UNIT // 100
PAID = Measured(prompt_tokens=3, completion_tokens=2, cost="0.01", points=5)
BUSY = UpstreamFailure(RateLimited(retry_after=60))
BROKEN = UpstreamFailure(Transient("x"), Fate.ACCEPTED)
LOST = UpstreamFailure(Transient("x"), Fate.UNKNOWN)


def payer(*budgets: Budget, rates: Rates | None = None, org: str = "default") -> Principal:
    """A key under budgets, a dollar a day unless told otherwise."""
    scope = Scope(kind="key", id="key_1", rates=rates or Rates(), budgets=budgets or (dollars(),))
    return Principal(key_id="key_1", name="one", org=org, scopes=(scope,))


def dollars(amount: str = "1", unit: str = "USD", period: Any = "day") -> Budget:
    return Budget(unit=unit, period=period, amount=int(Decimal(amount) * UNIT))


def points(amount: int) -> Budget:
    return Budget(unit=POINTS, period="day", amount=amount)


class House(Walk):
    """The walk with its money: real limiter, ledger, prices and what is learned, over stores in memory."""

    def __init__(self, directory: Path, *accounts: Account, unpriced: str = "allow", **more: Any) -> None:
        names = ("a", "b", "c")
        super().__init__(*(accounts or [account(name, renews_daily=False) for name in names]), **more)
        self.buckets, self.rows = MemoryBuckets(), MemoryRows()
        self.troubles: list[str] = []
        self.ledger = Ledger(directory, self.rows, self.buckets, self.clock, Ids())
        self.limiter = Limiter(store=self.buckets, process=self.ledger.process, clock=self.clock)
        self.list = PriceList(MemoryPriceRules(), self.clock)
        self.learned = Learned()
        self.dispatcher._charging = Charging(
            ledger=self.ledger,
            limiter=self.limiter,
            windows=Windows(ZoneInfo("UTC")),
            prices=self.list,
            learned=self.learned,
            points=self.prices,
            clock=self.clock,
            unpriced=unpriced,
            trouble=self.troubles.append,
        )

    async def start(self, *rules: PriceDraft) -> House:
        await self.ledger.start()
        for rule in rules:
            await self.list.put(rule)
        return self

    def script(self, *answers: list[Part]) -> None:
        """What attempts meet from now on, in their order; the last goes on for ever."""
        first = len(self.upstream.asked) + 1
        self.upstream.rule = lambda account_id, request: list(
            answers[min(len(self.upstream.asked) - first, len(answers) - 1)]
        )

    async def begin(self, caller: Principal, *, stream: bool = True, text: str = "hi") -> ChatStream:
        self.count += 1
        request = ChatRequest(model="gpt", messages=(Message("user", (TextPart(text),)),), stream=stream)
        return await self.dispatcher.chat(caller, request, f"req_{self.count}")

    async def booked(self) -> list[dict[str, Any]]:
        """The rows, after everything has come to rest; nothing may be left of any request."""
        for _ in range(60):
            await asyncio.sleep(0)
        assert not self.broker.leases and self.broker.whole.used == 0
        assert self.ledger.state().open == 0
        assert await self.ledger.flush(10)
        await self.limiter.leave()
        rows = list(self.rows.documents.values())
        for bucket in self.buckets.table.values():
            if bucket.id.startswith("rate|"):
                continue
            assert not bucket.liens, "something stays reserved"
            charged = [each["n"] for row in rows for each in row["charges"] if each["b"] == bucket.id]
            assert bucket.spent == sum(charged)
        return rows

    def spent(self, unit: str = "USD") -> int:
        return sum(bucket.spent for name, bucket in self.buckets.table.items() if f"|{unit}|" in name)

    def reserved(self, unit: str = "USD") -> int:
        """By requests under way."""
        return sum(piece.used for name, piece in self.limiter._slices.items() if f"|{unit}|" in name)


PRICED = PriceDraft(request=Decimal("0.02"))
SCENES: dict[str, tuple[list[Part], ...]] = {
    "goes well": (["one ", "two", PAID],),
    "another account": ([BUSY], ["one", PAID]),
    "breaks off half way": (["one ", PAID, BROKEN], [BUSY], ["two ", "three", PAID]),
    "nobody knows": ([LOST],),
    "fails for good": ([UpstreamFailure(Rejected())],),
    "is empty": ([PAID], ["one", PAID]),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("session", [None, "s"])
@pytest.mark.parametrize("scene", SCENES)
async def test_cancelled_at_every_step(tmp_path: Path, scene: str, session: str | None, stream: bool) -> None:
    caller = payer(dollars(), points(1000), rates=Rates(parallel=5, tokens_minute=100_000))
    for steps in range(1, 200):
        house = await House(tmp_path).start(PRICED)
        house.script(*SCENES[scene])
        task = asyncio.create_task(house.ask(stream=stream, session=session, caller=caller))
        for _ in range(steps):
            await asyncio.sleep(0)
            if task.done():
                break
        ended = task.done()
        task.cancel()
        await asyncio.wait([task])
        rows = await house.booked()
        assert len(rows) == len(house.upstream.asked), steps
        assert [row["attempt"] for row in rows] == list(range(1, len(rows) + 1))
        assert house.spent() == sum(row["billed_cost"] or 0 for row in rows)
        assert house.spent(POINTS) == sum(row["points"] or 0 for row in rows)
        assert not house.troubles
        if ended:
            return
    pytest.fail("the request never ended")


async def test_every_attempt_that_cost_something_is_paid_and_only_that(tmp_path: Path) -> None:
    house = await House(tmp_path).start()
    house.script(["one", PAID, BROKEN], [BUSY], ["two", PAID])
    assert await house.ask(caller=payer()) == "two"
    rows = await house.booked()
    assert [(row["status"], row["billed_cost"]) for row in rows] == [
        ("failed", CENT),
        ("failed", None),
        ("succeeded", CENT),
    ]
    assert house.spent() == 2 * CENT


async def test_an_answer_without_content_that_was_counted_is_paid(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PriceDraft(input=Decimal(1_000_000), output=Decimal(1_000_000)))
    house.script([Measured(prompt_tokens=7, completion_tokens=0)], [UpstreamFailure(Rejected())])
    with pytest.raises(GatewayError):
        await house.ask(caller=payer(dollars("100000")))
    rows = await house.booked()
    assert [row["billed_cost"] for row in rows] == [7 * UNIT, None]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_stream_that_is_left_is_paid_for_what_was_produced(tmp_path: Path, begun: bool) -> None:
    house = await House(tmp_path).start(PriceDraft(output=Decimal(1_000_000)))
    house.script(["x" * 40, asyncio.Event(), "never"])
    stream = await house.begin(payer(dollars("10000")))
    assert house.reserved() > 0
    if begun:
        events = stream.events()
        assert isinstance(await anext(events), TextDelta)
        await events.aclose()  # type: ignore[attr-defined]
    await stream.aclose()
    await stream.aclose()
    assert house.reserved() == 0
    (row,) = await house.booked()
    assert (row["status"], row["completion_tokens"], row["tokens_estimated"]) == ("cancelled", 10, True)
    assert house.spent() == 10 * UNIT


async def test_produced_tool_calls_are_paid(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PriceDraft(output=Decimal(1_000_000)))

    class Calling:
        capabilities = Told.capabilities

        async def chat(self, *_: object) -> AsyncGenerator[ChatEvent, None]:
            yield ToolCallDelta(({"index": 0, "function": {"name": "find", "arguments": "y" * 36}},))
            await asyncio.Event().wait()

    house.upstreams["mock"] = Calling()
    stream = await house.begin(payer(dollars("10000")))
    await stream.aclose()
    (row,) = await house.booked()
    assert row["completion_tokens"] == 10


async def test_a_lost_slot_ends_the_reservation(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PRICED)
    house.script(["one", asyncio.Event()])
    stream = await house.begin(payer())
    house.broker.lose_grants()
    for _ in range(20):
        await asyncio.sleep(0)
    assert house.reserved() == 0
    await stream.aclose()
    (row,) = await house.booked()
    assert (row["status"], row["billed_cost"]) == ("cancelled", 2 * CENT)


async def test_the_requests_time_ends_the_reservation(tmp_path: Path) -> None:
    house = await House(tmp_path, walk=WalkPolicy(request_timeout=0.1, hold_back=0.01)).start(PRICED)
    house.script(["one", asyncio.Event()])
    with pytest.raises(GatewayError):
        await house.ask(caller=payer(), stream=True)
    house.script([asyncio.Event()])
    with pytest.raises(GatewayError):
        await house.ask(caller=payer(), stream=True)
    rows = await house.booked()
    assert [row["billed_cost"] for row in rows] == [2 * CENT, None]


async def test_what_was_certainly_not_sent_costs_nothing(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PRICED)
    house.script([UpstreamFailure(Cancelled(), Fate.NOT_SENT)])
    with pytest.raises(GatewayError):
        await house.ask(caller=payer())
    (row,) = await house.booked()
    assert (row["status"], row["fate"], row["billed_cost"], house.spent()) == ("cancelled", "not_sent", None, 0)


async def test_an_attempt_that_never_began_has_no_row_and_costs_nothing(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PRICED)

    class Broken:
        capabilities = Told.capabilities

        def chat(self, *_: object) -> AsyncGenerator[ChatEvent, None]:
            raise RuntimeError

    for upstreams in ({"mock": Broken()}, {}):
        house.upstreams.clear()
        house.upstreams.update(upstreams)
        with pytest.raises(Exception):  # noqa: B017 - whatever it is
            await house.ask(caller=payer())
    assert await house.booked() == []
    assert house.spent() == 0


async def test_a_session_that_cannot_be_bound_keeps_nothing_reserved(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PRICED)

    def fails(*_: object) -> None:
        raise RuntimeError

    house.sessions.put = fails  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        await house.ask(caller=payer(), session="s")
    assert house.reserved() == 0
    assert len(house.decisions) == 1
    (row,) = await house.booked()
    assert row["status"] == "succeeded"


async def test_news_about_an_account_that_cannot_be_taken_keep_nothing_reserved(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PRICED)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError

    house.broker.settle = fails  # type: ignore[method-assign]
    for stream in (True, False):
        with pytest.raises(RuntimeError):
            await house.ask(caller=payer(), stream=stream)
    house.script([BUSY])
    with pytest.raises(RuntimeError):
        await house.ask(caller=payer())
    assert house.reserved() == 0
    assert [row["status"] for row in await house.booked()] == ["succeeded", "succeeded", "failed"]


# Budgets.


async def test_nothing_passes_a_budget_in_parallel(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PriceDraft(request=Decimal("0.30")))
    done = await asyncio.gather(*(house.ask(caller=payer()) for _ in range(10)), return_exceptions=True)
    assert sum(each == "ok" for each in done) == 3
    assert all(isinstance(each, BudgetExceeded) for each in done if each != "ok")
    await house.booked()
    assert house.spent() == 90 * CENT


async def test_of_an_unknown_price_one_request_holds_a_tenth(tmp_path: Path) -> None:
    house = await House(tmp_path).start()
    house.script(["one", asyncio.Event()])
    stream = await house.begin(payer())
    assert house.reserved() == 10 * CENT
    await stream.aclose()
    house.script(["one", PAID])
    await house.ask(caller=payer())
    stream = await house.begin(payer())
    assert house.reserved() == CENT, "what the upstream asked last time"
    await stream.aclose()
    await house.booked()


async def test_a_price_by_points_that_nobody_knows_yet_holds_a_tenth(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PriceDraft(point=Decimal("0.001")))
    for _ in range(5):  # its upstream tells points, and never money
        house.learned.observe("mock", "gpt", prompt_estimate=1, prompt_tokens=1, completion_tokens=1, cost=None)
    house.script(["one", Measured(points=40)])
    stream = await house.begin(payer())
    assert house.reserved() == 10 * CENT
    await stream.aclose()
    for _ in range(9):
        await house.ask(caller=payer())
    stream = await house.begin(payer())
    assert house.reserved() == 4 * CENT
    await stream.aclose()
    await house.booked()


async def test_a_price_by_points_does_not_matter_where_the_upstream_tells_money(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PriceDraft(point=Decimal("0.001")))
    house.script(["one", Measured(prompt_tokens=1, completion_tokens=1, cost="0.05")])
    await house.ask(caller=payer())
    stream = await house.begin(payer())
    assert house.reserved() == 5 * CENT
    await stream.aclose()
    await house.booked()


async def test_who_leaves_before_the_price_is_told_pays_no_more_than_was_reserved(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PriceDraft(request=Decimal("0.03")))
    house.script(["one", PAID])
    await house.ask(caller=payer())
    house.script(["one", asyncio.Event()])
    stream = await house.begin(payer())
    assert house.reserved() == 3 * CENT
    await stream.aclose()
    await house.booked()
    assert house.spent() == 4 * CENT


async def test_a_model_without_a_price_is_free_or_refused(tmp_path: Path) -> None:
    for unpriced in ("allow", "refuse"):
        house = await House(tmp_path, unpriced=unpriced).start()
        for _ in range(3):
            assert await house.ask(caller=payer()) == "ok"
        if unpriced == "refuse":
            with pytest.raises(Forbidden) as refused:
                await house.ask(caller=payer())
            assert refused.value.code == "model_unpriced"
        else:
            assert await house.ask(caller=payer()) == "ok"
        await house.booked()
        assert house.spent() == 0


async def test_what_was_thought_to_be_free_counts_when_it_was_not(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PriceDraft(request=Decimal(0)))
    house.script(["one", Measured(cost="0.60")])
    caller = payer()
    await house.ask(caller=caller)
    house.script(["one", Measured(cost="0.60")])
    with pytest.raises(BudgetExceeded):
        await house.ask(caller=caller)
    await house.booked()
    assert house.spent() == 60 * CENT


@pytest.mark.parametrize("prices", [("EUR",), ("USD", "EUR")])
async def test_a_budget_in_a_currency_that_prices_are_not_in_refuses(tmp_path: Path, prices: tuple[str, ...]) -> None:
    accounts = [account("a", renews_daily=False), account("b", renews_daily=False, provider="other", offer="other:x")]
    house = await House(tmp_path, *accounts).start(
        *(
            PriceDraft(provider=provider, request=Decimal("0.01"), currency=unit)
            for provider, unit in zip(("mock", "other"), (*prices, *prices), strict=False)
        )
    )
    with pytest.raises(Forbidden) as refused:
        await house.ask(caller=payer())
    assert refused.value.code == "currency_mismatch" and "EUR" in refused.value.message
    await house.booked()


async def test_a_cost_in_a_currency_that_nobody_foresaw_is_told(tmp_path: Path) -> None:
    house = await House(tmp_path).start()
    house.script(["one", Measured(cost="0.50", currency="EUR")])
    await house.ask(caller=payer())
    (row,) = await house.booked()
    assert (row["unit"], row["billed_cost"], house.spent()) == ("EUR", 50 * CENT, 0)
    assert len(house.troubles) == 1 and "EUR" in house.troubles[0]
    with pytest.raises(Forbidden):
        await house.ask(caller=payer())


async def test_a_provider_that_tells_nothing_is_not_billed_by_another_ones_figures(tmp_path: Path) -> None:
    accounts = [account("a", renews_daily=False), account("b", renews_daily=False, provider="other", offer="other:x")]
    house = await House(tmp_path, *accounts).start()
    house.learned.observe(
        "other:x", "gpt", prompt_estimate=1, prompt_tokens=1, completion_tokens=1, cost=("0.5", "USD")
    )
    caller = Principal(key_id="key_1", name="one", providers=("mock",), scopes=payer().scopes)
    assert await house.ask(caller=caller) == "ok"
    (row,) = await house.booked()
    assert (row["billed_cost"], house.spent()) == (None, 0)


async def test_an_end_of_a_known_price_without_a_figure_is_estimated(tmp_path: Path) -> None:
    house = await House(tmp_path).start()
    house.script(["one", PAID])
    await house.ask(caller=payer())
    for odd in (None, "NaN", "1e400", "-1", "", "a lot"):
        house.script(["one", Measured(cost=odd)])
        await house.ask(caller=payer())
    rows = await house.booked()
    assert [(row["billed_cost"], row["cost_source"]) for row in rows] == [
        (CENT, "upstream"),
        *[(CENT, "estimate")] * 6,
    ]


@pytest.mark.parametrize("odd", [-1, -(2**80), 2**80])
async def test_absurd_counts_are_not_believed(tmp_path: Path, odd: int) -> None:
    house = await House(tmp_path).start(PriceDraft(input=Decimal(1), output=Decimal(1), point=Decimal(1)))
    house.script(["one", Measured(prompt_tokens=odd, completion_tokens=odd, cached_tokens=odd, points=odd)])
    await house.ask(caller=payer(dollars(), points(1000), rates=Rates(tokens_minute=100_000)))
    (row,) = await house.booked()
    assert 0 <= row["prompt_tokens"] < 10 and 0 <= row["completion_tokens"] < 10 and row["cached_tokens"] == 0
    assert row["points_estimated"] and row["points"] == 0
    assert 0 <= house.spent() < CENT and house.spent(POINTS) == 0


async def test_points_are_counted_beside_money(tmp_path: Path) -> None:
    house = await House(tmp_path).start()
    house.script(["one", PAID])
    caller = payer(dollars(), points(100))
    await house.ask(caller=caller)
    house.script(["one", asyncio.Event()])
    stream = await house.begin(caller)
    assert house.reserved(POINTS) == 5
    await stream.aclose()
    rows = await house.booked()
    assert (house.spent(), house.spent(POINTS)) == (2 * CENT, 10)
    assert [row["points_estimated"] for row in rows] == [False, True]


async def test_accounts_without_points_use_nothing_of_a_budget_of_points(tmp_path: Path) -> None:
    house = await House(tmp_path, account("a", metered=False, renews_daily=False)).start()
    caller = payer(points(1000))
    await house.ask(caller=caller)
    house.script(["one", asyncio.Event()])
    stream = await house.begin(caller)
    assert house.reserved(POINTS) == 0
    await stream.aclose()
    await house.booked()


async def test_an_estimated_row_names_the_budgets_that_a_correction_concerns(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PRICED)
    caller = payer(dollars(), points(1000))
    await house.ask(caller=caller)  # nobody knows its points
    house.script([BUSY], [LOST])
    with pytest.raises(GatewayError):
        await house.ask(caller=caller)
    rows = await house.booked()
    assert [len(row["charges"]) for row in rows] == [2, 0, 2]


async def test_a_request_that_needs_more_than_the_whole_budget_is_told_so(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PriceDraft(request=Decimal(2)))
    with pytest.raises(BudgetExceeded) as refused:
        await house.ask(caller=payer())
    assert "may cost 2 USD" in refused.value.message and refused.value.retry_after is None
    assert await house.booked() == []


async def test_refusals_name_whose_limit_it_is_and_when_to_come_back(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PriceDraft(request=Decimal("0.60")))
    house.script(["one", asyncio.Event()])
    stream = await house.begin(payer())
    with pytest.raises(BudgetExceeded) as busy:
        await house.ask(caller=payer())
    assert (busy.value.retry_after, busy.value.limited_by) == (1.0, "budget")
    await stream.aclose()
    await house.ledger.flush(10)
    house.clock.step(1)
    with pytest.raises(BudgetExceeded) as spent:
        await house.ask(caller=payer())
    assert "0.6 spent" in spent.value.message
    midnight = datetime(2026, 6, 2, tzinfo=UTC)
    assert spent.value.retry_after == (midnight - house.clock.now()).total_seconds()
    for rates, text in ((Rates(parallel=1), "1 requests at a time"), (Rates(tokens_minute=9), "alone needs 1025")):
        limited = Principal(key_id="key_2", name="two", scopes=(Scope(kind="org", id="org_2", rates=rates),))
        with pytest.raises(RateLimitExceeded) as refused:
            for _ in range(2):
                await house.begin(limited)
        assert text in refused.value.message and "he organisation" in refused.value.message


async def test_a_day_that_ends_meanwhile_is_the_day_that_pays(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PRICED)
    house.script(["one", asyncio.Event()])
    caller = payer()
    stream = await house.begin(caller)
    house.clock.step(24 * 3600)
    await stream.aclose()
    house.script(["one", Measured(cost="0.03")])
    await house.ask(caller=caller)
    await house.booked()
    spent = {bucket.id.rpartition("|")[2]: bucket.spent for bucket in house.buckets.table.values()}
    assert spent == {"2026-06-01": 2 * CENT, "2026-06-02": 3 * CENT}


async def test_a_price_that_changes_meanwhile_is_the_one_of_the_beginning(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PRICED)
    house.script(["one", asyncio.Event()])
    stream = await house.begin(payer())
    house.clock.step(1)
    await house.list.put(PriceDraft(request=Decimal(50)))
    house.clock.step(1)
    await stream.aclose()
    (row,) = await house.booked()
    assert (row["billed_cost"], row["price_rule"][-2:]) == (2 * CENT, "@1")


async def test_a_key_that_changes_meanwhile_pays_for_what_runs(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PRICED)
    house.script(["one", asyncio.Event()])
    stream = await house.begin(payer(dollars("1")))
    house.script(["one"])
    smaller = payer(dollars("0.03"))
    with pytest.raises(BudgetExceeded):
        await house.ask(caller=smaller)
    await stream.aclose()
    await house.ledger.flush(10)
    house.clock.step(1)
    with pytest.raises(BudgetExceeded):
        await house.ask(caller=smaller)
    assert await house.ask(caller=payer(dollars("0.04"))) == "one"
    await house.booked()
    assert house.spent() == 4 * CENT


async def test_tokens_that_were_not_used_come_back(tmp_path: Path) -> None:
    house = await House(tmp_path).start()
    caller = payer(dollars(), rates=Rates(tokens_minute=1100))
    for _ in range(5):
        await house.ask(caller=caller)
        await house.limiter.round()
    house.script([UpstreamFailure(Rejected())])
    with pytest.raises(GatewayError):
        await house.ask("no", caller=caller)
    await house.limiter.round()
    house.script(["ok"])
    await house.ask(caller=caller)
    await house.booked()


@pytest.mark.parametrize("after", [False, True])
async def test_a_slice_whose_fate_is_unknown_is_not_lost(tmp_path: Path, after: bool) -> None:
    house = await House(tmp_path).start(PriceDraft(request=Decimal("0.90")))
    house.buckets.failure, house.buckets.after = StoreUnavailable(), after
    with pytest.raises(Unavailable) as refused:
        await house.ask(caller=payer())
    assert refused.value.code == "database_unavailable" and house.upstream.asked == []
    house.buckets.failure = None
    await house.ask(caller=payer())
    await house.booked()
    assert house.spent() == 90 * CENT


# The ledger.


async def test_what_cannot_be_written_down_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = await House(tmp_path).start(PRICED)
    full = _full_disk(monkeypatch)
    full.append(True)
    with pytest.raises(Unavailable) as refused:
        await house.ask(caller=payer())
    assert refused.value.code == "ledger_unavailable"
    assert house.upstream.asked == [] and house.reserved() == 0
    full.clear()
    await house.ask(caller=payer())
    assert len(await house.booked()) == 1


async def test_an_end_that_the_disk_does_not_take_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = await House(tmp_path).start(PriceDraft(request=Decimal("0.30")))
    house.script(["one", Measured(cost="0.10"), asyncio.Event()])
    stream = await house.begin(payer())
    full = _full_disk(monkeypatch)
    full.append(True)
    await stream.aclose()
    assert house.reserved() == 0
    full.clear()
    (row,) = await house.booked()
    assert (row["status"], row["billed_cost"]) == ("cancelled", 10 * CENT)


async def test_an_end_that_nobody_can_keep_counts_as_reserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = await House(tmp_path).start(PriceDraft(request=Decimal("0.30")))
    house.script(["one", Measured(cost="0.10"), asyncio.Event()])
    stream = await house.begin(payer())
    full = _full_disk(monkeypatch)
    full.append(True)
    monkeypatch.setattr("poe_gateway.metering.ledger._UNWRITTEN", 0)
    await stream.aclose()
    full.clear()
    assert len(house.troubles) == 1
    assert await house.ledger.leave()  # the attempt has no end in the spool: it becomes an orphan
    await house.limiter.leave()
    assert house.spent() == 30 * CENT
    assert all(not bucket.liens for bucket in house.buckets.table.values())


@pytest.mark.parametrize("cost", ["0.10", "0.50"])
async def test_what_a_failed_attempt_cost_is_reserved_once_more(tmp_path: Path, cost: str) -> None:
    house = await House(tmp_path).start(PriceDraft(request=Decimal("0.30")))
    house.script(["one", Measured(cost=cost), BROKEN], ["two", asyncio.Event()])
    task = asyncio.create_task(house.ask(caller=payer(), stream=False))
    for _ in range(100):
        await asyncio.sleep(0)
    paid = int(Decimal(cost) * UNIT)
    assert house.reserved() == 30 * CENT + paid
    assert house.ledger._spool is not None
    (intent,) = house.ledger._spool.open.values()
    assert list(intent.charges.values()) == [30 * CENT]
    task.cancel()
    await asyncio.wait([task])
    assert house.reserved() == 0
    await house.booked()
    assert house.spent() == paid + 30 * CENT


async def test_no_second_attempt_beyond_the_budget(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PriceDraft(request=Decimal("0.60")))
    house.script(["one", Measured(cost="0.60"), BROKEN], ["two"])
    with pytest.raises(BudgetExceeded):
        await house.ask(caller=payer())
    assert house.spent() == 0
    assert len(await house.booked()) == 1
    assert house.spent() == 60 * CENT


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_nothing_passes_and_nothing_stays(tmp_path: Path, seed: int) -> None:
    chance = Ids(seed).rng
    house = await House(tmp_path).start(PriceDraft(request=Decimal("0.03")))
    asked = 0

    def rule(account_id: str, request: ChatRequest) -> list[Part]:
        nonlocal asked
        asked += 1
        figure = Measured(cost=chance.choice(("0.01", "0.03")))
        return chance.choice(
            (
                ["one", figure],
                ["one", figure, BROKEN],
                [figure, BROKEN],
                ["one ", "two ", asyncio.Event()],
                [UpstreamFailure(Depleted(), Fate.NOT_SENT)],
                [asyncio.Event()],
            )
        )

    house.upstream.rule = rule
    budgets = dollars("0.50"), dollars("0.40", period="month")
    caller = payer(*budgets, rates=Rates(parallel=20, tokens_minute=10**9))
    for _ in range(6):
        tasks = []
        for _ in range(8):
            turn, stream = f"turn {chance.random()}", chance.random() < 0.5
            tasks.append(asyncio.create_task(house.ask(turn, caller=caller, stream=stream)))
        for task in chance.sample(tasks, 8):
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            if chance.random() < 0.5:
                task.cancel()
            house.buckets.failure = StoreUnavailable() if chance.random() < 0.1 else None
            house.buckets.after = chance.random() < 0.5
        house.buckets.failure = None
        _, waiting = await asyncio.wait(tasks, timeout=0.1)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        house.later(120)
        await house.ledger.flush(10)
        await house.limiter.round()
        assert house.reserved() == 0
    rows = await house.booked()
    assert len(rows) == asked > 0
    for bucket in house.buckets.table.values():
        if bucket.id.startswith("budget|"):
            assert bucket.spent == sum(row["billed_cost"] or 0 for row in rows) <= 40 * CENT


async def test_costs_in_two_currencies_are_not_added(tmp_path: Path) -> None:
    house = await House(tmp_path).start()
    house.script(["one", Measured(cost="0.10", currency="EUR"), BROKEN], ["two", PAID])
    stream = await house.begin(Principal(key_id="key_1", name="one"), stream=False)
    async for _ in stream.events():
        pass
    usage = stream.usage()
    assert (usage.billed_cost, usage.currency) == ("0.01", "USD")
    await house.booked()


async def test_an_adapter_that_fails_in_an_unforeseen_way_has_its_row(tmp_path: Path) -> None:
    house = await House(tmp_path).start(PRICED)

    class Failing:
        capabilities = Told.capabilities

        async def chat(self, *_: object) -> AsyncGenerator[ChatEvent, None]:
            raise ValueError
            yield TextDelta("")

    house.upstreams["mock"] = Failing()
    with pytest.raises(GatewayError):
        await house.ask(caller=payer())
    (row,) = await house.booked()
    assert (row["outcome"], row["fate"], row["billed_cost"]) == (AdapterDrift.__name__, "unknown", None)


def _full_disk(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """While this list is not empty the disk takes nothing."""
    full: list[bool] = []

    class Disk:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def write(self, fd: int, line: bytes) -> int:
            if full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return os.write(fd, line)

    monkeypatch.setattr("poe_gateway.metering.spool.os", Disk())
    return full
