"""The money of a request of several legs: each attempt has its row, rates count it once, nothing stays reserved, and
its record is told exactly once, wherever it is cut off."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from poe_gateway.auth.keys import Principal
from poe_gateway.chat.events import Measured
from poe_gateway.chat.request import ChatRequest, Message, OutputFormat, TextPart
from poe_gateway.chat.tokens import prompt_tokens
from poe_gateway.clock import Ids
from poe_gateway.dispatch.journey import WalkPolicy
from poe_gateway.dispatch.router import Router
from poe_gateway.errors import BudgetExceeded, GatewayError, RateLimitExceeded
from poe_gateway.limits.terms import Rates
from poe_gateway.metering.pricelist import PriceDraft
from poe_gateway.money import UNIT
from poe_gateway.pool.outcome import Rejected, Transient
from poe_gateway.routing.parse import parse
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from tests.unit.builders import account
from tests.unit.test_charging import BROKEN, BUSY, CENT, LOST, PAID, dollars, payer, points
from tests.unit.test_charging import House as Paying
from tests.unit.test_router import GOOD, TABLE
from tests.unit.walking import Part

DOWN = UpstreamFailure(Transient("down"))
ONCE = Rates(requests_minute=50, tokens_minute=100_000, parallel=5)
MODES: dict[str, dict[str, Any]] = {
    "escalate": TABLE["profiles"]["default"],
    "classify": {"mode": "classify", "classifier": "local:small", "classifier_timeout_ms": 600_000},
    "dispatch": {"mode": "dispatch", "classifier": "local:small"},
}


class House(Paying):
    """With a router: two accounts, one of each backend; ``local:small`` falls back to ``cloud:big``."""

    def __init__(self, directory: Path, mode: str, **more: Any) -> None:
        near, far = (replace(account(name, renews_daily=False), labels=(name,)) for name in ("near", "far"))
        super().__init__(directory, near, far, **more)
        table = {**TABLE, "profiles": {"default": MODES[mode]}, "fallbacks": {"local:small": ["cloud:big"]}}
        parsed = parse(table)
        self.router = Router(
            dispatcher=self.dispatcher,
            planner=self.planner,
            catalog=self.catalog,
            telemetry=Telemetry(self.told),
            clock=self.clock,
            table=lambda: parsed,
        )

    async def answered(self, caller: Principal, *, stream: bool = False, session: str | None = None) -> str:
        self.count += 1
        request = ChatRequest(
            model="auto",
            messages=(Message("user", (TextPart(f"question {self.count}"),)),),
            stream=stream,
            session_id=session,
            session_explicit=session is not None,
        )
        answer = await self.router.chat(caller, request, f"req_{self.count}")
        try:
            async for _ in answer.events():
                pass
            return answer.answer.text
        finally:
            await answer.aclose()

    def counted(self) -> int:
        """Requests of the minute."""
        found = [bucket for name, bucket in self.buckets.table.items() if "|requests|minute" in name]
        return sum(sum(bucket.ticks.values()) for bucket in found)


POOR: list[Part] = ["No.", PAID]
FINE: list[Part] = [GOOD, PAID]
SCENES: dict[str, tuple[str, tuple[list[Part], ...]]] = {
    "a poor answer, then a good one": ("escalate", (POOR, FINE)),
    "a failure that cost, then a poor answer": ("escalate", (["x", PAID, BROKEN], POOR)),
    "nobody knows what became of the second": ("escalate", (POOR, [LOST])),
    "the caller's fault": ("escalate", ([UpstreamFailure(Rejected())],)),
    "classified": ("classify", (["big", PAID], FINE)),
    "the classifier fails": ("classify", ([BUSY], FINE)),
    "classified, and then a failure": ("classify", (["small", PAID], [DOWN], FINE)),
    "a fallback": ("dispatch", ([DOWN], FINE)),
    "everything fails": ("dispatch", ([DOWN], [PAID, BROKEN])),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("session", [None, "s"])
@pytest.mark.parametrize("scene", SCENES)
async def test_cancelled_at_every_step(tmp_path: Path, scene: str, session: str | None, stream: bool) -> None:
    mode, answers = SCENES[scene]
    caller = payer(dollars(), points(1000), rates=ONCE)
    for steps in range(1, 300):
        house = await House(tmp_path, mode).start(PriceDraft(request=Decimal("0.02")))
        house.script(*answers)
        task = asyncio.create_task(house.answered(caller, session=session, stream=stream))
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
        assert len(house.decisions) == 1
        assert house.counted() == (1 if rows else house.counted())
        assert house.counted() <= 1
        assert not house.troubles
        assert not house.sessions.busy
        if ended:
            return
    pytest.fail("the request never ended")


async def test_both_answers_of_a_ladder_are_paid_and_shown(tmp_path: Path) -> None:
    house = await House(tmp_path, "escalate").start()
    house.script(POOR, FINE)
    assert await house.answered(payer()) == GOOD
    rows = await house.booked()
    assert [(row["attempt"], row["model"], row["status"], row["billed_cost"]) for row in rows] == [
        (1, "small", "succeeded", CENT),
        (2, "big", "succeeded", CENT),
    ]


async def test_a_leg_beyond_the_budget_is_not_sent_and_the_paid_answer_stands(tmp_path: Path) -> None:
    """A refusal would have him come again, and pay for the first one again."""
    house = await House(tmp_path, "escalate").start(PriceDraft(request=Decimal("0.02")))
    house.script(["No."], [GOOD])
    assert await house.answered(payer(dollars("0.03"))) == "No."
    assert house.upstream.accounts == ["near"]
    assert len(await house.booked()) == 1 and house.spent() == 2 * CENT
    [decision] = house.decisions
    assert (decision.status, decision.judged) == (200, "short")


async def test_a_fallback_beyond_the_budget_is_refused_and_not_sent(tmp_path: Path) -> None:
    prices = PriceDraft(model="small", request=Decimal("0.01")), PriceDraft(model="big", request=Decimal("0.04"))
    house = await House(tmp_path, "dispatch").start(*prices)
    house.script([DOWN], FINE)
    with pytest.raises(BudgetExceeded):
        await house.answered(payer(dollars("0.03")))
    assert house.upstream.accounts == ["near"]
    await house.booked()
    assert house.spent() == 0
    [decision] = house.decisions
    assert decision.status == 429


async def test_the_tokens_of_the_real_request_are_reserved_behind_a_small_classifier_request(tmp_path: Path) -> None:
    """Else a rate of tokens would hold back nothing but the classifier's few."""
    house = await House(tmp_path, "classify").start()
    house.script(["big"], [GOOD])
    caller = payer(rates=Rates(tokens_minute=12_000))
    request = ChatRequest(
        model="auto",
        messages=(Message("user", (TextPart("long " * 20_000),)),),
    )
    with pytest.raises(GatewayError) as caught:
        await house.router.chat(caller, request, "req_1")
    assert caught.value.status == 429
    await house.booked()


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_happens_nothing_passes_and_nothing_stays(tmp_path: Path, seed: int) -> None:
    chance = Ids(seed).rng
    mode = chance.choice(list(MODES))
    house = await House(tmp_path, mode, walk=WalkPolicy(retry_delay=0.001)).start(PriceDraft(request=Decimal("0.03")))
    asked = 0

    def rule(account_id: str, request: ChatRequest) -> list[Part]:
        nonlocal asked
        asked += 1
        figure = Measured(cost=chance.choice(("0.01", "0.03")))
        return chance.choice(
            (
                [GOOD, figure],
                ["No.", figure],
                ["big", figure],
                ["one", figure, BROKEN],
                [figure, LOST],
                [UpstreamFailure(Transient("x"), Fate.NOT_SENT)],
                [asyncio.Event()],
            )
        )

    house.upstream.rule = rule
    caller = payer(dollars("0.50"), dollars("0.40", period="month"), rates=Rates(parallel=20, tokens_minute=10**9))
    for _ in range(4):
        tasks = []
        for _ in range(6):
            stream, session = chance.random() < 0.4, chance.choice((None, "s", "t"))
            tasks.append(asyncio.create_task(house.answered(caller, stream=stream, session=session)))
        for task in chance.sample(tasks, 6):
            for _ in range(chance.randrange(20)):
                await asyncio.sleep(0)
            if chance.random() < 0.4:
                task.cancel()
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
    # A task that never began has no record; every other has exactly one.
    ids = [each.request_id for each in house.decisions]
    assert len(ids) == len(set(ids))
    assert {row["request_id"] for row in rows} <= set(ids)
    assert len({(row["request_id"], row["attempt"]) for row in rows}) == len(rows)
    unknown = {(row["request_id"], row["attempt"]) for row in rows if row["fate"] == "unknown"}
    last: dict[str, int] = {}
    for row in rows:
        last[row["request_id"]] = max(row["attempt"], last.get(row["request_id"], 0))
    if mode != "classify":  # a classifier's own message is another one
        assert all(last[request_id] == attempt for request_id, attempt in unknown)
    for bucket in house.buckets.table.values():
        if bucket.id.startswith("budget|"):
            assert bucket.spent == sum(row["billed_cost"] or 0 for row in rows) <= 40 * CENT


