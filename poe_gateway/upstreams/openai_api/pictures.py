"""Pictures: what is sent to have them made or changed, and what comes back. Pure."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from poe_gateway.chat.events import ChatEvent, ImageMade
from poe_gateway.chat.request import ChatRequest
from poe_gateway.upstreams.bodies import NotAskable
from poe_gateway.upstreams.drift import Drift, InBandError, exactly
from poe_gateway.upstreams.openai_api.figures import read_input_usage

_SIGNS = {"iVBORw0KGgo": "image/png", "/9j/": "image/jpeg", "UklGR": "image/webp", "R0lGOD": "image/gif"}
"""How the base64 of a picture begins."""
_PNG = "image/png"


class FormField(msgspec.Struct, frozen=True, kw_only=True):
    """One field of a multipart form; a file where ``media_type`` is set."""

    name: str
    value: str | bytes
    media_type: str | None = None
    filename: str | None = None


def generation_body(request: ChatRequest, model: str) -> dict[str, Any]:
    """The JSON body of ``/images/generations``."""
    return {**request.parameters, "model": model, "prompt": _prompt(request)}


def edit_form(request: ChatRequest, model: str) -> list[FormField]:
    """The form of ``/images/edits``: the pictures of the prompt, the mask if one is given. Raises NotAskable."""
    pictures = [image.url for message in request.messages for image in message.images]
    name = "image" if len(pictures) == 1 else "image[]"
    form = [FormField(name="model", value=model), FormField(name="prompt", value=_prompt(request))]
    form += [_file(name, nth, url) for nth, url in enumerate(pictures)]
    for key, value in request.parameters.items():
        form.append(_file(key, len(pictures), value) if key == "mask" else FormField(name=key, value=_text(key, value)))
    return form


def read_pictures(body: bytes) -> list[ChatEvent]:
    """The pictures made, then what they cost. Raises InBandError, Drift."""
    value = exactly(body, "the answer")
    rows = value.get("data") if isinstance(value, dict) else None
    if isinstance(value, dict) and value.get("error"):
        raise InBandError(value["error"])
    if not isinstance(rows, list):
        raise Drift("the answer has no pictures")
    kind = value.get("output_format")
    usual = f"image/{kind}" if kind in ("png", "jpeg", "webp") else None
    events: list[ChatEvent] = [_made(row, usual) for row in rows]
    usage = read_input_usage(value.get("usage"))
    return events if usage is None else [*events, usage]


def picture_at(url: str) -> ImageMade:
    """A picture by its address; the address may hold it (``data:``)."""
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        return ImageMade(url=url)
    return ImageMade(base64=data, media_type=head.removeprefix("data:").partition(";")[0])


def _made(row: Any, usual: str | None) -> ImageMade:
    picture = row if isinstance(row, dict) else {}
    data, url, revised = picture.get("b64_json"), picture.get("url"), picture.get("revised_prompt")
    revised = revised if isinstance(revised, str) and revised else None
    if isinstance(data, str) and data:
        kind = next((media for sign, media in _SIGNS.items() if data.startswith(sign)), usual or _PNG)
        return ImageMade(base64=data, media_type=kind, revised_prompt=revised)
    if isinstance(url, str) and url:
        return msgspec.structs.replace(picture_at(url), revised_prompt=revised)
    raise Drift("a picture has neither an address nor data")


def _prompt(request: ChatRequest) -> str:
    return "".join(message.text for message in request.messages)


def _file(name: str, nth: int, url: Any) -> FormField:
    picture = picture_at(url) if isinstance(url, str) else ImageMade()
    if picture.base64 is None:
        raise NotAskable(f"'{name.removesuffix('[]')}' must be handed in as a file or a data URL, not by its address.")
    try:
        data = base64.b64decode(picture.base64, validate=True)
    except (binascii.Error, ValueError):
        raise NotAskable(f"'{name.removesuffix('[]')}' is not valid base64.") from None
    ending = picture.media_type.partition("/")[2]
    return FormField(name=name, value=data, media_type=picture.media_type, filename=f"picture{nth}.{ending}")


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | str):
        return str(value)
    raise NotAskable(f"'{name}' must be a text or a number.")
