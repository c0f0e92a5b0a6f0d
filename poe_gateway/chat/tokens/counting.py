"""Tokens of whole prompts and answers: their texts, and what OpenAI's chat models put around them. Pure.

The framing is OpenAI's published one. How tools are put to a model is nobody's published matter; they are counted as
the JSON that most models get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from poe_gateway.chat.estimate import written
from poe_gateway.chat.request import ChatRequest, Message, TextPart, ToolCall
from poe_gateway.chat.tokens.images import image_tokens
from poe_gateway.chat.tokens.tokenizer import EXACT

Count = Callable[[str], int]
"""Tokens of a text: ``Tokenizer.count``."""

_PER_MESSAGE = 4
"""Around each turn; the word for the role is one of them."""
_PER_NAME = 1
_PER_CALL = 3
_PER_TOOL = 7
_TOOLS = 12
_ANSWER = 3
"""What every answer is primed with."""


def prompt_tokens(request: ChatRequest, count: Count) -> int:
    """Tokens of the whole prompt: turns, images, tools, and the form that the answer must have.

    Takes a bounded time, however large the request: beyond ``EXACT`` characters a sample is counted.
    """
    if request.operation == "embed":
        ids = sum([len(each) for each in request.inputs if isinstance(each, tuple)])
        return ids + _counted([each for each in request.inputs if isinstance(each, str)], count)
    texts: list[str] = []
    total = 0
    for message in request.messages:
        total += _turn(message, texts)
    if request.operation == "image":
        return total + _counted(texts, count)
    total += _PER_MESSAGE * len(request.messages) + _ANSWER + _demands(request, texts)
    return total + _counted(texts, count)


def answer_tokens(texts: Iterable[str], calls: Sequence[ToolCall], count: Count) -> int:
    """Tokens of an answer: its texts of every kind (words, refusal, thinking) and its tool calls."""
    parts = [text for text in texts if text]
    for call in calls:
        parts += (call.name, call.arguments)
    return _counted(parts, count) + _PER_CALL * len(calls)


def _turn(message: Message, texts: list[str]) -> int:
    """Tokens of a turn but for its texts, which go to ``texts``."""
    total = 0
    for part in message.parts:
        if isinstance(part, TextPart):
            texts.append(part.text)
        else:
            total += image_tokens(part)
    if message.name is not None:
        texts.append(message.name)
        total += _PER_NAME
    for call in message.tool_calls:
        texts += (call.name, call.arguments)
        total += _PER_CALL
    return total


def _demands(request: ChatRequest, texts: list[str]) -> int:
    """The same of tools and of the form of the answer."""
    for tool in request.tools:
        texts += (tool.name, tool.description, written(tool.parameters))
    if request.output is not None and request.output.schema is not None:
        texts += (request.output.name, request.output.description, written(request.output.schema))
    return _PER_TOOL * len(request.tools) + _TOOLS if request.tools else 0


def _counted(texts: list[str], count: Count) -> int:
    """Of all texts; together where they are so long that only a sample is counted."""
    if sum(map(len, texts)) > EXACT:
        return count("\n".join(texts))
    return sum(map(count, texts))
