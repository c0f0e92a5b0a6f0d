"""The mock upstream: what it says, what it counts, and every fault it can rehearse."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.chat.events import Bound, Finished, Measured, TextDelta, ToolCallDelta
from poe_gateway.chat.request import ChatRequest, Message, TextPart
from poe_gateway.clock import Ids
from poe_gateway.pool.outcome import (
    AdapterDrift,
    Challenged,
    Depleted,
    NetworkFault,
    RateLimited,
    Rejected,
    Transient,
    Unauthorized,
)
from poe_gateway.upstreams.base import AccountRef, CredentialError, Fate, UpstreamFailure
from poe_gateway.upstreams.mock import MockUpstream
from poe_gateway.upstreams.mock.answer import slices


def account(rev: int = 0, **credentials) -> AccountRef:
    return AccountRef(id="acc_1", name="demo", offer="mock", credentials=credentials, credential_rev=rev)


def asking(text: str = "Hello there", **fields) -> ChatRequest:
    return ChatRequest(model="m", messages=(Message("user", (TextPart(text),)),), **fields)


async def talk(mock, ref, request, model="mock-1", bound=None):
    return [event async for event in mock.chat(ref, model, request, bound)]


def text_of(events) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def failure_of(mock, ref, request=None, model="mock-1") -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await talk(mock, ref, request or asking(), model)
    return caught.value


@pytest.mark.parametrize("model", ["mock-1", "mock-2", "gpt-4o-mini"])
async def test_the_first_120_characters_come_back_and_tokens_are_a_quarter(model):
    text = "word " * 40
    events = await talk(MockUpstream(), account(models=["gpt-4o-mini"]), asking(text), model)
    said = "[mock] ok: " + text[:120]
    assert text_of(events) == said
    assert events[-2:] == [Measured(prompt_tokens=50, completion_tokens=-(-len(said) // 4)), Finished("stop")]


async def test_echo_returns_the_whole_last_user_message():
    text = "äöü 🙂 " * 30_000
    events = await talk(MockUpstream(), account(), asking(text), "mock-echo")
    assert text_of(events) == text
    assert len(events) < 300


@given(st.text())
def test_slices_join_to_the_text_and_are_whole_code_points(text):
    pieces = list(slices(text))
    assert "".join(pieces) == text
    assert len(pieces) <= 256


async def test_slow_streams_in_time():
    started = asyncio.get_running_loop().time()
    events = await talk(MockUpstream(), account(slow_pieces=4, slow_pause_ms=20), asking(), "mock-slow")
    assert asyncio.get_running_loop().time() - started >= 0.07
    assert sum(isinstance(event, TextDelta) for event in events) == 4


async def test_an_unknown_model_is_a_block_of_that_model_only():
    failed = await failure_of(MockUpstream(), account(), model="gpt-9")
    assert failed.outcome == Rejected("The model 'gpt-9' does not exist.", 404, "model_not_found", "gpt-9")


OUTCOMES = {
    "rate_limited": (RateLimited, Fate.NOT_SENT),
    "depleted": (Depleted, Fate.NOT_SENT),
    "unauthorized": (Unauthorized, Fate.NOT_SENT),
    "challenged": (Challenged, Fate.NOT_SENT),
    "transient": (Transient, Fate.NOT_SENT),
    "timeout": (Transient, Fate.UNKNOWN),
    "network": (NetworkFault, Fate.NOT_SENT),
    "drift": (AdapterDrift, Fate.NOT_SENT),
    "rejected": (Rejected, Fate.NOT_SENT),
    "truncated": (Transient, Fate.ACCEPTED),
    "empty": (Transient, Fate.ACCEPTED),
}


@pytest.mark.parametrize("kind", OUTCOMES)
async def test_every_fault_by_plan_and_by_request(kind):
    mock = MockUpstream()
    planned = await failure_of(mock, account(faults=[{"kind": kind, "times": 1, "after": 0, "seconds": 0}]))
    assert text_of(await talk(mock, account(faults=[]), asking()))  # same revision: the plan of the first call rules
    asked = await failure_of(mock, account(), asking(metadata={"mock_fault": f"{kind}:0"}))
    for failed in (planned, asked):
        assert (type(failed.outcome), failed.fate) == OUTCOMES[kind]
    assert mock.stats("acc_1").faults == {kind: 2}
    assert mock.stats("acc_1").current == 0


async def test_a_plan_counts_calls():
    mock = MockUpstream()
    ref = account(faults=[{"kind": "rate_limited", "after": 1, "times": 2, "retry_after": 7}])
    await talk(mock, ref, asking())
    for _ in range(2):
        assert (await failure_of(mock, ref)).outcome == RateLimited(7.0, detail="rehearsed rate_limited")
    await talk(mock, ref, asking())


async def test_a_truncated_answer_gives_half_and_no_end():
    mock, got = MockUpstream(), []
    with pytest.raises(UpstreamFailure):
        async for event in mock.chat(account(), "mock-1", asking("a b c", metadata={"mock_fault": "truncated"}), None):
            got.append(event)
    assert 0 < len(text_of(got)) < len("[mock] ok: a b c")
    assert not any(isinstance(event, Finished) for event in got)


async def test_slow_start_is_late_but_whole():
    started = asyncio.get_running_loop().time()
    events = await talk(MockUpstream(), account(), asking(metadata={"mock_fault": "slow_start:0.05"}))
    assert asyncio.get_running_loop().time() - started >= 0.04
    assert events[-1] == Finished("stop")


async def test_an_unknown_fault_is_the_callers_error():
    failed = await failure_of(MockUpstream(), account(), asking(metadata={"mock_fault": "earthquake"}))
    assert isinstance(failed.outcome, Rejected)
    assert "rate_limited" in failed.outcome.public


async def test_the_purse_empties_and_new_credentials_fill_it():
    mock, ref = MockUpstream(), account(points=5, price=2)
    events = await talk(mock, ref, asking())
    assert next(e for e in events if isinstance(e, Measured)).points == 2
    await talk(mock, ref, asking())
    assert isinstance((await failure_of(mock, ref)).outcome, Depleted)
    assert (await mock.read_balance(ref)).points == 1
    assert (await mock.read_balance(account(1, points=9))).points == 9


async def test_faults_of_other_operations():
    mock = MockUpstream()
    ref = account(faults=[{"kind": "challenged", "on": "balance"}, {"kind": "network", "on": "probe"}])
    with pytest.raises(UpstreamFailure):
        await mock.read_balance(ref)
    with pytest.raises(UpstreamFailure):
        await mock.probe(ref)
    await mock.prewarm(ref)
    assert mock.stats("acc_1").after_challenge == 2


async def test_concurrency_is_seen_refused_and_given_back():
    mock, ref = MockUpstream(), account(max_concurrent=1)
    first = mock.chat(ref, "mock-1", asking(), None)
    await anext(first)
    assert isinstance((await failure_of(mock, ref)).outcome, RateLimited)
    assert (mock.stats("acc_1").current, mock.total.current) == (1, 1)
    await first.aclose()
    await talk(mock, ref, asking())
    stats = mock.stats("acc_1")
    assert (stats.current, stats.peak, stats.violations, stats.cancelled, stats.answered) == (0, 1, 1, 1, 1)
    assert (mock.total.current, mock.total.peak) == (0, 1)


async def test_a_cancelled_task_gives_its_slot_back():
    mock = MockUpstream()
    task = asyncio.create_task(talk(mock, account(), asking(), "mock-slow"))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (mock.stats("acc_1").current, mock.stats("acc_1").cancelled) == (0, 1)


async def test_leaving_after_the_last_event_is_not_a_cancellation():
    mock = MockUpstream()
    stream = mock.chat(account(), "mock-1", asking(), None)
    async for event in stream:
        if isinstance(event, Finished):
            break
    await stream.aclose()
    assert (mock.stats("acc_1").cancelled, mock.stats("acc_1").answered) == (0, 1)


async def test_a_session_goes_on_in_its_conversation():
    mock, request = MockUpstream(ids=Ids(1)), asking(session_id="s")
    first = next(e for e in await talk(mock, account(), request) if isinstance(e, Bound))
    again = next(e for e in await talk(mock, account(), request, bound=first.state) if isinstance(e, Bound))
    assert first == again
    assert mock.stats("acc_1").conversations == {first.state["conversation"]: 2}
    assert not any(isinstance(e, Bound) for e in await talk(mock, account(), asking()))


async def test_a_tool_call_on_request():
    events = await talk(MockUpstream(), account(), asking("hi", metadata={"mock_tool": "look"}))
    calls = [call for event in events if isinstance(event, ToolCallDelta) for call in event.calls]
    assert calls[0]["function"]["name"] == "look"
    assert "".join(call["function"]["arguments"] for call in calls) == '{"text":"hi"}'
    assert events[-1] == Finished("tool_calls")


def test_offers_follow_the_set_of_names():
    describe = MockUpstream().describe
    assert describe({}).offer == "mock"
    assert describe({"models": ["mock-1"]}).offer == "mock"
    assert describe({"models": ["b", "a"]}).offer == describe({"models": ["a", "b"]}).offer != "mock"
    assert describe({"points": 0}).metered
    assert not describe({}).metered


async def test_models_of_an_account():
    names = [model.id for model in await MockUpstream().list_models(account(models=["x", "mock-1"]))]
    assert names == ["mock-1", "mock-2", "mock-echo", "mock-slow", "x"]


@pytest.mark.parametrize(
    ("credentials", "field"),
    [
        ({"points": -1}, "points"),
        ({"points": True}, "points"),
        ({"models": [1]}, "models"),
        ({"models": "x"}, "models"),
        ({"max_concurrent": 0}, "max_concurrent"),
        ({"faults": [{"kind": "flood"}]}, "faults"),
        ({"faults": [{"kind": "empty", "when": 1}]}, "faults"),
        ({"api_key": "x"}, "api_key"),
    ],
)
def test_bad_credentials_name_the_field(credentials, field):
    with pytest.raises(CredentialError) as caught:
        MockUpstream().describe(credentials)
    assert caught.value.field == field


async def test_a_price_in_money_is_told_as_it_is_written():
    events = await talk(MockUpstream(), account(cost="0.0120"), asking())
    assert next(e for e in events if isinstance(e, Measured)).cost == "0.0120"
    with pytest.raises(CredentialError) as refused:
        MockUpstream().describe({"cost": "1e-3"})
    assert refused.value.field == "cost"
