"""Pictures from providers that draw in chats only: the prompt as a chat, and the pictures of its answer. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from poe_gateway.chat.events import ChatEvent, Finished, ImageMade, Measured, TextDelta
from poe_gateway.chat.request import ChatRequest
from poe_gateway.upstreams.bodies import NotAskable
from poe_gateway.upstreams.openai_api.asking import chat_body
from poe_gateway.upstreams.openai_api.pictures import picture_at
from poe_gateway.upstreams.openai_api.presets import Preset

_OF_PICTURES = frozenset(
    {
        "size",
        "quality",
        "style",
        "background",
        "moderation",
        "output_format",
        "output_compression",
        "input_fidelity",
        "partial_images",
        "mask",
    }
)
"""What OpenAI's own address for pictures takes and no chat does."""
_SHOWN = re.compile(r"!\[[^\[\]]*+\]\((https?://[^\s()<>]++)(?:\s[^()]*+)?\)")
_BARE = re.compile(r"^\s*+(https?://\S++)\s*+$", re.MULTILINE)


class Wordy(ValueError):
    """The answer holds no picture; the text is what was said instead."""


def drawing_body(request: ChatRequest, model: str, modalities: tuple[str, ...], known: Preset) -> dict[str, Any]:
    """The JSON body of the chat, which is not streamed. Raises NotAskable."""
    given = dict(request.parameters)
    if given.pop("n", 1) != 1:
        raise NotAskable("The provider of this model draws one picture at a time: 'n' must be 1.")
    if refused := sorted(_OF_PICTURES & given.keys()):
        raise NotAskable(f"The provider of this model draws in chats, which do not take '{refused[0]}'.")
    if modalities:
        given["modalities"] = modalities
    body = chat_body(replace(request, parameters=given), model, known)
    del body["stream_options"]
    return body | {"stream": False}


def drawn(events: Iterable[ChatEvent]) -> list[ChatEvent]:
    """The pictures, those that the text shows too, then figures and end. Raises Wordy."""
    told = list(events)
    pictures = [event for event in told if isinstance(event, ImageMade)]
    text = "".join(event.text for event in told if isinstance(event, TextDelta))
    if not pictures:
        addresses = _SHOWN.findall(text) or _BARE.findall(text)
        pictures = [picture_at(url) for url in dict.fromkeys(addresses)]
    if not pictures:
        raise Wordy(text)
    return [*pictures, *(event for event in told if isinstance(event, Measured | Finished))]
