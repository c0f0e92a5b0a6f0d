"""Pictures by address that an upstream itself would fetch: judged before it hears of them."""

from __future__ import annotations

import asyncio

from poe_gateway.chat.request import ChatRequest
from poe_gateway.outbound.fetch import ImageFetcher, ImageRefused
from poe_gateway.pool.outcome import Rejected
from poe_gateway.upstreams.base import UpstreamFailure

_VETTING = 10.0
"""Seconds for all addresses of a request."""


async def vet_pictures(request: ChatRequest, images: ImageFetcher) -> None:
    """Judge where pictures by address lead, before an upstream fetches them. Raises UpstreamFailure."""
    urls = {image.url for message in request.messages for image in message.images}
    try:
        async with asyncio.timeout(_VETTING):
            for url in urls:
                if url.startswith(("http://", "https://")):
                    await images.vet(url)
    except ImageRefused as refused:
        raise UpstreamFailure(Rejected(public=refused.public, code="invalid_image")) from None
    except TimeoutError:
        public = "The addresses of the images could not be looked up in time."
        raise UpstreamFailure(Rejected(public=public, code="invalid_image")) from None
