"""Several legs are one request: one patience, one fate, one record, and what a key may use on each of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from poe_gateway.api.v1.endpoint import _way
from poe_gateway.auth.keys import Principal
from poe_gateway.chat.events import Bound
from poe_gateway.chat.request import ChatRequest, Message, OutputFormat, TextPart
from poe_gateway.dispatch.continuity import SessionPolicy
from poe_gateway.dispatch.journey import WalkPolicy
from poe_gateway.errors import Forbidden, InvalidRequest, Overloaded, UpstreamFailed, UpstreamTimeout
from poe_gateway.pool.outcome import Transient
from poe_gateway.routing.catalog import Listing, Model
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from tests.unit.builders import NOON, account
from tests.unit.test_router import GOOD, TABLE, House
from tests.unit.walking import Part, Told, Walk


def request(model: str = "auto", **more: Any) -> ChatRequest:
    return ChatRequest(model=model, messages=(Message("user", (TextPart("hi"),)),), **more)


def classifying(asked: ChatRequest) -> bool:
    return any(message.role == "system" for message in asked.messages)


@pytest.mark.parametrize("timeout", [None, 3.0])
async def test_the_classifiers_patience_is_not_the_requests(timeout: float | None) -> None:
    """Nor does it lengthen what the caller has."""
    house = House(mode="classify", classifier_timeout_ms=7000)
    seen: list[float] = []
    lease = house.walk.broker.lease

    async def watched(want: Any, *more: Any) -> Any:
        seen.append(want.deadline - house.walk.clock.monotonic())
        return await lease(want, *more)

    house.walk.broker.lease = watched  # type: ignore[method-assign]
    house.walk.upstream.rule = lambda who, asked: ["big"] if classifying(asked) else [GOOD]
    stream = await house.router.chat(Principal(key_id="key_1", name="one"), request(timeout=timeout), "req_1")
    async for _ in stream.events():
        pass
    await stream.aclose()
    assert seen == ([7.0, 30.0] if timeout is None else [3.0, 3.0])


async def test_a_slot_that_is_lost_while_the_upstream_has_the_message_sends_it_nowhere_else() -> None:
    house = House()
    house.says("near", [asyncio.Event()])
    task = asyncio.ensure_future(house.ask())
    while "near" not in house.asked:
        await asyncio.sleep(0)
    house.walk.broker.revoke()
    with pytest.raises(Overloaded):
        await task
    assert house.asked == ["near"]


async def test_a_cascade_to_a_fixed_reply_is_a_success() -> None:
    table = {
        **TABLE,
        "profiles": {
            "default": {
                "mode": "classify",
                "classifier": "local:small",
                "rules": [{"when": {"class": "closed"}, "profile": "shut"}],
            },
            "shut": {"mode": "reply", "reply_message": "Closed."},
        },
    }
    house = House(table)
    house.says("near", ["closed"])
    _, text = await house.answer()
    [decision] = house.walk.decisions
    assert (text, decision.status, decision.error_code) == ("Closed.", 200, None)


async def test_when_the_time_is_up_no_further_leg_is_asked() -> None:
    house = House()
    clock = house.walk.clock

    def rule(who: str, asked: ChatRequest) -> list[Part]:
        clock.step(400.0)
        return [UpstreamFailure(Transient("slow", timeout=True), Fate.ACCEPTED)]

    house.walk.upstream.rule = rule
    with pytest.raises(UpstreamTimeout):
        await house.answer()
    assert house.asked == ["near"]
    [decision] = house.walk.decisions
    assert decision.status == 504


async def test_when_the_time_is_up_a_poor_answer_stands() -> None:
    house = House()
    clock = house.walk.clock

    def rule(who: str, asked: ChatRequest) -> list[Part]:
        clock.step(400.0)
        return ["No."]

    house.walk.upstream.rule = rule
    stream, text = await house.answer()
    assert (text, stream.tier, house.asked) == ("No.", "local:small", ["near"])
    [decision] = house.walk.decisions
    assert decision.status == 200


async def test_an_answer_that_had_to_do_is_marked() -> None:
    house = House()
    house.says("near", ["No."])
    house.says("far", [UpstreamFailure(Transient("down"))])
    stream, _ = await house.answer()
    told = dict(_way(stream))
    assert (told[b"x-gateway-judged"], told[b"x-gateway-tier"], told[b"x-gateway-escalations"]) == (
        b"short",
        b"local:small",
        b"1",
    )
    house.says("near", [GOOD])
    stream, _ = await house.answer()
    assert b"x-gateway-judged" not in dict(_way(stream))


async def test_a_made_up_name_does_not_open_what_a_key_may_not_use() -> None:
    house = House()
    only = Principal(key_id="key_2", name="two", models=("gpt-*",))
    with pytest.raises(Forbidden):
        await house.router.chat(only, request("gpt-made-up"), "req_1")
    assert house.asked == []


async def test_the_upstreams_spelling_does_not_open_what_a_key_may_not_use() -> None:
    house = House({**TABLE, "profiles": {"default": {"mode": "dispatch"}}})
    [offer] = house.walk.broker.offers()
    secret = Model(id="secret", upstream="gpt-secret", owned_by="x")
    house.walk.catalog.replace([Listing(offer=offer, models=(secret,), fetched_at=NOON)])
    only = Principal(key_id="key_2", name="two", models=("gpt-*",))
    with pytest.raises(Forbidden):
        await house.router.chat(only, request("gpt-secret"), "req_1")
    assert house.asked == []


# Sessions.


async def turn(house: House, *texts: str) -> Any:
    """One turn of the session ``s``; ``texts``: user and assistant alternate."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[number % 2], (TextPart(text),)) for number, text in enumerate(texts))
    asked = ChatRequest(model="auto", messages=messages, session_id="s", session_explicit=True)
    stream = await house.router.chat(Principal(key_id="key_1", name="one"), asked, "req_1")
    async for _ in stream.events():
        pass
    await stream.aclose()
    return stream


