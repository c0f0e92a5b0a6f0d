"""Pictures as bytes, base64 and ``data:`` URLs: what kind they are, told by how they begin. Pure."""

from __future__ import annotations

import base64
import binascii

from poe_gateway.errors import InvalidRequest

KINDS = "PNG, JPEG, GIF or WebP"


def media_type(content: bytes) -> str | None:
    """Of a picture, by its first bytes; None: it is none that models take."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return None


def data_url(content: bytes, where: str) -> str:
    """The ``data:`` URL of a picture. Raises InvalidRequest."""
    kind = media_type(content)
    if kind is None:
        raise InvalidRequest(f"'{where}' must be a picture: {KINDS}.", param=where, code="invalid_image")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def from_base64(value: object, where: str) -> str:
    """The ``data:`` URL of a picture in bare base64; a ``data:`` URL stays as it is. Raises InvalidRequest."""
    if not isinstance(value, str):
        raise InvalidRequest(f"'{where}' must be a picture in base64.", param=where, code="invalid_image")
    if value.startswith("data:image/"):
        return value
    try:
        content = binascii.a2b_base64(value.encode("ascii"))
    except (ValueError, binascii.Error):
        raise InvalidRequest(f"'{where}' is not valid base64.", param=where, code="invalid_image") from None
    return data_url(content, where)
