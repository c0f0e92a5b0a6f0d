"""Whole answers of ``/v1/responses``, and their replays, by the SDK's own types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response

from poe_gateway.chat.events import ChatEvent, ImageMade, ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from poe_gateway.chat.responses.objects import item_id, response_of
from poe_gateway.chat.responses.replay import replay
from poe_gateway.chat.usage import Usage
from tests.support.responses import DIALECT, RESPONSE_ID, asked, decoded, head_of, read_by_sdk, reply_of

CALL = ToolCallDelta(({"index": 0, "id": "c1", "function": {"name": "add", "arguments": '{"a":1}'}},))
EVERYTHING: list[ChatEvent] = [
    ReasoningDelta("hm", "sig"),
    TextDelta("A", ({"token": "A", "logprob": -0.1},)),
    RefusalDelta("No."),
    CALL,
    ImageMade(base64="QUJD", revised_prompt="a cat"),
]


def test_every_field_of_the_object_is_there() -> None:
    tools = [{"type": "function", "name": "add", "parameters": {"type": "object"}, "strict": False}]
    form = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
    request = asked(
        instructions="I",
        tools=tools,
        tool_choice={"type": "function", "name": "add"},
        text={"format": form, "verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto"},
        metadata={"a": "b"},
        max_output_tokens=9,
        max_tool_calls=2,
        temperature=0.5,
        top_p=0.25,
        top_logprobs=2,
        parallel_tool_calls=False,
        store=True,
        user="u",
        safety_identifier="s",
        prompt_cache_key="k",
        service_tier="flex",
    )
    told = json.loads(DIALECT.whole(reply_of(head_of(request), [TextDelta("A")], kept=True)))
    assert told["output"][0]["content"][0]["text"] == "A"
    del told["output"], told["usage"]
    assert told == {
        "id": RESPONSE_ID,
        "object": "response",
        "created_at": 1_700_000_000,
        "completed_at": 1_700_000_002,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": "I",
        "max_output_tokens": 9,
        "max_tool_calls": 2,
        "metadata": {"a": "b"},
        "model": "mock-1-real",
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "prompt_cache_key": "k",
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "s",
        "service_tier": "flex",
        "store": True,
        "temperature": 0.5,
        "text": {"format": form, "verbosity": "low"},
        "tool_choice": {"type": "function", "name": "add"},
        "tools": tools,
        "top_logprobs": 2,
        "top_p": 0.25,
        "truncation": "disabled",
        "user": "u",
    }
    Response.model_validate({**told, "output": []})


def test_what_was_not_said_has_the_api_s_defaults() -> None:
    told = Response.model_validate_json(DIALECT.whole(reply_of(head_of(asked()), [TextDelta("A")])))
    assert (told.tools, told.tool_choice, told.parallel_tool_calls) == ([], "auto", True)
    assert (told.temperature, told.top_p, told.truncation, told.background) == (1.0, 1.0, "disabled", False)
    assert told.text is not None and told.text.format is not None and told.text.format.type == "text"
    assert told.output_text == "A" and told.metadata == {} and told.instructions is None


@pytest.mark.parametrize(("wanted", "kept"), [(False, False), (True, True), (True, False)])
def test_the_answer_says_whether_it_was_kept(wanted: bool, kept: bool) -> None:
    """Not whether it was meant to be: with the database away it cannot."""
    told = json.loads(DIALECT.whole(reply_of(head_of(asked(store=wanted)), [TextDelta("A")], kept=kept)))
    assert told["store"] is kept


def test_usage_says_who_counted_and_what_it_cost() -> None:
    usage = Usage(
        prompt_tokens=1, completion_tokens=2, counted="estimate", points=9, billed_cost="0.10", currency="USD"
    )
    told = json.loads(DIALECT.whole(reply_of(head_of(asked()), [TextDelta("A")], usage=usage)))["usage"]
    assert told["total_tokens"] == 3 and told["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 0}
    assert (told["estimated"], told["counted_by"], told["points"]) == (True, "estimate", 9)
    assert (told["billed_cost"], told["currency"]) == (0.1, "USD")


def test_items_stand_in_order_and_are_the_sdk_s() -> None:
    head = head_of(asked())
    told = Response.model_validate_json(DIALECT.whole(reply_of(head, EVERYTHING, "tool_calls")))
    assert [item.type for item in told.output] == ["reasoning", "message", "function_call", "image_generation_call"]
    assert told.output[3].to_dict()["revised_prompt"] == "a cat"


@pytest.mark.parametrize("summary", [None, "auto"])
def test_a_replay_tells_what_was_kept(summary: str | None) -> None:
    head = head_of(asked(store=True, reasoning={"summary": summary}))
    kept: dict[str, Any] = json.loads(DIALECT.whole(reply_of(head, EVERYTHING, "tool_calls", kept=True)))
    events = replay(kept)
    told = decoded(b"".join(events))
    assert len(told) == len(events)
    assert told[0]["response"]["output"] == [] and told[0]["response"]["status"] == "in_progress"
    assert told[-1] == {"type": "response.completed", "sequence_number": len(events) - 1, "response": kept}
    done = [event["item"] for event in told if event["type"] == "response.output_item.done"]
    assert done == kept["output"]
    state, _ = read_by_sdk(b"".join(events))
    assert state._completed_response is not None and state._completed_response.output_text == "A"


def test_a_replay_of_a_cut_answer_is_incomplete() -> None:
    kept = json.loads(DIALECT.whole(reply_of(head_of(asked()), [CALL], "length", kept=True)))
    told = decoded(b"".join(replay(kept)))
    assert told[-1]["type"] == "response.incomplete" and told[-2]["item"]["status"] == "incomplete"


def test_an_item_s_id_tells_its_response() -> None:
    assert item_id("msg", RESPONSE_ID) == "msg_0123456789abcdefghjkmnpq"
    for nth in (0, 1, 12):
        assert response_of(item_id("fc", RESPONSE_ID, nth)) == RESPONSE_ID
