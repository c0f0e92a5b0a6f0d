"""What is asked of each of LangChain's chat models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return "18 degrees"


class Place(BaseModel):
    """A place."""

    city: str = Field(description="Its name.")


def chat_cases(model: BaseChatModel) -> tuple[Callable[[], dict[str, Any]], ...]:
    def text() -> dict[str, Any]:
        answer = model.invoke("Say hello.")
        return {"text": answer.text, "tokens": answer.usage_metadata["total_tokens"]}

    def stream() -> dict[str, Any]:
        whole, pieces = None, 0
        for chunk in model.stream("Say hello, and say it slowly."):
            pieces += bool(chunk.text)
            whole = chunk if whole is None else whole + chunk
        return {"text": whole.text, "pieces": pieces, "tokens": whole.usage_metadata["total_tokens"]}

    def tools() -> dict[str, Any]:
        able = model.bind_tools([get_weather])
        messages: list[Any] = [HumanMessage("What is the weather in Paris?")]
        first = able.invoke(messages)
        messages += [first, *(get_weather.invoke(call) for call in first.tool_calls)]
        return {
            "calls": [[call["name"], call["args"]] for call in first.tool_calls],
            "text": able.invoke(messages).text,
        }

    def streamed_tools() -> dict[str, Any]:
        whole = None
        for chunk in model.bind_tools([get_weather]).stream("What is the weather in Paris?"):
            whole = chunk if whole is None else whole + chunk
        return {"calls": [[call["name"], call["args"]] for call in whole.tool_calls]}

    def structured() -> dict[str, Any]:
        place = model.with_structured_output(Place).invoke("Name a city by the sea.")
        return {"city": place.city}

    return text, stream, tools, streamed_tools, structured