@pytest.mark.parametrize("strict", [False, True])
async def test_a_session_stays_where_the_answer_that_the_caller_got_came_from(strict: bool) -> None:
    house = House(sessions=SessionPolicy(strict=strict))
    house.says("near", ["No.", Bound({"chat": 1})], ["No.", Bound({"chat": 2})])
    house.says("far", [GOOD, Bound({"chat": 3})], [GOOD])
    stream = await turn(house, "hi")
    assert (stream.tier, stream.attempt.session) == ("cloud:big", "new")
    stream = await turn(house, "hi", GOOD, "and then")
    assert (stream.tier, stream.attempt.session) == ("cloud:big", "continued")
    assert house.walk.upstream.bound[-1] == {"chat": 3}


async def test_a_conversation_that_took_a_message_and_failed_is_not_gone_on_with() -> None:
    walk = Walk(account("a"), walk=WalkPolicy(retry_delay=0.001))
    walk.upstream.by_account["a"] = [
        ["one", Bound({"chat": 1})],
        [UpstreamFailure(Transient("broken"), Fate.ACCEPTED)],
        ["two"],
    ]
    assert await walk.ask("hi", session="s") == "one"
    assert await walk.ask("hi", "one", "more", session="s") == "two"
    assert walk.upstream.bound == [None, {"chat": 1}, None]
    assert [len(asked.messages) for _, asked in walk.upstream.asked] == [1, 1, 3]


async def test_a_conversation_that_did_not_take_a_message_is_gone_on_with_after_the_pause() -> None:
    walk = Walk(account("a"), walk=WalkPolicy(retry_delay=0.001))
    walk.upstream.by_account["a"] = [
        ["one", Bound({"chat": 1})],
        [UpstreamFailure(Transient("busy"), Fate.NOT_SENT)],
        ["two"],
    ]
    assert await walk.ask("hi", session="s") == "one"
    assert await walk.ask("hi", "one", "more", session="s") == "two"
    assert walk.upstream.bound == [None, {"chat": 1}, {"chat": 1}]


@pytest.mark.parametrize("fate", [Fate.UNKNOWN, Fate.NOT_SENT])
async def test_after_a_pause_nothing_is_sent_whose_fate_is_unknown(fate: Fate) -> None:
    walk = Walk(account("a"), walk=WalkPolicy(retry_delay=0.001, max_attempts=3))
    walk.upstream.rule = lambda who, asked: [UpstreamFailure(Transient("x"), fate)]
    with pytest.raises(UpstreamFailed):
        await walk.ask("hi")
    assert len(walk.upstream.asked) == (1 if fate is Fate.UNKNOWN else 3)


# What a key may use.


def may(*models: str) -> Principal:
    return Principal(key_id="key_2", name="two", models=models)


PLAIN = {
    **TABLE,
    "profiles": {"default": {"mode": "dispatch"}},
    "fallbacks": {"small": ["big"], "hint:capable": ["local:small"]},
}


@pytest.mark.parametrize(
    ("models", "name", "asked"),
    [
        (("small",), "small", ["small"]),
        (("small", "big"), "small", ["small", "big"]),
        (("hint:*",), "hint:capable", ["big", "small"]),
        (("cloud:*",), "hint:capable", ["big"]),
        (("cloud:*",), "cloud:big", ["big"]),
        (("mock:*",), "mock:small", ["small"]),
        (("big",), "mock:big", ["big"]),
        (("other*",), "mock:big", None),
        (("nothing",), "hint:capable", None),
        (("*:latest",), "hint:capable:latest", None),
    ],
)
async def test_what_a_key_may_use_on_each_leg(models: tuple[str, ...], name: str, asked: list[str] | None) -> None:
    """A name of the table opens what it leads to; of everything else each model must be the key's own."""
    house = House(PLAIN)
    house.walk.upstream.rule = lambda who, request: [UpstreamFailure(Transient("down"))]
    seen: list[str] = []
    chat = house.walk.upstream.chat

    def watched(ref: Any, model: str, *more: Any) -> Any:
        seen.append(model)
        return chat(ref, model, *more)

    house.walk.upstream.chat = watched  # type: ignore[method-assign]
    with pytest.raises(Forbidden if asked is None else UpstreamFailed):
        await house.router.chat(may(*models), request(name), "req_1")
    assert list(dict.fromkeys(seen)) == (asked or [])
    [decision] = house.walk.decisions
    assert decision.status == (403 if asked is None else 502)


