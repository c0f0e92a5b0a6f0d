"""From a name to an answer: what leads from one leg to the next, and what is told of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from poe_gateway.auth.keys import Principal
from poe_gateway.chat.request import ChatRequest, Message, Role, TextPart, ToolCall
from poe_gateway.dispatch.canned import CannedStream
from poe_gateway.dispatch.continuity import SessionPolicy
from poe_gateway.dispatch.router import Router, Stream
from poe_gateway.errors import (
    Forbidden,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
)
from poe_gateway.explain.words import in_words
from poe_gateway.pool.account import Account
from poe_gateway.pool.outcome import Rejected, Transient
from poe_gateway.routing.catalog import Listing, Model
from poe_gateway.routing.course import Asked
from poe_gateway.routing.parse import parse
from poe_gateway.telemetry.events import Escalated
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.upstreams.base import Capabilities, Fate, UpstreamFailure
from tests.unit.builders import NOON, account
from tests.unit.walking import CALLER, Part, Told, Walk

GOOD = "A whole answer that is long enough to be one."
TABLE: dict[str, Any] = {
    "backends": {"near": {"provider": "mock", "labels": ["near"]}, "far": {"provider": "mock", "labels": ["far"]}},
    "tiers": [
        {"name": "local:small", "backend": "near", "model": "small"},
        {"name": "cloud:big", "backend": "far", "model": "big"},
        {"name": "cloud:huge", "backend": "far", "model": "huge"},
    ],
    "aliases": {"hint:capable": "cloud:big"},
    "profiles": {
        "default": {"mode": "escalate", "classifier": "local:small", "max_auto_tier": "cloud:big"},
    },
}


class House:
    """A walk with a router over two accounts, one of each backend, and ``others``."""

    def __init__(
        self,
        table: dict[str, Any] = TABLE,
        *others: Account,
        sessions: SessionPolicy | None = None,
        **profile: Any,
    ) -> None:
        near, far = (replace(account(name), labels=(name,)) for name in ("near", "far"))
        self.walk = Walk(near, far, *others, sessions=sessions)
        profiles = {"default": {**table["profiles"]["default"], **profile}} if profile else table["profiles"]
        self.router = Router(
            dispatcher=self.walk.dispatcher,
            planner=self.walk.planner,
            catalog=self.walk.catalog,
            telemetry=Telemetry(self.walk.told),
            clock=self.walk.clock,
            table=lambda: parse({**table, "profiles": profiles}),
        )

    def says(self, who: str, *answers: list[Part]) -> None:
        self.walk.upstream.by_account[who] = list(answers)

    async def ask(self, model: str = "auto", text: str = "hi", *, stream: bool = False, **asked: Any) -> Stream:
        request = ChatRequest(model=model, messages=(Message("user", (TextPart(text),)),), stream=stream)
        return await self.router.chat(CALLER, request, "req_1", None, Asked(**asked))

    async def answer(self, model: str = "auto", **how: Any) -> tuple[Stream, str]:
        stream = await self.ask(model, **how)
        async for _ in stream.events():
            pass
        await stream.aclose()
        assert not any(seat.used for seat in self.walk.broker.seats.values())
        return stream, stream.answer.text

    @property
    def asked(self) -> list[str]:
        return self.walk.upstream.accounts

    @property
    def escalations(self) -> list[tuple[str, str, str]]:
        told = [each for each in self.walk.told.records if isinstance(each, Escalated)]
        return [(each.profile, each.tier, each.reason) for each in told]


def failing(outcome: Any, fate: Fate = Fate.NOT_SENT) -> list[Part]:
    return [UpstreamFailure(outcome, fate)]


@pytest.mark.parametrize(
    ("what", "first", "reason"),
    [
        ("a refusal", ["I'm sorry, but I can't help with that request."], "refusal"),
        ("an answer that is too short", ["Yes."], None),
        ("nothing but a failure", failing(Transient("down")), "upstream_failed"),
    ],
    ids=["refusal", "short", "failure"],
)
async def test_escalate_goes_on_to_the_next_tier(what: str, first: list[Part], reason: str | None) -> None:
    house = House()
    house.says("near", first)
    house.says("far", [GOOD])
    stream, text = await house.answer()
    assert (text, stream.model, stream.tier, stream.profile) == (GOOD, "big", "cloud:big", "default")
    assert (stream.escalations, house.asked) == (1, ["near", "far"])
    assert stream.attempt is not None
    assert stream.attempt.number == 2
    [(profile, tier, told)] = house.escalations
    assert (profile, tier) == ("default", "local:small")
    assert reason in (None, told)
    [decision] = house.walk.decisions
    assert (decision.status, decision.model, decision.tier, decision.asked) == (200, "big", "cloud:big", "auto")
    assert (decision.escalations, [each.number for each in decision.tries]) == (1, [1, 2])
    assert [choice.account_id for choice in decision.choices if choice.account_id] == ["near", "far"]


async def test_a_good_answer_stands() -> None:
    house = House()
    house.says("near", [GOOD])
    stream, text = await house.answer()
    assert (text, stream.tier, stream.escalations, house.escalations) == (GOOD, "local:small", 0, [])


async def test_the_last_tiers_answer_stands_whatever_it_is() -> None:
    house = House()
    house.says("near", ["No."])
    house.says("far", ["No."])
    stream, text = await house.answer()
    assert (text, stream.tier, stream.escalations) == ("No.", "cloud:big", 1)


async def test_a_stream_is_not_judged_but_a_failure_before_it_leads_on() -> None:
    house = House()
    house.says("near", ["No."])
    stream, text = await house.answer(stream=True)
    assert (text, stream.tier, stream.escalations) == ("No.", "local:small", 0)
    house.says("near", failing(Transient("down")))
    house.says("far", ["No."])
    stream, text = await house.answer(stream=True)
    assert (text, stream.tier, stream.escalations) == ("No.", "cloud:big", 1)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (failing(Rejected(public="Bad words.")), UpstreamRefused),
        (failing(Transient("slow", timeout=True), Fate.UNKNOWN), UpstreamTimeout),
        (failing(Transient("broken"), Fate.UNKNOWN), UpstreamFailed),
    ],
    ids=["the caller's fault", "nobody knows whether it is answered", "nobody knows whether it was taken"],
)
async def test_what_leads_nowhere_else(failure: list[Part], told: type[GatewayError]) -> None:
    house = House()
    house.says("near", failure)
    with pytest.raises(told):
        await house.answer()
    assert house.asked == ["near"]
    [decision] = house.walk.decisions
    assert decision.status == told.status or decision.status == 400


async def test_the_last_failure_is_told_with_all_attempts() -> None:
    house = House()
    for who in ("near", "far"):
        house.says(who, failing(Transient("down")))
    with pytest.raises(UpstreamFailed) as caught:
        await house.answer()
    assert caught.value.attempts == 2
    [decision] = house.walk.decisions
    assert (decision.status, decision.escalations, len(decision.tries)) == (502, 1, 2)


LATE = failing(Transient("slow", timeout=True), Fate.UNKNOWN)
WORSE = {
    "fails": failing(Transient("down")),
    "refuses the request": failing(Rejected(public="Bad words.")),
    "answers too late": LATE,
}


@pytest.mark.parametrize("what", WORSE)
async def test_a_poor_answer_is_better_than_the_next_tiers_failure(what: str) -> None:
    house = House()
    house.says("near", ["Yes."])
    house.says("far", WORSE[what])
    stream, text = await house.answer()
    assert (text, stream.model, stream.tier, stream.judged) == ("Yes.", "small", "local:small", "short")
    assert stream.attempt is not None and stream.attempt.number == 2
    assert (stream.attempt.lease.account.id, stream.answer.finish) == ("near", "stop")
    assert (stream.escalations, len(house.escalations), house.asked) == (1, 1, ["near", "far"])
    [decision] = house.walk.decisions
    assert (decision.status, decision.error_code, len(decision.tries)) == (200, None, 2)
    assert (decision.model, decision.tier, decision.judged) == ("small", "local:small", "short")
    assert "to small (tier local:small). Its answer was not good enough (short)" in in_words(decision)


async def test_of_several_poor_answers_the_newest_is_kept() -> None:
    house = House(max_auto_tier="cloud:huge")
    house.says("near", ["No."])
    house.says("far", ["I'm sorry, but I can't help with that request."], failing(Transient("down")))
    stream, text = await house.answer()
    assert (text[:9], stream.model, stream.judged, stream.escalations) == ("I'm sorry", "big", "refusal", 2)


async def test_a_poor_answer_stands_when_the_time_is_up() -> None:
    house = House()

    def slow(account_id: str, request: ChatRequest) -> list[Part]:
        house.walk.clock.step(301 if account_id == "far" else 0)
        return ["No."] if account_id == "near" else failing(Transient("down"))

    house.walk.upstream.rule = slow
    stream, text = await house.answer()
    assert (text, stream.tier, stream.judged) == ("No.", "local:small", "short")


async def test_a_tier_that_cannot_do_what_is_asked_leads_on() -> None:
    """Of another kind than the tiers around it: what it lacks they may have."""
    backends = {"strict": {"provider": "anthropic_api"}, **TABLE["backends"]}
    tiers = [{"name": "cloud:strict", "backend": "strict", "model": "s"}, *TABLE["tiers"]]
    strict = account("strict", provider="anthropic_api", offer="anthropic_api:its.host")
    house = House({**TABLE, "backends": backends, "tiers": tiers}, strict)
    house.walk.upstreams["anthropic_api"] = Told()
    house.walk.upstreams["anthropic_api"].capabilities = Capabilities(parameters=frozenset())
    house.says("near", [GOOD])
    request = ChatRequest(model="auto", messages=(Message("user", (TextPart("hi"),)),), parameters={"seed": 1})
    stream = await house.router.chat(CALLER, request, "req_1", None, Asked())
    await stream.aclose()
    assert (stream.tier, stream.escalations, house.asked) == ("local:small", 1, ["near"])
    assert house.escalations == [("default", "cloud:strict", "unsupported_parameter")]
    assert list(house.router.health.standings(house.walk.clock.monotonic())) == ["near"], "nobody asked the strict one"
    with pytest.raises(InvalidRequest):
        await house.router.chat(CALLER, replace(request, model="cloud:strict"), "req_2", None, Asked())
    assert [decision.status for decision in house.walk.decisions][1:] == [400]


async def test_an_alias_leads_to_its_tier() -> None:
    house = House(mode="dispatch")
    house.says("far", [GOOD])
    stream, _ = await house.answer("hint:capable")
    assert (stream.model, stream.tier, house.asked) == ("big", "cloud:big", ["far"])
    [decision] = house.walk.decisions
    assert (decision.asked, decision.model) == ("hint:capable", "big")


async def test_a_tier_above_the_automatic_ones_needs_the_flag() -> None:
    house = House(mode="dispatch", expert_requires_flag=True)
    with pytest.raises(Forbidden):
        await house.answer("cloud:huge")
    assert house.asked == []
    stream, _ = await house.answer("cloud:huge", expert=True)
    assert stream.tier == "cloud:huge"


@pytest.mark.parametrize(
    ("said", "tier", "label"),
    [
        ("big", "cloud:big", "big"),
        ("cloud:big", "cloud:big", "cloud:big"),
        ("small", "local:small", "small"),
    ],
)
async def test_classify_asks_first_and_goes_where_the_label_leads(said: str, tier: str, label: str) -> None:
    house = House(mode="classify")
    asked: list[str] = []

    def rule(account_id: str, request: ChatRequest) -> list[Part]:
        classifying = any(message.role == "system" for message in request.messages)
        asked.append(f"{account_id}{'?' if classifying else ''}")
        return [said] if classifying else [GOOD]

    house.walk.upstream.rule = rule
    stream, text = await house.answer()
    assert (text, stream.tier, stream.label) == (GOOD, tier, label)
    assert asked == ["near?", "near" if tier == "local:small" else "far"]
    assert len(house.walk.decisions) == 1
    assert stream.escalations == 0


async def test_a_classifier_that_fails_or_hangs_leads_to_the_first_tier() -> None:
    house = House(mode="classify", classifier_timeout_ms=50)
    house.says("near", failing(Transient("down")), [GOOD])
    stream, text = await house.answer()
    assert (text, stream.tier, house.asked) == (GOOD, "local:small", ["near", "near"])
    house.says("near", [asyncio.Event()], [GOOD])
    stream, text = await house.answer()
    assert (text, stream.tier) == (GOOD, "local:small")


@pytest.mark.parametrize(
    ("roles", "tier"),
    [
        (("user", "assistant", "tool"), "cloud:big"),
        (("user", "assistant", "tool", "user"), "cloud:big"),
        (("user", "assistant", "tool", "assistant", "user"), "local:small"),
    ],
    ids=["results", "results and words", "results of an earlier turn"],
)
async def test_who_hands_in_results_of_tools_does_not_get_the_cheapest(roles: tuple[Role, ...], tier: str) -> None:
    house = House(mode="classify")
    house.walk.upstream.rule = lambda who, asked: ["small"] if asked.messages[0].role == "system" else [GOOD]
    said = {"assistant": {"tool_calls": (ToolCall(id="c1", name="f", arguments="{}"),)}, "tool": {"tool_call_id": "c1"}}
    messages = tuple(Message(role, (TextPart("x"),), **said.get(role, {})) for role in roles)  # type: ignore[arg-type]
    stream = await house.router.chat(CALLER, ChatRequest(model="auto", messages=messages), "req_1", None, Asked())
    await stream.aclose()
    assert stream.tier == tier


async def test_a_reply_asks_nobody() -> None:
    house = House(mode="reply", reply_message="Closed today.")
    stream, text = await house.answer("anything")
    assert isinstance(stream, CannedStream)
    assert (text, stream.answer.finish, house.asked, stream.usage().counted) == (
        "Closed today.",
        "stop",
        [],
        "estimate",
    )


async def test_a_fallback_chain_is_followed_and_told() -> None:
    table = {**TABLE, "profiles": {"default": {"mode": "dispatch"}}, "fallbacks": {"hint:capable": ["local:small"]}}
    house = House(table)
    house.says("far", failing(Transient("down")))
    house.says("near", [GOOD])
    stream, _ = await house.answer("hint:capable")
    assert (stream.model, stream.tier, stream.escalations) == ("small", "local:small", 1)


@pytest.mark.parametrize(
    ("chain", "status", "code"),
    [
        (["gpt-none"], 502, "upstream_failed"),
        (["local:small"], 502, "upstream_failed"),
        (["gpt-none", "local:small"], 502, "upstream_failed"),
    ],
    ids=["not there", "fails too", "not there, and fails"],
)
async def test_what_is_told_when_a_chain_ends(chain: list[str], status: int, code: str) -> None:
    """The failure of what was asked for, not that its substitute does not exist."""
    house = House({**TABLE, "profiles": {"default": {"mode": "dispatch"}}, "fallbacks": {"cloud:big": chain}})
    listing = Listing(offer="mock", models=(Model(id="big", upstream="big", owned_by="x"),), fetched_at=NOON)
    house.walk.catalog.replace([listing])
    for who in ("near", "far"):
        house.says(who, failing(Transient("down")))
    with pytest.raises(GatewayError) as caught:
        await house.answer("cloud:big")
    assert (caught.value.status, caught.value.code) == (status, code)
    [decision] = house.walk.decisions
    assert (decision.status, decision.error_code, caught.value.attempts) == (status, code, len(decision.tries))


async def test_what_nobody_has_is_told_of_the_first() -> None:
    house = House({**TABLE, "profiles": {}, "fallbacks": {"gpt-one": ["gpt-two"]}})
    house.walk.catalog.replace([Listing(offer="mock", models=(), fetched_at=NOON)])
    with pytest.raises(GatewayError, match="gpt-one"):
        await house.answer("gpt-one")
    assert [(each.status, each.error_code) for each in house.walk.decisions] == [(404, "model_not_found")]


async def test_a_provider_before_the_name_is_said_again() -> None:
    house = House({"profiles": {}})
    stream, _ = await house.answer("mock:gpt")
    assert stream.model == "mock:gpt"


async def test_a_key_may_use_a_model_under_the_name_that_it_was_allowed() -> None:
    house = House(mode="dispatch")
    only = Principal(key_id="key_2", name="two", models=("hint:*",))
    request = ChatRequest(model="hint:capable", messages=(Message("user", (TextPart("hi"),)),))
    stream = await house.router.chat(only, request, "req_1", None, Asked())
    await stream.aclose()
    with pytest.raises(Forbidden):
        await house.router.chat(only, replace(request, model="cloud:huge"), "req_2", None, Asked())


async def test_a_backend_that_fails_too_often_is_skipped_for_a_while() -> None:
    house = House()
    house.says("near", *[failing(Transient("down")) for _ in range(3)])
    for _ in range(3):
        await house.answer()
    house.walk.upstream.asked.clear()
    stream, _ = await house.answer()
    assert (stream.tier, house.asked) == ("cloud:big", ["far"])


async def test_a_caller_who_leaves_while_a_tier_is_judged_leaves_a_record() -> None:
    house = House()
    house.says("near", [asyncio.Event()])
    task = asyncio.ensure_future(house.ask())
    while "near" not in house.asked:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [decision] = house.walk.decisions
    assert (decision.status, [each.outcome for each in decision.tries]) == (499, ["Cancelled"])


async def test_a_profile_has_a_limit_of_its_own() -> None:
    house = House(mode="dispatch", rate_limit_rpm=7)
    seen: list[Principal] = []
    chat = house.walk.dispatcher.chat

    async def watched(principal: Principal, *more: Any) -> Any:
        seen.append(principal)
        return await chat(principal, *more)

    house.walk.dispatcher.chat = watched  # type: ignore[method-assign]
    for _ in range(2):
        await house.answer("hint:capable")
    [scope] = seen[0].scopes
    assert (scope.kind, scope.id, scope.rates.requests_minute) == ("profile", "default", 7)
    assert seen[0] is seen[1]


async def test_a_caller_who_leaves_between_two_tiers_leaves_nothing_behind() -> None:
    house = House()
    house.says("near", ["No."])
    house.says("far", [asyncio.Event()])
    task = asyncio.ensure_future(house.ask())
    while "far" not in house.asked:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(seat.used for seat in house.walk.broker.seats.values())
    [decision] = house.walk.decisions
    assert (decision.status, decision.error_code) == (499, "client_gone")


async def loaded(house: House, model: str, caller: Principal = CALLER) -> Stream:
    request = ChatRequest(model=model, messages=(), operation="load", echo={"done_reason": "load"})
    return await house.router.chat(caller, request, "req_1")


@pytest.mark.parametrize("model", ["local:small", "cloud:big", "auto"])
async def test_a_model_that_is_there_counts_as_loaded_and_nobody_is_asked(model: str) -> None:
    house = House()
    stream = await loaded(house, model)
    events = [event async for event in stream.events()]
    assert (stream.model, stream.answer.text, len(events)) == (model, "", 1)
    assert house.walk.upstream.asked == []


async def test_a_model_that_is_not_there_or_not_the_keys_is_not_loaded() -> None:
    house = House({**TABLE, "profiles": {"default": {"mode": "dispatch"}}})
    listing = Listing(offer="mock", models=(Model(id="m", upstream="m", owned_by="mock"),), fetched_at=NOON)
    house.walk.catalog.replace([listing])
    await loaded(house, "m")
    with pytest.raises(ModelNotFound):
        await loaded(house, "nope")
    with pytest.raises(GatewayError) as refused:
        await loaded(house, "m", Principal(key_id="key_2", name="two", models=("other",)))
    assert refused.value.status in (403, 404)
