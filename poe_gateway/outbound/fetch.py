"""Pictures by address: fetched for a caller, so every address is a stranger's.

Nothing of the gateway goes along (no cookie, no credential, no referrer), and nothing but a picture comes back. Where a
host cannot be reached and where it must not be, the caller is told the same: the names of a private network are
nobody's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from poe_gateway import __version__
from poe_gateway.chat.pictures import KINDS, media_type
from poe_gateway.outbound.destinations import AddressRefused, Destination
from poe_gateway.outbound.guard import Guard
from poe_gateway.outbound.resolver import guarded_connector

_REDIRECTS = 3
_MOVED = frozenset({301, 302, 303, 307, 308})
_PORTS = frozenset({80, 443, 8080, 8443})
"""Others are for services that are no web servers, unless the operator allows the host."""
_CHUNK = 64 * 1024
_TELLING = 12
"""Bytes that are enough to tell what a picture is."""
_HEADERS = {
    "Accept": "image/png, image/jpeg, image/gif, image/webp",
    "Accept-Encoding": "identity",  # what unpacks to more than it was is refused
    "User-Agent": f"poe-gateway/{__version__}",
}


class ImageRefused(Exception):
    """The picture cannot be had. ``public`` says why; it never repeats the address."""

    def __init__(self, public: str) -> None:
        super().__init__(public)
        self.public = public


_UNREACHABLE = "The image's address cannot be reached."


class ImageFetcher:
    """Fetches pictures, at most ``concurrency`` at a time; ``close`` it at the end.

    ``limit``: bytes of one picture; ``seconds``: from the question to the last byte, waiting and redirects included.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        limit: int = 20 * 1024 * 1024,
        seconds: float = 20.0,
        concurrency: int = 8,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._guard = guard
        self._limit = limit
        self._seconds = seconds
        self._turns = asyncio.Semaphore(concurrency)
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, url: str) -> tuple[str, bytes]:
        """Media type (told by the bytes) and content. Raises ImageRefused."""
        try:
            async with asyncio.timeout(self._seconds), self._turns:
                return await self._follow(self._judged(url))
        except TimeoutError:
            raise ImageRefused("The image did not arrive in time.") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise ImageRefused(_UNREACHABLE) from None

    async def vet(self, url: str) -> None:
        """Judge an address that somebody else will fetch from, without fetching. Raises ImageRefused.

        Of those who fetch by themselves it is not known whether they judge again, nor what a name is to them.
        """
        self._judged(url)
        try:
            await self._guard.check(url)
        except AddressRefused as refused:
            raise ImageRefused(refused.public) from None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _judged(self, url: str, before: Destination | None = None) -> Destination:
        try:
            end = self._guard.judge(url)
        except AddressRefused as refused:
            raise ImageRefused(refused.public) from None
        allowed = self._guard.allowed
        named = allowed.name(end.host, end.port) or (end.literal is not None and allowed.address(end.literal, end.port))
        if end.port not in _PORTS and not named:
            raise ImageRefused("The image's address has a port that is not one of the web's.")
        if before is not None and before.scheme == "https" and end.scheme == "http":
            raise ImageRefused("The image's address leads from https to http.")
        return end

    async def _follow(self, end: Destination) -> tuple[str, bytes]:
        for _ in range(_REDIRECTS + 1):
            async with self._get(end.url) as response:
                if response.status not in _MOVED:
                    return await self._read(response)
                target = response.headers.get("Location", "")
            if not target:
                raise ImageRefused(f"The image's address answers with HTTP {response.status}.")
            try:
                onward = str(end.url.join(URL(target)))
            except (ValueError, UnicodeError):
                raise ImageRefused("The image's address leads to something that is no address.") from None
            end = self._judged(onward, end)
        raise ImageRefused(f"The image's address leads on more than {_REDIRECTS} times.")

    @asynccontextmanager
    async def _get(self, url: URL) -> AsyncIterator[aiohttp.ClientResponse]:
        """One answer without its redirects; the connection is not kept."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=guarded_connector(self._guard, inner=self._resolver, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0),
                auto_decompress=False,
                trust_env=False,
            )
        response = await self._session.get(url, headers=_HEADERS, allow_redirects=False)
        try:
            yield response
        finally:
            response.close()

    async def _read(self, response: aiohttp.ClientResponse) -> tuple[str, bytes]:
        if response.status != 200:
            raise ImageRefused(f"The image's address answers with HTTP {response.status}.")
        if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise ImageRefused("The image is sent compressed, which is not asked for.")
        if response.content_length is not None and response.content_length > self._limit:
            raise self._too_large()
        content = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK):
            content += chunk
            if len(content) > self._limit:
                raise self._too_large()
            if len(content) >= _TELLING and media_type(bytes(content[:_TELLING])) is None:
                break
        kind = media_type(bytes(content[:_TELLING]))
        if kind is None:
            raise ImageRefused(f"The image must be {KINDS}.")
        return kind, bytes(content)

    def _too_large(self) -> ImageRefused:
        return ImageRefused(f"The image is larger than {self._limit} bytes.")