async def test_what_is_refused_before_it_is_routed_has_a_record_too() -> None:
    house = House(mode="dispatch", expert_requires_flag=True)
    with pytest.raises(Forbidden):
        await house.ask("cloud:huge")
    with pytest.raises(InvalidRequest):
        await house.ask("small", provider="nobody")
    told = [(each.model, each.status, each.error_code) for each in house.walk.decisions]
    assert told == [("cloud:huge", 403, "expert_required"), ("small", 400, "unknown_provider")]


async def test_a_made_up_name_puts_nothing_else_into_the_headers() -> None:
    house = House(mode="dispatch")
    stream = await house.ask("mock:small\r\nx-made: up\u2028é€")
    await stream.aclose()
    told = dict(_way(stream))
    assert told[b"x-gateway-model"] == "mock:small??x-made: up?é?".encode("latin-1")
    assert told[b"x-gateway-profile"] == b"default"


@pytest.mark.parametrize("bound", [{"labels": ("near",)}, {"without": ("far",)}], ids=str)
@pytest.mark.parametrize("first", [["No."], [UpstreamFailure(Transient("down"))]], ids=["poor", "failed"])
async def test_a_tier_without_any_account_for_the_key_is_left_out(bound: dict[str, Any], first: list[Part]) -> None:
    """Else a short answer would turn into an error."""
    house = House()
    house.walk.upstream.rule = lambda who, asked: first
    caller = Principal(key_id="key_2", name="two", **bound)
    if first == ["No."]:
        stream = await house.router.chat(caller, request(), "req_1")
        assert (stream.answer.text, stream.tier) == ("No.", "local:small")
        await stream.aclose()
    else:
        with pytest.raises(UpstreamFailed):
            await house.router.chat(caller, request(), "req_1")
    assert house.asked == ["near"]


async def test_where_no_account_is_for_the_key_nothing_is_sent() -> None:
    house = House()
    with pytest.raises(Overloaded):
        await house.router.chat(Principal(key_id="key_2", name="two", providers=("other",)), request(), "req_1")
    assert house.asked == []


@pytest.mark.parametrize("bound", [{"providers": ("mock",)}, {"labels": ("ours",)}, {"without": ("theirs",)}], ids=str)
async def test_a_provider_that_is_not_the_keys_does_not_keep_its_own_from_emulating(bound: dict[str, Any]) -> None:
    own = replace(account("own"), labels=("ours",))
    other = replace(account("other"), provider="other", offer="other", labels=("theirs",))
    walk = Walk(own, other)
    able = Told()
    walk.upstream.capabilities = replace(walk.upstream.capabilities, structured=False)
    walk.upstream.rule = lambda who, asked: ['{"a": 1}']
    walk.upstreams["other"] = able
    asked = request("m", output=OutputFormat(kind="json_object"))
    stream = await walk.dispatcher.chat(Principal(key_id="key_2", name="two", **bound), asked, "req_1")
    await stream.aclose()
    assert (stream.attempt.lease.account.id, stream.attempt.fit.emulated) == ("own", ("response_format",))
    stream = await walk.dispatcher.chat(Principal(key_id="key_1", name="one"), asked, "req_2")
    await stream.aclose()
    assert (stream.attempt.lease.account.id, stream.attempt.fit.emulated) == ("other", ())


async def test_what_the_operator_adds_is_left_out_where_it_cannot_be_followed() -> None:
    """The caller did not send it: it is not for him to take it back. What he sent is his."""
    tiers = [{**TABLE["tiers"][0], "think": True}, *TABLE["tiers"][1:]]
    house = House({**TABLE, "tiers": tiers, "profiles": {"default": {"mode": "dispatch"}}})
    upstream = house.walk.upstream
    upstream.capabilities = replace(upstream.capabilities, parameters=frozenset({"temperature"}))
    caller = Principal(key_id="key_1", name="one")
    stream = await house.router.chat(caller, request("local:small", parameters={"temperature": 0.5}), "req_1")
    await stream.aclose()
    assert stream.attempt is not None
    assert stream.attempt.fit.dropped == ("reasoning_effort",)
    assert upstream.asked[0][1].parameters == {"temperature": 0.5}
    with pytest.raises(InvalidRequest, match="reasoning_effort"):
        await house.router.chat(caller, request("local:small", parameters={"reasoning_effort": "medium"}), "req_2")
