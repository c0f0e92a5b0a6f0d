"""Pictures that an upstream tells by address and a caller wants as bytes: fetched through the guard."""

from __future__ import annotations

from poe_gateway.chat.dialect import Reply
from poe_gateway.chat.images import addresses, with_bytes
from poe_gateway.errors import UpstreamFailed
from poe_gateway.outbound.fetch import ImageFetcher, ImageRefused

_TOLD = 10
"""Addresses of pictures that could not be fetched."""


class Pictures:
    """Completes replies of the picture dialects."""

    def __init__(self, fetcher: ImageFetcher) -> None:
        self._fetcher = fetcher

    async def completed(self, reply: Reply) -> Reply:
        """The reply with the bytes that were asked for. Raises UpstreamFailed when a picture cannot be had.

        It is made and paid for then: the caller is told where it is, and that the same request would be paid again.
        """
        wanted = addresses(reply)
        if not wanted:
            return reply
        try:
            fetched = {url: await self._fetcher.fetch(url) for url in wanted}
        except ImageRefused as refused:
            raise UpstreamFailed(
                f"The picture was made, but could not be fetched: {refused.public} It is at {' '.join(wanted[:_TOLD])}",
                code="no_image",
                headers={"x-should-retry": "false"},
            ) from None
        return with_bytes(reply, fetched)
