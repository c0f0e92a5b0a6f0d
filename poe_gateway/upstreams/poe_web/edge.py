"""The network edge of the adapter: one HTTP request or one websocket handshake, errors translated.

Raises ``UpstreamFailure`` only; its fate says whether the request can have reached the site. No retries, no
cookies, no account here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import yarl

from poe_gateway.pool.outcome import AdapterDrift, NetworkFault, Transient
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.poe_web.outcomes import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poe_gateway.upstreams.poe_web.attachments import File
    from poe_gateway.upstreams.poe_web.options import PoeOptions

SessionSource = aiohttp.ClientSession | Callable[[], aiohttp.ClientSession]


class SetCookie(msgspec.Struct, frozen=True):
    """A cookie that a response sets, or takes away (``expired``)."""

    name: str
    value: str
    expired: bool


class HandshakeRefused(Exception):
    """The push channel did not open; what the status and headers of its answer were."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"status {answer.status}")
        self.answer = answer


@contextmanager
def _translated() -> Iterator[None]:
    """Foreign errors -> UpstreamFailure. Details carry the kind of error only, never an address."""
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise UpstreamFailure(NetworkFault(f"no connection: {type(error).__name__}"), Fate.NOT_SENT) from None
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError) as error:
        raise UpstreamFailure(AdapterDrift(f"unusable address: {type(error).__name__}"), Fate.NOT_SENT) from None
    except TimeoutError:
        raise UpstreamFailure(Transient("no answer in time", timeout=True), Fate.UNKNOWN) from None
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamFailure(Transient(f"connection broke: {type(error).__name__}"), Fate.UNKNOWN) from None


class Edge:
    """Sends requests through one session that has no cookie jar."""

    def __init__(self, session: SessionSource, options: PoeOptions) -> None:
        self._session = session if isinstance(session, aiohttp.ClientSession) else None
        self._factory = None if isinstance(session, aiohttp.ClientSession) else session
        self._options = options

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session; one from a factory is made on first use, inside the running loop."""
        if self._session is None and self._factory is not None:
            self._session = self._factory()
        if self._session is None:
            raise UpstreamFailure(NetworkFault("the adapter is closed"))
        return self._session

    async def close(self) -> None:
        """Close the session if it came from a factory; a session that was handed in belongs to its giver."""
        if self._factory is not None and self._session is not None:
            session, self._session, self._factory = self._session, None, None
            await session.close()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | File | None = None,
        seconds: float | None = None,
        limit: int | None = None,
    ) -> tuple[Answer, tuple[SetCookie, ...]]:
        """One request without redirects; the whole answer. A ``File`` goes as multipart field ``file``."""
        options = self._options
        limits = aiohttp.ClientTimeout(
            total=seconds or options.request_timeout,
            connect=options.connect_timeout,
            sock_connect=options.connect_timeout,
        )
        data: Any = body
        if body is not None and not isinstance(body, bytes):
            data = aiohttp.FormData()
            data.add_field("file", body.content, filename=body.name, content_type=body.media_type)
        with _translated():
            async with self.session.request(
                method, yarl.URL(url), headers=headers, data=data, timeout=limits, allow_redirects=False
            ) as response:
                content = await _bounded(response, limit or options.answer_bytes)
                return Answer(response.status, response.headers, content), _cookies(response)

    async def open_socket(self, url: str, *, headers: Mapping[str, str]) -> aiohttp.ClientWebSocketResponse:
        """Open the push channel. Raises HandshakeRefused when the site answers with anything else."""
        options = self._options
        with _translated():
            try:
                async with asyncio.timeout(options.socket_open_timeout):
                    return await self.session.ws_connect(
                        yarl.URL(url, encoded=True),
                        headers=headers,
                        heartbeat=options.socket_ping,
                        max_msg_size=options.frame_bytes,
                        autoping=True,
                    )
            except aiohttp.WSServerHandshakeError as error:
                raise HandshakeRefused(Answer(error.status, error.headers or {}, b"")) from None


async def _bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, refusing to hold more than ``limit`` bytes."""
    pieces, size = [], 0
    async for piece in response.content.iter_chunked(65536):
        size += len(piece)
        if size > limit:
            raise UpstreamFailure(AdapterDrift("the answer is too large"), Fate.UNKNOWN)
        pieces.append(piece)
    return b"".join(pieces)


def _cookies(response: aiohttp.ClientResponse) -> tuple[SetCookie, ...]:
    return tuple(
        SetCookie(name, morsel.value, expired=morsel["max-age"] == "0") for name, morsel in response.cookies.items()
    )
