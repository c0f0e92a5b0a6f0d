"""The ``/v1/images`` dialects: bodies and forms -> ``ChatRequest`` of operation ``image``, pictures -> JSON. Pure.

``response_format`` stays here, for the answer: what an upstream gives is an address or the bytes, whatever was asked.
Bytes are told as a ``data:`` URL where an address was asked for. Where bytes were asked for and an upstream gave
addresses, ``addresses`` names what has to be fetched, and ``with_bytes`` puts it in.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson
from msgspec.structs import replace

from poe_gateway.chat.dialect import Head, Reply, Shape, Writer
from poe_gateway.chat.events import ImageMade
from poe_gateway.chat.fields import Body, document, flag, integer, model, text, user
from poe_gateway.chat.forms import FormPart, boundary_of, parts
from poe_gateway.chat.pictures import data_url
from poe_gateway.chat.request import ChatRequest, ImagePart, Message, TextPart
from poe_gateway.errors import InvalidRequest, UpstreamFailed

_LONGEST_PROMPT = 32_000
"""Characters."""
_MOST_PICTURES = 10
_MOST_IMAGES = 16
LARGEST_IMAGE = 20 * 1024 * 1024
"""Bytes of one picture that is to be edited."""
_OWN = frozenset({"model", "prompt", "response_format", "stream", "n", "user", "image", "images", "mask"})
_WORDS = ("size", "quality", "background", "style", "moderation", "output_format", "input_fidelity")
_INTEGERS = {"n": (1, _MOST_PICTURES), "output_compression": (0, 100), "partial_images": (0, 3)}


def _request(body: Body, images: tuple[str, ...] = (), mask: str | None = None) -> ChatRequest:
    """The request of checked pictures and a body of other fields. Raises InvalidRequest."""
    prompt = text(body, "prompt", most=_LONGEST_PROMPT)
    if prompt is None or not prompt.strip():
        raise InvalidRequest("'prompt' is required: a string that is not empty.", param="prompt")
    if flag(body, "stream"):
        raise InvalidRequest("Pictures are not streamed.", param="stream", code="unsupported_parameter")
    wanted = body.get("response_format")
    if wanted not in (None, "url", "b64_json"):
        raise InvalidRequest("'response_format' must be 'url' or 'b64_json'.", param="response_format")
    parameters = _parameters(body)
    if mask is not None:
        parameters["mask"] = mask
    turn = Message("user", (TextPart(prompt), *[ImagePart(image) for image in images]))
    return ChatRequest(
        model=model(body),
        messages=(turn,),
        operation="image",
        parameters=parameters,
        echo={} if wanted is None else {"response_format": wanted},
    )


def _parameters(body: Body) -> dict[str, Any]:
    """What was asked of the pictures."""
    known: dict[str, Any] = {
        name: integer(body, name, least=least, most=most) for name, (least, most) in _INTEGERS.items()
    }
    known |= {name: text(body, name, most=64) for name in _WORDS}
    known["user"] = user(body)
    known |= {key: value for key, value in body.items() if key not in _OWN and key not in known}
    return {key: value for key, value in known.items() if value is not None}


def parse_generation(raw: bytes | bytearray) -> ChatRequest:
    """A request for new pictures. Raises InvalidRequest with ``param`` naming the culprit."""
    body = document(raw)
    for name in ("image", "images", "mask"):
        if body.get(name) is not None:
            raise InvalidRequest(f"'{name}' goes to /v1/images/edits.", param=name, code="unsupported_parameter")
    return _request(body)


def parse_edit(raw: bytes | bytearray) -> ChatRequest:
    """A request to edit pictures, as JSON. Raises InvalidRequest with ``param`` naming the culprit."""
    body = document(raw)
    mask = body.get("mask")
    return _request(body, _addressed(body), None if mask is None else _address(mask, "mask"))


def parse_form(raw: bytes | bytearray, content_type: str) -> ChatRequest:
    """The same, as the form that ``content_type`` says it is, or as JSON. Raises InvalidRequest."""
    if not content_type.lower().lstrip().startswith("multipart/"):
        return parse_edit(raw)
    return _edit_of(parts(raw, boundary_of(content_type)))


def _edit_of(fields: list[FormPart]) -> ChatRequest:
    body: Body = {}
    images: list[str] = []
    mask: str | None = None
    for field in fields:
        if field.name == "image":
            images.append(_picture(field, f"image[{len(images)}]"))
            _bounded(images)
        elif field.name == "mask":
            mask = _picture(field, "mask")
        else:
            body[field.name] = _value(field)
    if not images:
        raise InvalidRequest("'image' is required: at least one picture.", param="image")
    return _request(body, tuple(images), mask)


def _picture(field: FormPart, where: str) -> str:
    if len(field.content) > LARGEST_IMAGE:
        raise InvalidRequest(f"'{where}' is larger than {LARGEST_IMAGE} bytes.", param=where, code="invalid_image")
    return data_url(field.content, where)


def _value(field: FormPart) -> Any:
    """A field's text, or the number or truth that its name asks for."""
    if field.is_file:
        raise InvalidRequest("Only 'image' and 'mask' may be files.", param=field.name[:64])
    try:
        value = field.content.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("A field of the form is not UTF-8.", param=field.name[:64], code="invalid_form") from None
    if field.name == "stream" and value in ("true", "false"):
        return value == "true"
    if field.name in _INTEGERS and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value


