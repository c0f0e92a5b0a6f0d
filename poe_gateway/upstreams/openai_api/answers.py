"""One chat answer on its way in: an event stream, or a whole completion from those that do not stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import aiohttp

from poe_gateway.chat.events import ChatEvent, Finished
from poe_gateway.chat.request import Operation
from poe_gateway.pool.outcome import AdapterDrift
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.drift import Drift, InBandError
from poe_gateway.upstreams.exchange import whole
from poe_gateway.upstreams.openai_api.chunks import Reader
from poe_gateway.upstreams.openai_api.endpoint import Endpoint
from poe_gateway.upstreams.openai_api.refusals import told_in_band
from poe_gateway.upstreams.streamed import events_of, verdict


async def read_answer(
    response: aiohttp.ClientResponse, endpoint: Endpoint, *, model: str, operation: Operation = "chat"
) -> AsyncGenerator[ChatEvent, None]:
    """The events of a 200, ``Finished`` last. Raises UpstreamFailure."""
    reader = Reader()

    def understood(take: Callable[[str], list[ChatEvent]], data: str) -> list[ChatEvent]:
        """What was told, or the typed failure that it is."""
        try:
            return take(data)
        except InBandError as told:
            failed = told_in_band(told.error, endpoint, model=model, answered=reader.spoke, operation=operation)
        except Drift as drift:
            failed = AdapterDrift(detail=str(drift)), Fate.ACCEPTED
        raise UpstreamFailure(*failed)

    kind = response.content_type
    if kind == "application/json":
        completion = (await whole(response)).decode("utf-8", "replace")
        for event in understood(reader.take_whole, completion):
            yield event
    elif kind == "text/event-stream" or "Content-Type" not in response.headers:
        async with aclosing(events_of(response, reader)) as stream:
            async for each in stream:
                take = reader.take_error if each.event == "error" else reader.take
                for event in understood(take, each.data):
                    yield event
                if reader.done:
                    break
    else:
        raise UpstreamFailure(AdapterDrift(detail=f"200 with {kind} instead of an event stream"), Fate.ACCEPTED)
    if (wrong := verdict(reader)) is not None:
        raise UpstreamFailure(wrong, Fate.ACCEPTED)
    if reader.usage is not None:
        yield reader.usage
    yield Finished(reader.reason)
