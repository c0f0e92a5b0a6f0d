"""What is passed on, emulated, dropped or refused; and the walk of an emulated answer."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from poe_gateway.chat.anthropic import AnthropicMessages
from poe_gateway.chat.dialect import Dialect
from poe_gateway.chat.events import (
    Bound,
    Discarded,
    Finished,
    Measured,
    ReasoningDelta,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
)
from poe_gateway.chat.ollama import OllamaChat
from poe_gateway.chat.request import ChatRequest, ImagePart, Message, OutputFormat, TextPart, ToolCall, ToolChoice
from poe_gateway.dispatch.fitting import NOTHING, answered, fit
from poe_gateway.errors import InvalidRequest
from poe_gateway.pool.outcome import RateLimited, Rejected, Transient
from poe_gateway.upstreams.base import Capabilities, Fate, UpstreamFailure
from tests.support.responses import asked
from tests.unit.emulating import CITY, NOW, REF, WEATHER, Chat, ask, asking

WORDS = Capabilities()
"""Can only chat."""
ALL = Capabilities(images=True, tools=True, structured=True, parameters=None)
SOME = Capabilities(tools=True, structured=True, parameters=frozenset({"temperature", "max_tokens"}))
PICTURE = Message("user", (TextPart("What is it?"), ImagePart("https://example.test/a.png")))
JSON = OutputFormat(kind="json_object")
FORM = OutputFormat(kind="json_schema", schema=CITY)
CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>'
BAD = '<tool_call>{"name": "get_weather", "arguments": {}}</tool_call>'


def refused(request: ChatRequest, capabilities: Capabilities, **more: Any) -> tuple[str | None, str | None, str]:
    with pytest.raises(InvalidRequest) as caught:
        fit(request, capabilities, **more)
    return caught.value.code, caught.value.param, caught.value.message


@pytest.mark.parametrize("capabilities", [WORDS, SOME, ALL], ids=["words", "some", "all"])
def test_a_plain_request_costs_nothing(capabilities: Capabilities) -> None:
    assert fit(asking("Hello?", session_id="s", stream=True), capabilities) is NOTHING


def test_what_the_upstream_can_do_is_left_to_it() -> None:
    request = asking(
        PICTURE, tools=(WEATHER,), tool_choice=ToolChoice(mode="required"), output=FORM, parameters={"stop": [], "x": 1}
    )
    assert fit(request, ALL) is NOTHING


HARMLESS: dict[str, Any] = {
    "user": "u",
    "metadata": {"a": "b"},
    "store": True,
    "service_tier": "flex",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "temperature": 1,
    "top_p": 1.0,
    "n": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "seed": None,
    "modalities": ["text"],
    "parallel_tool_calls": True,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_nothing_is_always_accepted(name: str) -> None:
    how = fit(asking(parameters={name: HARMLESS[name]}), WORDS)
    assert (how.emulated, how.dropped, how.parameters) == ((), (), {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("temperature", True),
        ("top_p", 0.9),
        ("n", 2),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"50256": -100}),
        ("seed", 7),
        ("presence_penalty", False),
        ("reasoning_effort", "high"),
        ("web_search_options", {}),
        ("temprature", 1),
        ("size", "1024x1024"),
    ],
)
def test_what_can_be_neither_done_nor_emulated_is_refused_or_dropped_and_named(name: str, value: Any) -> None:
    request = asking(parameters={"user": "u", name: value})
    code, param, message = refused(request, WORDS)
    assert (code, param) == ("unsupported_parameter", name) and "not supported by the accounts" in message
    how = fit(request, WORDS, drop=True)
    assert (how.dropped, how.emulated, how.parameters) == ((name,), (), {})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"temperature": 0.5}, "temperature"),
    ],
    ids=["effort", "verbosity", "top_logprobs", "include", "the same word"],
)
def test_a_field_is_named_as_the_dialect_writes_it(given: dict[str, Any], name: str) -> None:
    request = asked(**given)
    code, param, message = refused(request, WORDS)
    assert (code, param) == ("unsupported_parameter", name) and message.startswith(f"'{name}' is not supported")
    assert fit(request, WORDS, drop=True).dropped == (name,)


@pytest.mark.parametrize(
    ("dialect", "given", "name"),
    [
        (AnthropicMessages(), {"max_tokens": 9, "output_config": {"effort": "low"}}, "output_config.effort"),
        (AnthropicMessages(), {"max_tokens": 9, "top_k": 5}, "top_k"),
        (OllamaChat(), {"think": True}, "think"),
        (OllamaChat(), {"options": {"repeat_penalty": 1.5}}, "repeat_penalty"),
    ],
    ids=["anthropic effort", "anthropic top_k", "ollama think", "ollama repeat_penalty"],
)
def test_every_dialect_is_answered_in_its_own_words(dialect: Dialect, given: dict[str, Any], name: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **given}
    assert refused(dialect.parse(orjson.dumps(body)), Capabilities(parameters=frozenset({"max_tokens"})))[1] == name


def test_pictures_and_schemas_are_named_as_the_dialect_writes_them() -> None:
    picture = {"type": "input_image", "image_url": "https://x.example/a.png"}
    assert refused(asked(input=[{"role": "user", "content": [picture]}]), WORDS)[:2] == ("unsupported_content", "input")
    form = {"type": "json_schema", "name": "f", "schema": {"type": "nothing"}}
    code, param, message = refused(asked(text={"format": form}), WORDS)
    assert (code, param) == ("invalid_schema", "text.format") and "'text.format'" in message


def test_what_the_operators_routing_gave_is_dropped_and_not_the_callers_fault() -> None:
    request = asking(parameters={"reasoning_effort": "medium", "seed": 7}, defaults=("reasoning_effort",))
    assert refused(request, WORDS)[:2] == ("unsupported_parameter", "seed")
    request = asking(parameters={"reasoning_effort": "medium"}, defaults=("reasoning_effort",))
    assert fit(request, WORDS).dropped == ("reasoning_effort",)


def test_followed_parameters_are_passed_on_and_only_those() -> None:
    request = asking(parameters={"temperature": 0.3, "top_p": 1, "stop": "X", "max_tokens": 9, "seed": 1})
    how = fit(request, SOME, drop=True)
    assert how.parameters == {"temperature": 0.3, "max_tokens": 9}
    assert (how.emulated, how.dropped) == (("stop",), ("seed",))
    renamed = fit(asking(parameters={"max_completion_tokens": 5}), SOME)
    assert (renamed.parameters, renamed.emulated) == ({"max_tokens": 5}, ())


@pytest.mark.parametrize(
    ("more", "emulated"),
    [
        ({"tools": (WEATHER,)}, ("tools",)),
        ({"output": JSON}, ("response_format",)),
        ({"parameters": {"stop": "X"}}, ("stop",)),
        ({"parameters": {"stop": []}}, ()),
        ({"parameters": {"max_completion_tokens": 7}}, ("max_tokens",)),
        (
            {"tools": (WEATHER,), "output": FORM, "parameters": {"stop": ["a"], "max_tokens": 1}},
            ("tools", "response_format", "stop", "max_tokens"),
        ),
        ({"tools": (WEATHER,), "tool_choice": ToolChoice(mode="none")}, ()),
    ],
    ids=["tools", "form", "stop", "no stops", "limit", "all", "no tools now"],
)
def test_what_is_emulated_is_said(more: dict[str, Any], emulated: tuple[str, ...]) -> None:
    assert fit(asking(**more), WORDS).emulated == emulated
    assert (fit(asking(**more), WORDS, drop=True)).dropped == ()


def test_tools_of_earlier_turns_are_emulated_too() -> None:
    past = asking("Weather?", Message("assistant", (), tool_calls=(ToolCall("a", "now", "{}"),)))
    assert fit(past, WORDS).emulated == ("tools",)
    assert fit(asking(Message("tool", (TextPart("18"),), tool_call_id="a")), WORDS).emulated == ("tools",)
    assert fit(past, ALL) is NOTHING


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stop", 3),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", ["a", 3]),
        ("stop", ["a"] * 17),
        ("stop", {"a": 1}),
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("max_tokens", "7"),
        ("max_completion_tokens", float("nan")),
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused(name: str, value: Any) -> None:
    code, param, message = refused(asking(parameters={name: value}), WORDS, drop=True)
    assert (code, param) == (None, name) and f"'{name}'" in message


@pytest.mark.parametrize("operation", ["embed", "image"])
def test_other_operations_need_an_upstream_that_can(operation: Any) -> None:
    request = asking(operation=operation)
    assert refused(request, ALL, drop=True)[:2] == ("unsupported_operation", "model")
    can = Capabilities(operations=frozenset({operation}))
    assert fit(request, can) is NOTHING
    assert refused(asking(), can)[:2] == ("unsupported_operation", "model")
    limited = asking(operation=operation, parameters={"max_tokens": 3})
    assert refused(limited, can)[:2] == ("unsupported_parameter", "max_tokens")


def test_pictures_need_an_upstream_that_can() -> None:
    assert refused(asking("Hello?", PICTURE), WORDS, drop=True)[:2] == ("unsupported_content", "messages")
    assert fit(asking(PICTURE), Capabilities(images=True)) is NOTHING


def test_schemas_that_cannot_be_used_are_refused_only_where_they_are_needed() -> None:
    broken = {"$ref": "https://example.test/schema"}
    tools = asking(tools=(WEATHER, type(NOW)(name="far", parameters=broken)))
    assert refused(tools, WORDS, drop=True)[:2] == ("invalid_schema", "tools")
    assert "'far'" in refused(tools, WORDS)[2]
    form = asking(output=OutputFormat(kind="json_schema", schema=broken))
    assert refused(form, WORDS)[:2] == ("invalid_schema", "response_format")
    assert fit(tools, ALL) is NOTHING and fit(form, ALL) is NOTHING


def test_a_tool_that_must_be_called_must_be_there() -> None:
    request = asking(tools=(NOW,), tool_choice=ToolChoice(mode="required", name="get_weather"))
    assert refused(request, WORDS)[:2] == (None, "tool_choice")


# ---------------------------------------------------------------- the walk


async def test_nothing_stands_between_when_nothing_is_emulated() -> None:
    upstream = Chat("Hello.", "Hello.", capabilities=SOME)
    request = asking(parameters={"temperature": 0.2, "user": "u"})
    events = answered(fit(request, SOME), upstream, REF, "m", request, None)
    assert events.__qualname__ == "Chat.chat"  # type: ignore[attr-defined]
    await anext(events)
    assert upstream.asked[0][0].parameters == {"temperature": 0.2}
    await events.aclose()
    plain = asking()
    await anext(answered(NOTHING, upstream, REF, "m", plain, {"chat": 1}))
    assert upstream.asked[1] == (plain, {"chat": 1}) and upstream.asked[1][0] is plain


async def test_a_call_is_made_of_what_the_model_writes() -> None:
    upstream = Chat((TextDelta("Let me "), TextDelta(f"look.\n{CALL}"), Measured(points=3), Finished()))
    said = await ask(upstream, asking(tools=(WEATHER,)), salt="req_1")
    assert [type(event) for event in said.events] == [TextDelta, TextDelta, Measured, ToolCallDelta, Finished]
    assert (said.text, said.finish) == ("Let me look.", Finished("tool_calls"))
    assert [(call.name, call.arguments) for call in said.calls] == [("get_weather", '{"city": "Paris"}')]
    assert upstream.asked[0][0].tools == () and upstream.closed == 1


async def test_words_pass_as_they_come() -> None:
    upstream = Chat(
        (ReasoningDelta("hm"), TextDelta("It is "), TextDelta("sunny."), Bound({"a": 1}), Finished("length"))
    )
    said = await ask(upstream, asking(tools=(WEATHER,)))
    assert said.events == [
        ReasoningDelta("hm"),
        TextDelta("It is"),
        TextDelta(" sunny."),
        Bound({"a": 1}),
        Finished("length"),
    ]


CONVERSATIONS: dict[str, tuple[dict[str, Any], Any, bool, Any, int]] = {
    "kept": ({"session_id": "s"}, None, True, {"chat": 7}, 1),
    "continued": ({}, {"chat": 1}, True, {"chat": 7}, 1),
    "not kept": ({}, None, True, None, 4),
    "the upstream keeps none": ({"session_id": "s"}, None, False, None, 4),
}


@pytest.mark.parametrize(("more", "bound", "sessions", "second", "turns"), CONVERSATIONS.values(), ids=CONVERSATIONS)
async def test_a_bad_answer_is_corrected_once_in_the_same_conversation(
    more: dict[str, Any], bound: Any, sessions: bool, second: Any, turns: int
) -> None:
    upstream = Chat(
        (Bound({"chat": 7}), TextDelta("Look: "), TextDelta(BAD), Measured(points=3, cost="0.1"), Finished()),
        (Measured(points=4, cost="0.2"), TextDelta("Now: " + CALL), Finished()),
        capabilities=Capabilities(sessions=sessions),
    )
    said = await ask(upstream, asking(tools=(WEATHER,), **more), bound)
    assert (said.text, said.finish, len(said.calls)) == ("Look:", Finished("tool_calls"), 1)
    assert [(event.points, event.cost) for event in said.events if isinstance(event, Measured)] == [
        (3, "0.1"),
        (7, "0.3"),
    ]
    (_, first_bound), (again, again_bound) = upstream.asked
    assert (first_bound, again_bound, len(again.messages)) == (bound, second, turns)
    assert "'city' is a required property" in again.messages[-1].text
    if turns > 1:
        assert again.messages[-2] == Message("assistant", (TextPart("Look: " + BAD),))


async def test_a_continued_conversation_without_news_of_itself_goes_on() -> None:
    upstream = Chat(BAD, CALL)
    said = await ask(upstream, asking(tools=(WEATHER,)), {"chat": 1})
    assert len(said.calls) == 1 and upstream.asked[1][1] == {"chat": 1}


async def test_words_instead_of_a_corrected_call_replace_what_was_shown() -> None:
    said = await ask(Chat("Look: " + BAD, "It is sunny."), asking(tools=(WEATHER,)))
    assert (said.text, said.calls, said.finish) == ("It is sunny.", (), Finished("stop"))
    assert TextReplaced("It is sunny.") in said.events


async def test_after_a_second_bad_call_the_words_stand() -> None:
    said = await ask(Chat(BAD, "Look: " + BAD), asking(tools=(WEATHER,)))
    assert (said.text, said.calls) == ('Look:\n{"name": "get_weather", "arguments": {}}\n', ())
    assert said.finish == Finished("stop") and said.failure is None


@pytest.mark.parametrize(
    "more",
    [
        {"tools": (WEATHER,), "tool_choice": ToolChoice(mode="required")},
        {"tools": (WEATHER, NOW), "tool_choice": ToolChoice(mode="required", name="get_weather")},
        {"output": JSON},
        {"output": FORM},
        {"tools": (WEATHER,), "output": FORM},
    ],
    ids=["required", "named", "object", "schema", "tools and schema"],
)
async def test_what_must_be_and_twice_is_not_fails_before_anything_was_shown(more: dict[str, Any]) -> None:
    upstream = Chat("It is sunny.", "I told you.")
    said = await ask(upstream, asking(**more))
    assert said.events == [Discarded("It is sunny."), Discarded("I told you.")], "paid, and not shown"
    assert said.failure is not None and said.failure.fate is Fate.ACCEPTED
    outcome = said.failure.outcome
    assert isinstance(outcome, Rejected) and (outcome.status, outcome.code) == (502, "invalid_output")
    assert len(upstream.asked) == upstream.closed == 2


@pytest.mark.parametrize("answer", ['{"city": "Rome"}', '```json\n{"city": "Rome"}\n```', 'Sure: {"city": "Rome"}.'])
async def test_json_is_handed_over_bare(answer: str) -> None:
    said = await ask(Chat(answer), asking(output=FORM))
    assert (said.text, said.finish) == ('{"city": "Rome"}', Finished("stop"))


async def test_json_is_corrected() -> None:
    said = await ask(Chat('{"city": 3}', '{"city": "Rome"}'), asking(output=FORM))
    assert said.text == '{"city": "Rome"}'


async def test_a_form_is_emulated_beside_an_upstream_that_calls_tools_itself() -> None:
    call = ToolCallDelta(({"index": 0, "id": "x", "type": "function", "function": {"name": "now", "arguments": "{}"}},))
    upstream = Chat((call, Finished("tool_calls")), capabilities=Capabilities(tools=True))
    said = await ask(upstream, asking(tools=(NOW,), output=FORM))
    assert said.events == [call, Finished("tool_calls")]
    assert upstream.asked[0][0].tools == (NOW,)


async def test_a_schema_that_takes_too_long_is_the_callers_fault() -> None:
    form = OutputFormat(kind="json_schema", schema={"$ref": "#"})
    said = await ask(Chat('{"a": 1}'), asking(output=form))
    assert said.failure is not None and isinstance(said.failure.outcome, Rejected)
    assert (said.failure.outcome.status, said.failure.outcome.code) == (400, "invalid_schema")


@pytest.mark.parametrize(
    ("parameters", "text", "finished"),
    [
        ({"stop": ["three", "t"]}, "one ", Finished("stop", "t")),
        ({"stop": "four"}, "one two three", Finished("stop")),
        ({"max_tokens": 1}, "one ", Finished("length")),
        ({"max_tokens": 2, "max_completion_tokens": 1}, "one ", Finished("length")),
        ({"max_tokens": 4}, "one two three", Finished("stop")),
        ({"max_tokens": 1, "stop": "e"}, "on", Finished("stop", "e")),
        ({"max_tokens": 2, "stop": "two"}, "one ", Finished("stop", "two")),
        ({"max_tokens": 1, "stop": " x"}, "one ", Finished("length")),
    ],
    ids=["stop", "no stop", "limit", "both limits", "below", "stop first", "together", "held"],
)
async def test_what_cuts_an_answer_closes_the_upstream_at_once(
    parameters: dict[str, Any], text: str, finished: Finished
) -> None:
    script = [TextDelta(piece) for piece in ("one", " t", "wo", " three")]
    upstream = Chat((*script, Finished()))
    events = []
    request = asking(parameters=parameters)
    async for event in answered(fit(request, WORDS), upstream, REF, "m", request, None):
        if isinstance(event, Finished):
            assert upstream.closed == 1
        events.append(event)
    assert (events[-1], "".join(each.text for each in events[:-1] if isinstance(each, TextDelta))) == (finished, text)


async def test_tokens_are_counted_by_the_counter_that_is_given() -> None:
    said = await ask(Chat("one two three"), asking(parameters={"max_tokens": 2}), count=lambda text: len(text.split()))
    assert (said.text, said.finish) == ("one two ", Finished("length"))


async def test_a_stop_cuts_words_but_not_the_form_of_calls() -> None:
    request = asking(tools=(WEATHER,), parameters={"stop": ["}", "STOP"]})
    said = await ask(Chat(f"Look. {CALL}"), request)
    assert (said.text, len(said.calls), said.finish) == ("Look.", 1, Finished("tool_calls"))
    said = await ask(Chat(f"Look. STOP {CALL}"), request)
    assert (said.text, said.calls, said.finish) == ("Look. ", (), Finished("stop", "STOP"))


async def test_an_answer_at_its_limit_is_not_corrected() -> None:
    upstream = Chat('{"city": "Rome", "days": 3}')
    said = await ask(upstream, asking(output=FORM, parameters={"max_tokens": 2}))
    assert (said.text, said.finish, len(upstream.asked)) == ('{"city":', Finished("length"), 1)


async def test_leaving_early_closes_the_upstream_at_once_in_either_call() -> None:
    for scripts, steps in (((f"Look: {CALL}",), 1), ((BAD, (Measured(points=1), TextDelta(CALL), Finished())), 2)):
        upstream = Chat(*scripts)
        request = asking(tools=(WEATHER,))
        events = answered(fit(request, WORDS), upstream, REF, "m", request, None)
        for _ in range(steps):
            await anext(events)
        await events.aclose()
        assert upstream.closed == len(scripts)


@pytest.mark.parametrize("fate", list(Fate))
async def test_failures_pass_but_a_message_that_was_accepted_stays_so(fate: Fate) -> None:
    failure = UpstreamFailure(RateLimited(), fate)
    said = await ask(Chat((TextDelta("It"), failure)), asking(tools=(WEATHER,)))
    assert said.failure is failure
    said = await ask(Chat(BAD, (failure,)), asking(tools=(WEATHER,)))
    assert said.failure is not None and isinstance(said.failure.outcome, RateLimited)
    assert said.failure.fate is (Fate.ACCEPTED if fate is Fate.NOT_SENT else fate)


async def test_an_answer_that_is_cut_off_stays_so() -> None:
    for script in ((TextDelta("It is"),), (TextDelta(CALL),)):
        said = await ask(Chat(script), asking(tools=(WEATHER,)))
        assert said.finish is None and said.calls == ()
    said = await ask(Chat(BAD, (TextDelta(CALL),)), asking(tools=(WEATHER,)))
    assert said.finish is None and said.calls == ()


async def test_a_failed_answer_keeps_its_figures() -> None:
    said = await ask(Chat((Measured(points=9), UpstreamFailure(Transient("no"), Fate.ACCEPTED))), asking(output=JSON))
    assert said.events == [Measured(points=9)] and said.failure is not None


def test_everything_emulated_can_be_written_as_json() -> None:
    how = fit(asking(tools=(WEATHER,), parameters={"stop": "x", "seed": 1}), WORDS, drop=True)
    assert orjson.loads(orjson.dumps([how.emulated, how.dropped])) == [["tools", "stop"], ["seed"]]