async def test_a_cheaper_leg_needs_only_its_own_price(tmp_path: Path) -> None:
    prices = PriceDraft(model="small", request=Decimal("0.04")), PriceDraft(model="big", request=Decimal("0.01"))
    house = await House(tmp_path, "escalate").start(*prices)
    house.script(["No."], [GOOD])
    assert await house.answered(payer(dollars("0.05"))) == GOOD
    await house.booked()
    assert house.spent() == 5 * CENT


async def test_a_day_that_turns_between_two_legs_does_not_hide_the_price_of_the_second(tmp_path: Path) -> None:
    prices = PriceDraft(model="small", request=Decimal("0.01")), PriceDraft(model="big", request=Decimal("0.04"))
    house = await House(tmp_path, "escalate").start(*prices)

    def rule(account_id: str, request: ChatRequest) -> list[Part]:
        house.clock.current += timedelta(days=1)
        return ["No."]

    house.upstream.rule = rule
    assert await house.answered(payer(dollars("0.03"))) == "No."
    assert house.upstream.accounts == ["near"]
    await house.booked()
    assert house.spent() == CENT


# A repair is a second call of the same attempt.

RULE = OutputFormat(kind="json_schema", name="n", schema={"type": "object", "required": ["a"]})
ASKED = ChatRequest(model="small", messages=(Message("user", (TextPart("A word."),)),), output=RULE)


