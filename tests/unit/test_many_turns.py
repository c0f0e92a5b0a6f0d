"""Conversations of more turns than any model takes are refused before they cost seconds."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest

from poe_gateway.chat.anthropic import AnthropicMessages
from poe_gateway.chat.fields import MOST_TURNS
from poe_gateway.chat.ollama import OllamaChat
from poe_gateway.chat.openai_chat import OpenAIChat
from poe_gateway.chat.responses.items import items_of
from poe_gateway.errors import InvalidRequest

DIALECTS: list[Any] = [OpenAIChat(), AnthropicMessages(), OllamaChat()]


def body(turns: int, content: Any = "x") -> bytes:
    return orjson.dumps({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": content}] * turns})


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: type(dialect).__name__)
def test_so_many_turns_and_no_more(dialect: Any) -> None:
    assert len(dialect.parse(body(MOST_TURNS)).messages) == MOST_TURNS
    with pytest.raises(InvalidRequest, match="at most 10000 messages") as refused:
        dialect.parse(body(MOST_TURNS + 1))
    assert refused.value.param == "messages"


def test_results_of_tools_are_turns() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": "x"}
    raw = body(1, [result] * 150_000)
    began = time.process_time()
    with pytest.raises(InvalidRequest, match="at most 10000 messages and results"):
        AnthropicMessages().parse(raw)
    assert time.process_time() - began < 1.0


def test_items_are_turns() -> None:
    with pytest.raises(InvalidRequest, match="at most 10000 items"):
        items_of([{"role": "user", "content": "x"}] * (MOST_TURNS + 1))
