"""Answers of the responses dialect without a gateway: from a body and events to what is sent and what is replied."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from openai._streaming import ServerSentEvent, SSEDecoder
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from openai.types.responses.parsed_response import ParsedResponse
from pydantic import TypeAdapter

from poe_gateway.chat.dialect import Head, Reply
from poe_gateway.chat.events import ChatEvent, Finished, FinishReason
from poe_gateway.chat.request import ChatRequest
from poe_gateway.chat.responses.dialect import OpenAIResponses
from poe_gateway.chat.usage import Usage
from poe_gateway.dispatch.answer import Answer

DIALECT = OpenAIResponses()
STRICT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
"""Checks an event by the SDK's own types, every required field."""
RESPONSE_ID = "resp_0123456789abcdefghjkmnpq"


def asked(**body: Any) -> ChatRequest:
    """A parsed request; ``model`` and ``input`` are given."""
    return DIALECT.parse(json.dumps({"model": "mock-1", "input": "Hello", **body}).encode())


def head_of(request: ChatRequest, response_id: str = RESPONSE_ID) -> Head:
    return Head(id=response_id, created=1_700_000_000, model="mock-1-real", request=request)


def reply_of(
    head: Head,
    events: Iterable[ChatEvent],
    finish: FinishReason = "stop",
    *,
    kept: bool = False,
    usage: Usage | None = None,
) -> Reply:
    """What the endpoint makes of an upstream's events."""
    answer = Answer()
    for event in events:
        answer.observe(event)
    return Reply(
        head=head,
        finish=finish,
        usage=usage or Usage(prompt_tokens=7, completion_tokens=5, cached_tokens=2, reasoning_tokens=3),
        text=answer.text,
        refusal=answer.refusal,
        reasoning=answer.reasoning,
        signature=answer.signature,
        tool_calls=answer.calls,
        logprobs=None if answer.logprobs is None else tuple(answer.logprobs),
        images=tuple(answer.images),
        seconds=2.5,
        kept=kept,
    )


def streamed(head: Head, events: Sequence[ChatEvent], finish: FinishReason = "stop") -> bytes:
    """Everything that a stream sends."""
    writer = DIALECT.writer(head)
    sent = writer.begin() + b"".join([writer.event(event) for event in events])
    return sent + writer.end(Finished(finish), reply_of(head, events, finish))


def decoded(sent: bytes) -> list[dict[str, Any]]:
    """The data of every event, its name and number checked, and every one by the SDK's types."""
    told: list[dict[str, Any]] = []
    for number, event in enumerate(sse(sent)):
        data = json.loads(event.data)
        assert event.event == data["type"]
        assert data["sequence_number"] == number
        STRICT.validate_python(data)
        told.append(data)
    return told


def sse(sent: bytes) -> list[ServerSentEvent]:
    """As the SDK cuts a stream."""
    return list(SSEDecoder().iter_bytes(iter([sent])))


def read_by_sdk(sent: bytes) -> tuple[ResponseStreamState[Any], list[Any]]:
    """The state of the SDK's stream helper after the stream, and the events that it passes on."""
    from openai._models import construct_type
    from openai._types import omit

    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    passed: list[Any] = []
    for event in sse(sent):
        passed += state.handle_event(construct_type(type_=ResponseStreamEvent, value=json.loads(event.data)))  # type: ignore[arg-type]
    return state, passed


def completed(sent: bytes) -> ParsedResponse[Any]:
    """The response that the SDK's stream helper ends with."""
    response = read_by_sdk(sent)[0]._completed_response
    assert response is not None
    return response
