"""What ``/openapi.json`` says of answers, against what the writers of the hot routes say, field by field."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from poe_gateway.chat.dialect import Reply
from poe_gateway.chat.events import ChatEvent, Finished, ImageMade, ReasoningDelta, TextDelta
from poe_gateway.chat.request import ToolCall
from poe_gateway.chat.usage import Usage
from poe_gateway.errors import InvalidRequest
from tests.support.described import HOT, answered, described_names, document, examples, judge, operation, used_names
from tests.unit.replies import head_of

USAGES = (
    Usage(prompt_tokens=7, completion_tokens=5),
    Usage(prompt_tokens=7, completion_tokens=5, counted="estimate"),
    Usage(
        prompt_tokens=7,
        completion_tokens=5,
        cached_tokens=3,
        reasoning_tokens=2,
        points=12,
        raw_cost="0.0150",
        billed_cost="0.0165",
        currency="USD",
    ),
    Usage(prompt_tokens=7, completion_tokens=5, billed_cost="0.0165", currency="USD"),
)
MADE = (
    ImageMade(url="https://example.com/a.png"),
    ImageMade(base64="QUJD", revised_prompt="a red dot"),
    ImageMade(url="https://example.com/b.png", base64="QUJD", revised_prompt="a blue dot"),
)
LOGPROBS = ({"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []},)
EVERYTHING: dict[str, Any] = {
    "text": "Hi",
    "refusal": "No.",
    "reasoning": "hm",
    "signature": "sig",
    "tool_calls": (ToolCall("call_1", "get_weather", '{"city":"Paris"}'), ToolCall("", "odd", "no json")),
    "logprobs": LOGPROBS,
    "images": MADE,
}
ANSWERS = (
    {"text": "Hi"},
    {"text": "Hi", "finish": "length"},
    {"text": "", "finish": "content_filter"},
    {"text": "Hi", "stop_sequence": "END"},
    {"tool_calls": EVERYTHING["tool_calls"], "finish": "tool_calls"},
    {"refusal": "No."},
    {"reasoning": "hm", "text": "Hi", "kept": True},
    EVERYTHING,
)
VECTORS = ({"vectors": ((0.5, -0.25), (1.0, 0.0))}, {"vectors": ((0.5,),)})
PICTURES = ({"images": MADE}, {"images": MADE[1:]})
KINDS = {"chat": ANSWERS, "embed": VECTORS, "image": PICTURES}


def replies(path: str) -> list[Reply]:
    """Answers of all kinds to all examples of a route."""
    requests = [HOT[path].parse(orjson.dumps(body)) for body in examples(path).values()]
    made = [
        Reply(head=head_of(request), **{"finish": "stop", "usage": usage, "seconds": 1.5, **fields})
        for request in requests
        for usage in USAGES
        for fields in KINDS[request.operation]
    ]
    wants_bytes = [each for each in made if each.head.request.echo.get("response_format") == "b64_json"]
    return [each for each in made if each not in wants_bytes] + [replace(each, images=MADE[1:]) for each in wants_bytes]


@pytest.mark.parametrize("path", HOT)
def test_all_that_is_said_is_described_and_all_that_is_described_is_said(path: str) -> None:
    schema, said = answered(path), [orjson.loads(HOT[path].whole(reply)) for reply in replies(path)]
    strict = judge(schema, strict=True)
    for body in said:
        strict.validate(body)
    assert described_names(schema) <= {name for body in said for name in used_names(body)}


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_lines_are_like_whole_answers(path: str) -> None:
    strict = judge(answered(path), strict=True)
    for reply in replies(path):
        writer = HOT[path].writer(reply.head)
        events: list[ChatEvent] = [ReasoningDelta("hm"), TextDelta("Hi", LOGPROBS), *MADE]
        sent = writer.begin() + b"".join(writer.event(event) for event in events)
        lines = (sent + writer.end(Finished(reply.finish), reply)).splitlines()
        assert len(lines) > len(events)
        for line in lines:
            strict.validate(orjson.loads(line))


@pytest.mark.parametrize("path", HOT)
def test_streams_have_the_content_type_of_their_dialect(path: str) -> None:
    content = operation(path)["responses"]["200"]["content"]
    streamed = HOT[path].stream_type.decode().partition(";")[0]
    assert content.keys() == {"application/json", streamed}
    body = next(iter(examples(path).values()))
    try:
        streams = HOT[path].parse(orjson.dumps({**body, "stream": True})).stream
    except InvalidRequest:
        streams = False
    assert streams == (streamed != "application/json")
    assert not streams or content[streamed]["schema"]["description"]


def test_names_of_bodies_are_told_apart() -> None:
    assert not [name for name in document()["components"]["schemas"] if "chat_docs" in name], "two models of one name"