async def repaired(tmp_path: Path, caller: Principal, *answers: list[Part]) -> House:
    house = await House(tmp_path, "dispatch").start(PriceDraft(output=Decimal(1_000_000)))
    house.dispatcher._count = len
    house.upstream.capabilities = replace(house.upstream.capabilities, structured=False)
    house.script(*answers)
    try:
        stream = await house.router.chat(caller, ASKED, "req_1")
        async for _ in stream.events():
            pass
        await stream.aclose()
    except GatewayError as error:
        house.troubles.append(error.code or "")
    return house


async def test_what_was_told_of_both_calls_is_added(tmp_path: Path) -> None:
    told = Measured(prompt_tokens=10, completion_tokens=4, points=5)
    house = await repaired(tmp_path, payer(dollars("100000")), ["no", told], ['{"a":1}', told])
    [row] = await house.booked()
    assert (row["prompt_tokens"], row["completion_tokens"], row["points"]) == (20, 8, 10)
    assert row["billed_cost"] == 8 * UNIT
    assert house.troubles == []


async def test_where_nothing_is_told_both_calls_count_all_the_same(tmp_path: Path) -> None:
    house = await repaired(tmp_path, payer(dollars("100000")), ["not this"], ['{"a":1}'])
    [row] = await house.booked()
    once = prompt_tokens(ASKED, len)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (2 * once + 8, 8 + 7)


@pytest.mark.parametrize("second", [["nor this"], [UpstreamFailure(Transient("x"))]], ids=["no better", "failed"])
async def test_two_calls_in_vain_are_paid(tmp_path: Path, second: list[Part]) -> None:
    """Nothing of them was shown, and nothing was told: the attempt has written something nevertheless."""
    house = await repaired(tmp_path, payer(dollars("100000")), ["not this"], second, ['{"a":1}'])
    row, *_ = await house.booked()
    assert (row["status"], row["fate"]) == ("failed", "accepted")
    assert row["completion_tokens"] >= 8
    assert row["billed_cost"] == row["completion_tokens"] * UNIT


@pytest.mark.parametrize("name", ["plain", "odd|name"])
async def test_a_profiles_limit_counts_every_callers_requests_together(tmp_path: Path, name: str) -> None:
    house = await House(tmp_path, "dispatch").start()
    table = parse({**TABLE, "profiles": {name: {"mode": "dispatch", "classifier": "local:small", "rate_limit_rpm": 2}}})
    house.router._table = lambda: table
    asked = ChatRequest(model=name, messages=(Message("user", (TextPart("hi"),)),))
    for caller in ("key_1", "key_2"):
        stream = await house.router.chat(Principal(key_id=caller, name=caller), asked, f"req_{caller}")
        async for _ in stream.events():
            pass
        await stream.aclose()
    with pytest.raises(RateLimitExceeded, match="the routing profile"):
        await house.router.chat(Principal(key_id="key_3", name="three"), asked, "req_3")
    await house.booked()
