"""Vectors and pictures, which come in one piece: what is asked of the provider, and its answer as events."""

from __future__ import annotations

import base64
from contextlib import aclosing

import aiohttp
from msgspec.structs import replace

from poe_gateway.chat.events import ChatEvent, Embedded, Finished, ImageMade
from poe_gateway.chat.request import ChatRequest, ImagePart, Part
from poe_gateway.outbound.fetch import ImageFetcher, ImageRefused
from poe_gateway.pool.outcome import AdapterDrift, Rejected, Transient
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.bodies import askable, json_body
from poe_gateway.upstreams.drift import Drift, InBandError
from poe_gateway.upstreams.exchange import Exchange, whole
from poe_gateway.upstreams.openai_api.answers import read_answer
from poe_gateway.upstreams.openai_api.drawing import Wordy, drawing_body, drawn
from poe_gateway.upstreams.openai_api.embeddings import embeddings_body, read_embeddings
from poe_gateway.upstreams.openai_api.endpoint import Endpoint
from poe_gateway.upstreams.openai_api.pictures import FormField, edit_form, generation_body, read_pictures
from poe_gateway.upstreams.openai_api.refusals import told_in_band

_QUOTED = 200
"""Characters of what a model said instead of drawing that a caller sees."""
Body = bytes | list[FormField]
"""What is posted: JSON, or the fields of a form."""


async def made(
    exchange: Exchange[Endpoint], endpoint: Endpoint, model: str, request: ChatRequest, images: ImageFetcher | None
) -> list[ChatEvent]:
    """What is made, what it cost, and the end. ``images`` brings pictures to be edited. Raises UpstreamFailure."""
    if request.operation == "image":
        if endpoint.known.draws_in_chats:
            return await _drawn(exchange, endpoint, model, request)
        if images is not None:
            request = await _with_files(request, images)
    url, body = _task(endpoint, model, request)
    kind, data = await _written(body)
    async with exchange.post(endpoint, url, data, kind=kind, model=model, operation=request.operation) as response:
        answer = await whole(response)
    try:
        embedded = request.operation == "embed"
        events = read_embeddings(answer, len(request.inputs)) if embedded else read_pictures(answer)
    except InBandError as told:
        failed = told_in_band(told.error, endpoint, model=model, answered=False, operation=request.operation)
        raise UpstreamFailure(*failed) from None
    except Drift as drift:
        raise UpstreamFailure(AdapterDrift(detail=str(drift)), Fate.ACCEPTED) from None
    if not any(isinstance(event, Embedded | ImageMade) for event in events):
        raise UpstreamFailure(Transient(detail="nothing was made"), Fate.ACCEPTED)
    return [*events, Finished()]


async def _drawn(exchange: Exchange[Endpoint], endpoint: Endpoint, model: str, request: ChatRequest) -> list[ChatEvent]:
    """A picture out of a chat."""
    first, *others = endpoint.known.draws_in_chats
    try:
        return await _chatted(exchange, endpoint, model, request, first)
    except UpstreamFailure as failed:
        # Models that only draw refuse to speak as well: asked again, since the first question was not taken.
        if not others or not isinstance(failed.outcome, Rejected) or failed.outcome.status != 404:
            raise
    return await _chatted(exchange, endpoint, model, request, others[0])


async def _chatted(
    exchange: Exchange[Endpoint], endpoint: Endpoint, model: str, request: ChatRequest, modalities: tuple[str, ...]
) -> list[ChatEvent]:
    body = json_body(lambda: drawing_body(request, model, modalities, endpoint.known))
    async with (
        exchange.post(endpoint, endpoint.chat_url, body, model=model, operation="image") as response,
        aclosing(read_answer(response, endpoint, model=model, operation="image")) as events,
    ):
        told = [event async for event in events]
    try:
        return drawn(told)
    except Wordy as wordy:
        said = " ".join(str(wordy).split())[:_QUOTED]
        public = f"The model answered in words instead of a picture: {said}"
        raise UpstreamFailure(Rejected(public=public, code="no_picture"), Fate.ACCEPTED) from None


async def _with_files(request: ChatRequest, images: ImageFetcher) -> ChatRequest:
    """Pictures by address as ``data:`` URLs: forms take files only."""

    async def brought(url: str) -> str:
        if not url.startswith(("http://", "https://")):
            return url
        try:
            media_type, content = await images.fetch(url)
        except ImageRefused as refused:
            raise UpstreamFailure(Rejected(public=refused.public, code="invalid_image")) from None
        return f"data:{media_type};base64,{base64.b64encode(content).decode()}"

    async def filled(part: Part) -> Part:
        return replace(part, url=await brought(part.url)) if isinstance(part, ImagePart) else part

    turns = [
        replace(message, parts=tuple([await filled(part) for part in message.parts])) for message in request.messages
    ]
    given = request.parameters
    if isinstance(mask := given.get("mask"), str):
        given = {**given, "mask": await brought(mask)}
    return replace(request, messages=tuple(turns), parameters=given)


def _task(endpoint: Endpoint, model: str, request: ChatRequest) -> tuple[str, Body]:
    """Where vectors or pictures are asked for, and the body."""
    if request.operation == "embed":
        return endpoint.embeddings_url, json_body(lambda: embeddings_body(request, model))
    if any(message.images for message in request.messages):
        return endpoint.edits_url, askable(lambda: edit_form(request, model))
    return endpoint.generations_url, json_body(lambda: generation_body(request, model))


async def _written(body: Body) -> tuple[str, bytes]:
    """Content type and bytes."""
    if isinstance(body, bytes):
        return "application/json", body
    form = aiohttp.FormData(default_to_multipart=True)
    for field in body:
        form.add_field(field.name, field.value, content_type=field.media_type, filename=field.filename)
    payload = form()
    return payload.headers["Content-Type"], await payload.as_bytes()
