"""One chat answer on its way in: an event stream, or a whole completion from those that do not stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import aiohttp

from poe_gateway.chat.events import ChatEvent, Finished
from poe_gateway.chat.request import Operation
from poe_gateway.pool.outcome import AdapterDrift, Failure, Transient
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.openai_api.chunks import Reader
from poe_gateway.upstreams.openai_api.drift import Drift, InBandError
from poe_gateway.upstreams.openai_api.exchange import whole
from poe_gateway.upstreams.openai_api.refusals import told_in_band
from poe_gateway.upstreams.sse import SSEParser, TooLong

_TAIL_SECONDS = 10.0
"""How long the usage chunk and ``[DONE]`` are waited for once the answer is complete."""


async def read_answer(
    response: aiohttp.ClientResponse, *, model: str, secret: str, operation: Operation = "chat"
) -> AsyncGenerator[ChatEvent, None]:
    """The events of a 200, ``Finished`` last. Raises UpstreamFailure."""
    reader = Reader()

    def understood(take: Callable[[str], list[ChatEvent]], data: str) -> list[ChatEvent]:
        """What was told, or the typed failure that it is."""
        try:
            return take(data)
        except InBandError as told:
            failed = told_in_band(told.error, model=model, secret=secret, answered=reader.spoke, operation=operation)
        except Drift as drift:
            failed = AdapterDrift(detail=str(drift)), Fate.ACCEPTED
        raise UpstreamFailure(*failed)

    kind = response.content_type
    if kind == "application/json":
        completion = (await whole(response)).decode("utf-8", "replace")
        for event in understood(reader.take_whole, completion):
            yield event
    elif kind == "text/event-stream" or "Content-Type" not in response.headers:
        async with aclosing(_data(response, reader)) as stream:
            async for data in stream:
                for event in understood(reader.take, data):
                    yield event
                if reader.done:
                    break
    else:
        raise UpstreamFailure(AdapterDrift(detail=f"200 with {kind} instead of an event stream"), Fate.ACCEPTED)
    if (wrong := _verdict(reader)) is not None:
        raise UpstreamFailure(wrong, Fate.ACCEPTED)
    if reader.usage is not None:
        yield reader.usage
    yield Finished(reader.reason)


def _verdict(reader: Reader) -> Failure | None:
    """What is wrong with an answer that came to its end."""
    if not reader.complete:
        if not reader.understood:
            return AdapterDrift(detail="the answer held nothing known")
        return Transient(detail="the answer was cut off")
    if reader.empty:
        return Transient(detail="the answer was empty")
    return None


async def _data(response: aiohttp.ClientResponse, reader: Reader) -> AsyncGenerator[str, None]:
    """The data of every event. Once the answer is complete, a break or a long silence just ends it."""
    parser = SSEParser()
    try:
        while True:
            limit = _TAIL_SECONDS if reader.complete else None
            try:
                async with asyncio.timeout(limit):
                    chunk = await response.content.readany()
            except (aiohttp.ClientError, TimeoutError, OSError):
                if reader.complete:
                    return
                raise
            for event in parser.feed(chunk) if chunk else parser.close():
                yield event.data
            if not chunk:
                return
    except TooLong as error:
        raise UpstreamFailure(AdapterDrift(detail=str(error)), Fate.ACCEPTED) from None
