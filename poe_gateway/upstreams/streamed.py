"""An answer as server-sent events: as they come, and what is wrong with one that has come to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Protocol

import aiohttp

from poe_gateway.pool.outcome import AdapterDrift, Failure, Transient
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.sse import SSEParser, SSEvent, TooLong

_TAIL_SECONDS = 10.0
"""How long figures and the closing event are waited for once the answer is complete."""


class Reader(Protocol):
    """What collects an answer, as far as it matters here."""

    @property
    def complete(self) -> bool:
        """The provider said in one way or the other that the answer ends here."""

    @property
    def understood(self) -> int:
        """Pieces that had a known shape."""

    @property
    def empty(self) -> bool:
        """Complete, and nothing was said though nothing forbade it."""


async def events_of(response: aiohttp.ClientResponse, reader: Reader) -> AsyncGenerator[SSEvent, None]:
    """Every event. Once the answer is complete, a break or a long silence just ends it.

    Raises UpstreamFailure for an event beyond all bounds, and the exchange's own errors.
    """
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
                yield event
            if not chunk:
                return
    except TooLong as error:
        raise UpstreamFailure(AdapterDrift(detail=str(error)), Fate.ACCEPTED) from None


def verdict(reader: Reader) -> Failure | None:
    """What is wrong with an answer that came to its end."""
    if not reader.complete:
        if not reader.understood:
            return AdapterDrift(detail="the answer held nothing known")
        return Transient(detail="the answer was cut off")
    if reader.empty:
        return Transient(detail="the answer was empty")
    return None
