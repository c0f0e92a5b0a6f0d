"""One HTTP exchange with a provider, and what it means when the exchange itself fails.

What happens before the connection stands leaves a message unsent; a break between sending and the first response byte
leaves its fate open; after a 200 it is accepted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp

from poe_gateway.pool.outcome import Failure, NetworkFault, Transient
from poe_gateway.upstreams.base import Fate, UpstreamFailure


@asynccontextmanager
async def exchange(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - limits of each phase, not of the whole
    body: bytes | None = None,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The response; its connection is dropped unless the body was read to its end. Raises UpstreamFailure."""
    response: aiohttp.ClientResponse | None = None
    try:
        response = await session.request(
            method, url, headers=headers, data=body, timeout=timeout, allow_redirects=False
        )
        yield response
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        accepted = response is not None and response.status == 200
        raise UpstreamFailure(*broken(error, accepted)) from None
    finally:
        if response is not None:
            response.release() if response.content.at_eof() else response.close()


def broken(error: BaseException, accepted: bool) -> tuple[Failure, Fate]:
    """What a failed exchange means. The error's own text stays out: it may name addresses and headers."""
    label = type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL):
        return NetworkFault(detail=label), Fate.NOT_SENT
    fate = Fate.ACCEPTED if accepted else Fate.UNKNOWN
    if isinstance(error, TimeoutError):
        return Transient(detail=label, timeout=True), fate
    if isinstance(error, aiohttp.ClientOSError) and not accepted:
        return NetworkFault(detail=label), fate
    return Transient(detail=label), fate


async def beginning(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, or its first ``limit`` bytes."""
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        parts.append(chunk)
        size += len(chunk)
        if size >= limit:
            break
    return b"".join(parts)[:limit]
