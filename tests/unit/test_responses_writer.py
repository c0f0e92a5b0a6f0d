"""Streams of ``/v1/responses``: the events in order, as the SDK's own helper reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response

from poe_gateway.chat.events import (
    ChatEvent,
    Finished,
    FinishReason,
    ImageMade,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
)
from poe_gateway.errors import InvalidRequest, RateLimitExceeded, UpstreamFailed
from tests.support.responses import DIALECT, asked, completed, decoded, head_of, read_by_sdk, reply_of, streamed

MARK = "0123456789abcdefghjkmnpq"
TOOLS = [{"type": "function", "name": "add"}, {"type": "function", "name": "mul"}]
LOGPROB = {"token": "Hé", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "X", "logprob": -2.0}]}


def calls(*fragments: tuple[int, str | None, str | None, str | None]) -> ToolCallDelta:
    """Fragments: index, id, name, arguments."""
    told: list[dict[str, Any]] = []
    for index, call_id, name, arguments in fragments:
        fragment: dict[str, Any] = {"index": index, "function": {}}
        if call_id is not None:
            fragment |= {"id": call_id, "type": "function"}
        fragment["function"] = {
            key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None
        }
        told.append(fragment)
    return ToolCallDelta(tuple(told))


def kinds(sent: bytes) -> list[str]:
    return [event["type"].removeprefix("response.") for event in decoded(sent)]


def test_plain_text_comes_in_the_order_of_the_contract() -> None:
    head = head_of(asked(stream=True, instructions="Be kind.", metadata={"a": "b"}))
    sent = streamed(head, [TextDelta("Hé"), TextDelta(""), TextDelta("llo")])
    told = decoded(sent)
    assert [event["type"] for event in told] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    created, added, part = told[0]["response"], told[2], told[3]
    assert (created["id"], created["status"], created["output"]) == (head.id, "in_progress", [])
    assert (created["usage"], created["created_at"], created["model"]) == (None, 1_700_000_000, "mock-1-real")
    assert (created["instructions"], created["metadata"]) == ("Be kind.", {"a": "b"})
    assert added["item"] == {
        "id": f"msg_{MARK}",
        "type": "message",
        "status": "in_progress",
        "role": "assistant",
        "content": [],
    }
    assert part["part"] == {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    for event in told[3:8]:
        assert (event["item_id"], event["output_index"], event["content_index"]) == (f"msg_{MARK}", 0, 0)
    assert [event["delta"] for event in told[4:6]] == ["Hé", "llo"]
    assert told[6]["text"] == told[7]["part"]["text"] == "Héllo"
    assert told[8]["item"] == told[9]["response"]["output"][0]
    assert told[8]["item"]["status"] == "completed"
    assert told[9]["response"]["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 12,
    }
    assert completed(sent).output_text == "Héllo"


def test_calls_come_as_items_of_their_own() -> None:
    head = head_of(asked(stream=True, tools=TOOLS))
    events: list[ChatEvent] = [
        TextDelta("I add."),
        calls((0, "c1", "add", "")),
        calls((0, None, None, '{"a"'), (0, None, None, ":1}")),
        calls((1, "c2", "mul", '{"b":2}')),
    ]
    sent = streamed(head, events, "tool_calls")
    assert kinds(sent)[2:] == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    output = completed(sent).output
    assert [item.type for item in output] == ["message", "function_call", "function_call"]
    assert [(item.id, item.call_id, item.name, item.arguments) for item in output[1:]] == [  # type: ignore[union-attr]
        (f"fc_{MARK}", "c1", "add", '{"a":1}'),
        (f"fc_{MARK}_1", "c2", "mul", '{"b":2}'),
    ]
    assert [event["output_index"] for event in decoded(sent) if event["type"] == "response.output_item.added"] == [
        0,
        1,
        2,
    ]


def test_calls_that_are_told_in_turns_come_out_whole() -> None:
    events: list[ChatEvent] = [
        calls((0, "c1", "add", '{"a"'), (1, "c2", "mul", '{"b"')),
        calls((0, None, None, ":1}"), (1, None, None, ":2}")),
    ]
    output = completed(streamed(head_of(asked(stream=True, tools=TOOLS)), events, "tool_calls")).output
    assert [item.arguments for item in output] == ['{"a":1}', '{"b":2}']  # type: ignore[union-attr]


def test_calls_without_ids_or_with_the_same_get_ids_of_their_own() -> None:
    events: list[ChatEvent] = [
        calls((0, None, "add", "{}"), (1, "c1", "add", "{}"), (2, "c1", "mul", "{}")),
        calls((3, None, None, "{"), (3, "c3", "mu", None), (3, None, "l", "}")),
    ]
    head = head_of(asked(stream=True, tools=TOOLS))
    output = completed(streamed(head, events, "tool_calls")).output
    told = [(item.call_id, item.name, item.arguments) for item in output]  # type: ignore[union-attr]
    assert [each[1:] for each in told] == [("add", "{}"), ("add", "{}"), ("mul", "{}"), ("mul", "{}")]
    assert len({call_id for call_id, _, _ in told} - {""}) == 4
    whole = Response.model_validate_json(DIALECT.whole(reply_of(head, events, "tool_calls")))
    assert [(item.call_id, item.name, item.arguments) for item in whole.output] == told  # type: ignore[union-attr]


@pytest.mark.parametrize("summary", [None, "auto"])
def test_thinking_is_an_item_before_the_answer(summary: str | None) -> None:
    head = head_of(asked(stream=True, reasoning={"summary": summary}))
    events: list[ChatEvent] = [ReasoningDelta("Let "), ReasoningDelta("me."), ReasoningDelta("", "sig"), TextDelta("A")]
    sent = streamed(head, events)
    words = ("reasoning_summary_part", "reasoning_summary_text") if summary else ("content_part", "reasoning_text")
    assert kinds(sent)[2:9] == [
        "output_item.added",
        f"{words[0]}.added",
        f"{words[1]}.delta",
        f"{words[1]}.delta",
        f"{words[1]}.done",
        f"{words[0]}.done",
        "output_item.done",
    ]
    thought = completed(sent).output[0]
    assert thought.type == "reasoning" and thought.encrypted_content == "sig" and thought.id == f"rs_{MARK}"
    told = thought.summary if summary else thought.content
    assert told is not None and [part.text for part in told] == ["Let me."]
    assert completed(sent).output_text == "A"
    whole = Response.model_validate_json(DIALECT.whole(reply_of(head, events)))
    assert whole.output[0].to_dict() == thought.to_dict()


def test_a_refusal_is_a_part_of_the_message() -> None:
    events: list[ChatEvent] = [TextDelta("Well. "), RefusalDelta("I "), RefusalDelta("won't.")]
    head = head_of(asked(stream=True))
    sent = streamed(head, events)
    assert kinds(sent)[5:12] == [
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
    ]
    [message] = completed(sent).output
    assert [part.type for part in message.content] == ["output_text", "refusal"]  # type: ignore[union-attr]
    assert decoded(sent)[7]["content_index"] == 1
    whole = Response.model_validate_json(DIALECT.whole(reply_of(head, events)))
    assert whole.output[0].to_dict() == decoded(sent)[-1]["response"]["output"][0]


def test_an_answer_that_was_replaced_ends_with_the_true_text() -> None:
    events: list[ChatEvent] = [TextDelta("Thinking…"), TextReplaced("Thinking… no"), TextReplaced("42"), TextDelta("!")]
    sent = streamed(head_of(asked(stream=True)), events)
    deltas = [event["delta"] for event in decoded(sent) if event["type"] == "response.output_text.delta"]
    assert deltas == ["Thinking…", " no", "\n\n42", "!"]
    assert completed(sent).output_text == "42!"


def test_probabilities_come_with_the_text() -> None:
    head = head_of(asked(stream=True, include=["message.output_text.logprobs"]))
    events: list[ChatEvent] = [TextDelta("Hé", (LOGPROB,)), TextDelta("y", ({"token": "y", "logprob": -1},))]
    told = decoded(streamed(head, events))
    full = {
        "token": "Hé",
        "bytes": [72, 195, 169],
        "logprob": -0.5,
        "top_logprobs": [{"token": "X", "bytes": [88], "logprob": -2.0}],
    }
    assert told[4]["logprobs"] == [full]
    assert [each["token"] for each in told[6]["logprobs"]] == ["Hé", "y"]
    [message] = Response.model_validate_json(DIALECT.whole(reply_of(head, events))).output
    assert message.content[0].logprobs[0].to_dict() == full  # type: ignore[union-attr,index]


def test_a_picture_is_an_item() -> None:
    head = head_of(asked(stream=True))
    events: list[ChatEvent] = [TextDelta("Here:"), ImageMade(base64="QUJD"), ImageMade(url="https://x.example/a.png")]
    sent = streamed(head, events)
    assert kinds(sent)[8:-1] == ["output_item.added", "image_generation_call.completed", "output_item.done"] * 2
    output = decoded(sent)[-1]["response"]["output"]
    assert [(each["id"], each["result"]) for each in output[1:]] == [(f"ig_{MARK}", "QUJD"), (f"ig_{MARK}_1", None)]
    assert output[2]["url"] == "https://x.example/a.png"
    whole = Response.model_validate_json(DIALECT.whole(reply_of(head, events)))
    assert [each.to_dict() for each in whole.output[1:]] == output[1:]


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete(finish: FinishReason, reason: str) -> None:
    head = head_of(asked(stream=True))
    sent = streamed(head, [TextDelta("A")], finish)
    last = decoded(sent)[-1]
    assert last["type"] == "response.incomplete"
    whole = Response.model_validate_json(DIALECT.whole(reply_of(head, [TextDelta("A")], finish)))
    for told in (Response.model_validate(last["response"]), whole):
        assert told.status == "incomplete" and told.incomplete_details is not None
        assert told.incomplete_details.reason == reason
        assert told.output[0].status == "incomplete"  # type: ignore[union-attr]


def test_an_answer_cut_before_its_first_word_has_no_items() -> None:
    sent = streamed(head_of(asked(stream=True)), [], "length")
    assert decoded(sent)[-1]["response"]["output"] == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpstreamFailed("The answer broke off."), "server_error"),
        (RateLimitExceeded("Slow down."), "rate_limit_exceeded"),
        (InvalidRequest("No such thing.", param="input"), "invalid_prompt"),
    ],
    ids=["broken", "limited", "refused"],
)
def test_a_broken_answer_fails_in_the_api_s_own_words(error: Any, code: str) -> None:
    writer = DIALECT.writer(head_of(asked(stream=True)))
    sent = writer.begin() + writer.event(TextDelta("Half")) + writer.broken(error)
    told = decoded(sent)
    assert told[-1]["type"] == "response.failed"
    failed = Response.model_validate(told[-1]["response"])
    assert failed.status == "failed" and failed.error is not None
    assert (failed.error.code, failed.error.message) == (code, error.message)
    assert failed.output_text == "Half" and failed.output[0].status == "incomplete"  # type: ignore[union-attr]
    assert read_by_sdk(sent)[1][-1].type == "response.failed"


def test_an_answer_that_breaks_before_it_begins_is_well_formed() -> None:
    sent = DIALECT.writer(head_of(asked(stream=True), "req_1")).broken(UpstreamFailed("\ud800 is no text."))
    assert kinds(sent) == ["created", "in_progress", "failed"]
    assert read_by_sdk(sent)[1][-1].response.error.message == "? is no text."


def test_half_a_surrogate_pair_does_not_stop_a_stream() -> None:
    events: list[ChatEvent] = [ReasoningDelta("\ud800"), TextDelta("\udc00"), calls((0, "\ud800", "add", "\udfff"))]
    head = head_of(asked(stream=True))
    assert completed(streamed(head, events)).output_text == "?"
    assert DIALECT.whole(reply_of(head, events))


TEXTS = st.text(st.characters(codec="utf-8"), max_size=5)
EVENTS: st.SearchStrategy[list[ChatEvent]] = st.lists(
    st.one_of(
        st.builds(TextDelta, TEXTS),
        st.builds(TextReplaced, TEXTS),
        st.builds(RefusalDelta, TEXTS),
        st.builds(ReasoningDelta, TEXTS, st.sampled_from([None, "sig"])),
        st.builds(
            lambda index, call_id, name, arguments: calls((index, call_id, name, arguments)),
            st.integers(0, 3),
            st.sampled_from([None, "", "c1", "c2"]),
            st.sampled_from([None, "add", "mul"]),
            st.sampled_from([None, "{", "}", '{"a":1}', '"']),
        ),
        st.builds(ImageMade, url=st.none(), base64=st.just("QUJD")),
    ),
    max_size=12,
)


@given(events=EVENTS, finish=st.sampled_from(["stop", "length", "tool_calls"]), summary=st.booleans())
def test_any_answer_is_a_stream_that_the_sdk_reads(
    events: list[ChatEvent], finish: FinishReason, summary: bool
) -> None:
    head = head_of(asked(stream=True, reasoning={"summary": "auto" if summary else None}))
    sent = streamed(head, events, finish)
    told = decoded(sent)
    read_by_sdk(sent)
    last = told[-1]["response"]
    done = {event["output_index"]: event["item"] for event in told if event["type"] == "response.output_item.done"}
    assert [done[index] for index in range(len(done))] == last["output"]
    assert all(item["status"] in ("completed", "incomplete") for item in last["output"])
    ids = [item["id"] for item in last["output"]]
    assert len(set(ids)) == len(ids)
    whole = Response.model_validate_json(DIALECT.whole(reply_of(head, events, finish)))
    if not any(isinstance(event, TextReplaced) for event in events):
        spoken = "".join(event.delta for event in map(_Delta, told))
        assert spoken == Response.model_validate(last).output_text == whole.output_text


class _Delta:
    def __init__(self, event: dict[str, Any]) -> None:
        self.delta = event["delta"] if event["type"] == "response.output_text.delta" else ""


@given(events=EVENTS)
def test_any_answer_may_break_off_anywhere(events: list[ChatEvent]) -> None:
    writer = DIALECT.writer(head_of(asked(stream=True)))
    sent = b"".join([writer.event(event) for event in events]) + writer.broken(UpstreamFailed())
    assert decoded(sent)[-1]["response"]["status"] == "failed"
    read_by_sdk(sent)


def test_the_end_may_come_with_nothing_said() -> None:
    head = head_of(asked(stream=True))
    sent = DIALECT.writer(head).end(Finished("length"), reply_of(head, [], "length"))
    assert kinds(sent) == ["created", "in_progress", "incomplete"]