def _addressed(body: Body) -> tuple[str, ...]:
    """Pictures of a JSON body: ``images`` as OpenAI writes them, or ``image`` with one or several URLs."""
    where = "image" if body.get("images") is None else "images"
    given = body.get(where)
    entries = given if isinstance(given, list) else [given]
    if given is None or not entries:
        raise InvalidRequest("'image' is required: at least one picture.", param="image")
    _bounded(entries)
    return tuple([_address(entry, f"{where}[{place}]") for place, entry in enumerate(entries)])


def _address(entry: Any, where: str) -> str:
    url = entry.get("image_url") if isinstance(entry, dict) else entry
    if isinstance(url, str) and url.startswith(("https://", "http://", "data:image/")):
        return url
    raise InvalidRequest(f"'{where}' must be an http(s) or data:image URL.", param=where, code="invalid_image")


def _bounded(images: list[Any]) -> None:
    if len(images) > _MOST_IMAGES:
        raise InvalidRequest(f"At most {_MOST_IMAGES} pictures can be edited at once.", param="image")


def addresses(reply: Reply) -> tuple[str, ...]:
    """Pictures that must be fetched before ``reply`` is written, because their bytes were asked for; each once."""
    if reply.head.request.echo.get("response_format") != "b64_json":
        return ()
    return tuple(dict.fromkeys(image.url for image in reply.images if image.base64 is None and image.url is not None))


def with_bytes(reply: Reply, fetched: Mapping[str, tuple[str, bytes]]) -> Reply:
    """``reply`` with what was fetched: address -> media type and bytes."""

    def filled(image: ImageMade) -> ImageMade:
        found = fetched.get(image.url or "")
        if image.base64 is not None or found is None:
            return image
        return replace(image, media_type=found[0], base64=base64.b64encode(found[1]).decode())

    return replace(reply, images=tuple([filled(image) for image in reply.images]))


def whole(reply: Reply) -> bytes:
    """``{created, data: [{url | b64_json, revised_prompt?}], usage}``.

    Raises UpstreamFailed when bytes were asked for and nobody fetched them.
    """
    wanted = reply.head.request.echo.get("response_format")
    body = {
        "created": reply.head.created,
        "data": [_image(image, wanted) for image in reply.images],
        "usage": _usage(reply),
    }
    return orjson.dumps(body)


def _image(image: ImageMade, wanted: str | None) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if wanted == "b64_json" and image.base64 is None:
        raise UpstreamFailed("The upstream gave an address, and its picture could not be fetched.", code="no_image")
    if image.base64 is None or (wanted == "url" and image.url is not None):
        shown["url"] = image.url
    elif wanted == "url":
        shown["url"] = f"data:{image.media_type};base64,{image.base64}"
    else:
        shown["b64_json"] = image.base64
    if image.revised_prompt is not None:
        shown["revised_prompt"] = image.revised_prompt
    return shown


def _usage(reply: Reply) -> dict[str, Any]:
    """Tokens in OpenAI's shape for pictures. Upstreams tell one figure for the prompt: all of it counts as text."""
    usage = reply.usage
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "input_tokens_details": {"text_tokens": usage.prompt_tokens, "image_tokens": 0},
        **usage.extras(),
    }


class OpenAIImages:
    """Implements ``Dialect``; never streamed."""

    route = "/v1/images/generations"
    shape: Shape = "openai"
    prefix = "img"
    stream_type = b"application/json"

    def parse(self, raw: bytes | bytearray) -> ChatRequest:
        return parse_generation(raw)

    def whole(self, reply: Reply) -> bytes:
        return whole(reply)

    def writer(self, head: Head) -> Writer:
        """Never asked for: ``parse`` refuses ``stream``."""
        raise InvalidRequest("Pictures are not streamed.", param="stream", code="unsupported_parameter")


class OpenAIImageEdits(OpenAIImages):
    """Implements ``Dialect``: the same answer to another body. Forms need their content type: ``parse_form``."""

    route = "/v1/images/edits"

    def parse(self, raw: bytes | bytearray) -> ChatRequest:
        return parse_edit(raw)

    def parse_form(self, raw: bytes | bytearray, content_type: str) -> ChatRequest:
        """The request of a form, or of JSON. Raises InvalidRequest."""
        return parse_form(raw, content_type)
