"""Tools, forms and ends of answers through the real adapter: the emulated bot knows only what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from poe_gateway.chat.events import Finished, ToolCallDelta
from poe_gateway.chat.request import (
    ChatRequest,
    ImagePart,
    Message,
    OutputFormat,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)
from poe_gateway.chat.tool_calls import merged
from poe_gateway.dispatch.fitting import answered, fit
from poe_gateway.pool.outcome import RateLimited, Rejected
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.poe_web import PoeWeb
from tests.poe_web.kit import Said, ref, user

PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
WEATHER = Tool(name="get_weather", description="The weather of a city.", parameters=PLACE)
CLOCK = Tool(name="get_time", description="The time of day.", parameters=PLACE)
PNG = ImagePart("data:image/png;base64,iVBORw0KGgo=")


class Answer(Said):
    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return merged([call for event in self.events if isinstance(event, ToolCallDelta) for call in event.calls])

    @property
    def finish(self) -> str:
        last = self.events[-1]
        return last.reason if isinstance(last, Finished) else ""


def asking(*messages: Message | str, **more: Any) -> ChatRequest:
    turns = tuple(user(message) if isinstance(message, str) else message for message in messages)
    return ChatRequest(model="GPT-4o-Mini", messages=turns, **more)


async def ask(poe: PoeWeb, account: Any, request: ChatRequest, bound: Mapping[str, Any] | None = None) -> Answer:
    said = Answer()
    how = fit(request, poe.capabilities)
    try:
        async for event in answered(how, poe, ref(account), "GPT-4o-Mini", request, bound, salt="req_1"):
            said.events.append(event)
    except UpstreamFailure as failure:
        said.failure = failure
    return said


def after(request: ChatRequest, said: Answer, *results: str, parts: tuple[Any, ...] = ()) -> tuple[Message, ...]:
    """The turns that a caller adds once its tools have answered, the last result first."""
    told = [
        Message("tool", (TextPart(text), *parts), tool_call_id=call.id)
        for call, text in zip(said.calls, results, strict=True)
    ]
    return (*request.messages, Message("assistant", (TextPart(said.text),), tool_calls=said.calls), *reversed(told))


async def test_a_tool_is_called_and_its_result_is_used(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    account.follows = "well"
    request = asking(Message("system", (TextPart("Be short."),)), "What is the weather in Paris?", tools=(WEATHER,))
    first = await ask(poe, account, request)
    assert (first.finish, first.text) == ("tool_calls", "Let me look.")
    assert [(call.name, orjson.loads(call.arguments)) for call in first.calls] == [
        ("get_weather", {"city": "Paris", "unit": "celsius"})
    ]
    second = await ask(poe, account, replace(request, messages=after(request, first, "18 degrees")))
    assert (second.finish, second.text, second.calls) == ("stop", "The tools say: 18 degrees", ())
    assert (first.points, second.points) == (20, 20)


async def test_several_tools_are_called_at_once_and_results_come_in_their_order(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    account.follows = "well"
    request = asking("What is the weather in Paris, and in Rome?", tools=(CLOCK, WEATHER))
    request = replace(request, tool_choice=ToolChoice(mode="required", name="get_weather"))
    first = await ask(poe, account, request)
    assert [orjson.loads(call.arguments)["city"] for call in first.calls] == ["Paris", "Rome"]
    assert {call.name for call in first.calls} == {"get_weather"} and len({call.id for call in first.calls}) == 2
    turns = after(request, first, "18 degrees", "25 degrees", parts=(PNG,))
    second = await ask(poe, account, replace(request, messages=turns, tool_choice=None))
    assert second.text == "The tools say: 18 degrees | 25 degrees"
    assert account.stats.uploads == 2


async def test_one_call_at_a_time_where_that_is_asked_for(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    account.follows = "well"
    request = asking("What is the weather in Paris, and in Rome?", tools=(WEATHER,), parallel_tool_calls=False)
    assert [orjson.loads(call.arguments)["city"] for call in (await ask(poe, account, request)).calls] == ["Paris"]


async def test_a_session_goes_on_after_the_call_with_the_result_alone(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    account.follows = "well"
    request = asking("What is the weather in Paris, and in Rome?", tools=(WEATHER,), session_id="s")
    first = await ask(poe, account, request)
    results = after(request, first, "18 degrees", "25 degrees")[2:]
    second = await ask(poe, account, replace(request, messages=results), first.bound)
    assert second.text == "The tools say: 18 degrees | 25 degrees"
    assert account.stats.chats_created == 1


@pytest.mark.parametrize("session", [None, "s"])
async def test_a_bad_call_is_put_right_in_a_second_turn_and_both_are_paid(
    poe: PoeWeb, emulator: Any, session: str | None
) -> None:
    account = emulator.accounts[0]
    account.follows = "clumsily"
    said = await ask(poe, account, asking("Weather in Paris?", tools=(WEATHER,), session_id=session))
    assert (said.finish, said.text, said.points) == ("tool_calls", "Let me look.", 40)
    assert orjson.loads(said.calls[0].arguments) == {"city": "Paris", "unit": "celsius"}
    await poe.close()
    assert account.stats.sends_accepted == 2
    assert (account.stats.chats_created, account.stats.chats_deleted) == ((1, 0) if session else (2, 2))


async def test_a_model_that_never_learns_is_shown_in_its_own_words(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    account.follows = "never"
    said = await ask(poe, account, asking("Weather in Paris?", tools=(WEATHER,)))
    assert said.finish == "stop" and said.calls == () and said.points == 40
    assert said.text.startswith("Let me look.\n{") and "tool_call>" not in said.text


@pytest.mark.parametrize(
    "wanted",
    [
        {"tools": (WEATHER,), "tool_choice": ToolChoice(mode="required")},
        {"output": OutputFormat(kind="json_schema", schema=PLACE)},
        {"output": OutputFormat(kind="json_object")},
    ],
    ids=["required", "schema", "object"],
)
async def test_what_must_be_and_is_not_is_an_error_that_blames_no_account(
    poe: PoeWeb, emulator: Any, wanted: dict[str, Any]
) -> None:
    account = emulator.accounts[0]
    account.follows = "never"
    said = await ask(poe, account, asking("Weather in Paris?", **wanted))
    assert isinstance(said.outcome, Rejected) and said.fate is Fate.ACCEPTED
    assert (said.outcome.status, said.outcome.code) == (502, "invalid_output")
    assert said.text == "" and said.points == 40


@pytest.mark.parametrize("how", ["well", "clumsily"])
async def test_an_answer_comes_in_the_form_of_its_schema(poe: PoeWeb, emulator: Any, how: str) -> None:
    account = emulator.accounts[0]
    account.follows = how
    said = await ask(poe, account, asking("Where?", output=OutputFormat(kind="json_schema", name="p", schema=PLACE)))
    assert (said.finish, orjson.loads(said.text)) == ("stop", {"city": "Where?", "unit": "celsius"})


async def test_a_tool_is_called_before_the_answer_takes_its_form(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    account.follows = "well"
    form = OutputFormat(kind="json_schema", schema={"type": "object", "properties": {"degrees": {"type": "integer"}}})
    request = asking("What is the weather in Paris?", tools=(WEATHER,), output=form)
    first = await ask(poe, account, request)
    assert first.finish == "tool_calls"
    second = await ask(poe, account, replace(request, messages=after(request, first, "18 degrees")))
    assert (second.finish, orjson.loads(second.text)) == ("stop", {"degrees": 18})


@pytest.mark.parametrize(
    ("parameters", "text", "finish"),
    [
        ({"stop": ["STOP"]}, "echo: one ", "stop"),
        ({"max_tokens": 3}, "echo: one ST", "length"),
        ({"max_completion_tokens": 2, "stop": "STOP"}, "echo: on", "length"),
    ],
    ids=["stop", "max_tokens", "both"],
)
async def test_an_answer_that_is_cut_is_cancelled_on_the_site(
    poe: PoeWeb, emulator: Any, parameters: dict[str, Any], text: str, finish: str
) -> None:
    account = emulator.accounts[0]
    said = await ask(poe, account, asking("one STOP two" + " [[chunks:40]] [[delay:0.05]]", parameters=parameters))
    assert (said.text, said.finish) == (text, finish)
    await emulator.idle()
    assert (account.stats.answers_cancelled, account.stats.answers_completed) == (1, 0)


async def test_a_caller_that_leaves_takes_the_answer_with_it(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    request = asking("hello [[chunks:40]] [[delay:0.05]]", tools=(WEATHER,))
    events = answered(fit(request, poe.capabilities), poe, ref(account), "GPT-4o-Mini", request, None)
    await anext(events)
    await anext(events)
    await events.aclose()
    await emulator.idle()
    assert (account.stats.answers_cancelled, account.stats.answers_completed) == (1, 0)


async def test_the_second_turn_may_fail_but_the_first_was_accepted(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    account.follows = "clumsily"
    account.rate_limit = (1, 60.0)
    said = await ask(poe, account, asking("Weather in Paris?", tools=(WEATHER,)))
    assert isinstance(said.outcome, RateLimited) and said.fate is Fate.ACCEPTED and said.points == 20


async def test_replaced_texts_are_read_anew(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    account.follows = "well"
    asked = [asking(f"Weather in {city}? [[replace]] [[chunks:9]]", tools=(WEATHER,)) for city in ("Paris", "Rome")]
    account.concurrency = 5
    said = await asyncio.gather(*(ask(poe, account, request) for request in asked))
    assert [orjson.loads(each.calls[0].arguments)["city"] for each in said] == ["Paris", "Rome"]
    assert [each.text for each in said] == ["Let me look.", "Let me look."]


async def test_a_message_may_say_itself_how_well_it_is_followed(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    for marker, sent in (("[[follow]]", 1), ("[[follow:clumsily]]", 2)):
        before = account.stats.sends_accepted
        said = await ask(poe, account, asking(f"Weather in Paris? {marker}", tools=(WEATHER,)))
        assert len(said.calls) == 1 and account.stats.sends_accepted - before == sent
