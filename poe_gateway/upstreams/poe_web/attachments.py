"""Images of a request as files, and upload tokens, pure."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
import orjson

_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*),(.*)\Z", re.DOTALL | re.IGNORECASE)
_IMAGE_TYPES = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/jpg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
}
_TOKEN_KEYS = ("fileHashJwt", "file_hash_jwt", "jwt", "token")
_TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+\Z", re.ASCII)


class AttachmentError(ValueError):
    """The caller's image cannot be used; the message may be shown to the caller."""


class File(msgspec.Struct, frozen=True):
    """A file to upload."""

    name: str
    media_type: str
    content: bytes


def decode_data_url(url: str, *, index: int, limit: int) -> File:
    """The file in a ``data:`` URL. Raises AttachmentError."""
    match = _DATA_URL.match(url)
    if match is None:
        raise AttachmentError("the image is not a valid data: URL")
    media_type, options, payload = match.group(1).strip().lower(), match.group(2).lower(), match.group(3)
    if media_type not in _IMAGE_TYPES:
        raise AttachmentError("the image must be PNG, JPEG, GIF or WebP")
    if len(payload) > limit * 4:
        raise AttachmentError("the image is too large")
    try:
        if ";base64" in options:
            content = base64.b64decode(re.sub(r"\s+", "", payload), validate=True)
        else:
            content = unquote_to_bytes(payload)
    except (binascii.Error, ValueError):
        raise AttachmentError("the image is not valid base64") from None
    if not content:
        raise AttachmentError("the image is empty")
    if len(content) > limit:
        raise AttachmentError("the image is too large")
    return File(f"image{index}.{_IMAGE_TYPES[media_type]}", media_type, content)


def upload_token(body: bytes) -> str | None:
    """The three-part token in an upload's answer: under one of its known keys at any depth, or bare."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = body.decode("utf-8", "replace").strip()
    return _named_token(document) or (document if _is_token(document) else None)


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and _TOKEN.match(value) is not None


def _named_token(value: Any, depth: int = 0) -> str | None:
    if depth > 8:
        return None
    if isinstance(value, dict):
        for key in _TOKEN_KEYS:
            if _is_token(token := value.get(key)):
                return str(token)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            if found := _named_token(item, depth + 1):
                return found
    return None
