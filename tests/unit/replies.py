"""Whole answers for tests of dialects."""

from __future__ import annotations

from typing import Any

from poe_gateway.chat.dialect import Head, Reply
from poe_gateway.chat.request import ChatRequest
from poe_gateway.chat.usage import Usage

USAGE = Usage(prompt_tokens=7, completion_tokens=5)


def head_of(request: ChatRequest, *, model: str = "GPT-4o") -> Head:
    return Head(id="x-1", created=1_700_000_000, model=model, request=request)


def reply_to(request: ChatRequest, **fields: Any) -> Reply:
    return Reply(head=head_of(request), **{"finish": "stop", "usage": USAGE, "seconds": 1.5, **fields})
