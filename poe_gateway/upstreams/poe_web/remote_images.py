"""Images by address as files: what the guarded fetcher brings, as this adapter uploads it."""

from __future__ import annotations

from poe_gateway.outbound.fetch import ImageFetcher, ImageRefused
from poe_gateway.upstreams.poe_web.attachments import AttachmentError, File
from poe_gateway.upstreams.poe_web.chat import FetchImage

_ENDINGS = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp"}


def fetching(images: ImageFetcher) -> FetchImage:
    """The hook of ``PoeWeb``. What it gives raises AttachmentError."""

    async def fetch(url: str) -> File:
        try:
            media_type, content = await images.fetch(url)
        except ImageRefused as refused:
            raise AttachmentError(refused.public) from None
        return File(f"image.{_ENDINGS[media_type]}", media_type, content)

    return fetch
