"""The events of an answer that is finished, told anew from the kept response. Pure.

Texts come in one piece, so the numbers are those of this replay (always the same), not of the stream that was sent.
"""

from __future__ import annotations

from typing import Any

from poe_gateway.chat.responses.echo import Item
from poe_gateway.chat.responses.script import CallEvents, MessageEvents, PictureEvents, ReasoningEvents, Script


def replay(response: dict[str, Any]) -> list[bytes]:
    """All events in order; an event's place is its number."""
    script = Script()
    begun = {
        **response,
        "status": "in_progress",
        "output": [],
        "usage": None,
        "completed_at": None,
        "incomplete_details": None,
    }
    script.say("response.created", response=begun)
    script.say("response.in_progress", response=begun)
    for index, item in enumerate(response["output"]):
        _TOLD[item["type"]](script, index, item)
    script.say(f"response.{response['status']}", response=response)
    return script.events


def _message(script: Script, index: int, item: Item) -> None:
    events = MessageEvents(script, index, item["id"])
    for part in item["content"]:
        if part["type"] == "refusal":
            events.refusal(part["refusal"])
        else:
            events.text(part["text"], tuple(part["logprobs"]))
    events.close(item["status"])


def _reasoning(script: Script, index: int, item: Item) -> None:
    events = ReasoningEvents(script, index, item["id"], bool(item["summary"]))
    for part in item["summary"] or item.get("content", ()):
        events.text(part["text"])
    events.signature = item.get("encrypted_content")
    events.close(item["status"])


def _call(script: Script, index: int, item: Item) -> None:
    events = CallEvents(script, index, item["id"], item["call_id"], item["name"])
    if item["arguments"]:
        events.text(item["arguments"])
    events.close(item["status"])


_TOLD = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _call,
    "image_generation_call": PictureEvents,
}
