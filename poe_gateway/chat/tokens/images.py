"""Tokens of images, by OpenAI's tiles: 85 for a look at the whole, 170 for each square of 512 pixels. Pure.

The size of a ``data:`` URL is read from how the picture begins. Images at an address are not fetched for it.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Callable
from struct import unpack_from

from poe_gateway.chat.pictures import media_type
from poe_gateway.chat.request import ImagePart

_BASE = 85
_TILE = 170
_UNKNOWN = 765
"""Of an image of 1024 by 1024 pixels, in place of one whose size is not known."""
_BEGINNING = 87_384
"""Characters of base64 (64 KiB): a JPEG may have notes of that length before its size."""
_NO_SIZE = frozenset({0xC4, 0xC8, 0xCC})
"""Of JPEG's markers 0xC0 to 0xCF those that begin something else than a picture."""


def image_tokens(image: ImagePart) -> int:
    """Tokens of one image; ``auto`` detail is taken for ``high``."""
    if image.detail == "low":
        return _BASE
    size = size_of(image.url)
    return _UNKNOWN if size is None else tiles(*size) * _TILE + _BASE


def tiles(width: int, height: int) -> int:
    """Squares that cover an image after it was made to fit 2048 by 2048, and its shorter side to 768 at most."""
    longer, shorter = max(width, height), min(width, height)
    if longer > 2048:
        longer, shorter = 2048, shorter * 2048 // longer
    if shorter > 768:
        longer, shorter = longer * 768 // shorter, 768
    return max(1, -(-longer // 512)) * max(1, -(-shorter // 512))


def size_of(url: str) -> tuple[int, int] | None:
    """Width and height in pixels of the PNG, JPEG, GIF or WebP in a ``data:`` URL; None: not to be seen."""
    head, comma, _ = url[:200].partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return None
    start = len(head) + 1
    try:
        content = binascii.a2b_base64(url[start : start + _BEGINNING].encode("ascii"))
        read = _READERS.get(media_type(content) or "")
        size = read(content) if read is not None else None
    except (ValueError, struct.error):
        return None
    return size if size is not None and min(size) > 0 else None


def _png(content: bytes) -> tuple[int, int]:
    width, height = unpack_from(">II", content, 16)
    return width, height


def _gif(content: bytes) -> tuple[int, int]:
    width, height = unpack_from("<HH", content, 6)
    return width, height


def _webp(content: bytes) -> tuple[int, int] | None:
    kind = content[12:16]
    if kind == b"VP8X":
        sides = unpack_from("3s3s", content, 24)
        return int.from_bytes(sides[0], "little") + 1, int.from_bytes(sides[1], "little") + 1
    if kind == b"VP8L":
        (bits,) = unpack_from("<I", content, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg(content: bytes) -> tuple[int, int] | None:
    """From the first frame; what comes before it is passed over by its length."""
    place = 2
    while place < len(content):
        mark, marker, length = unpack_from(">BBH", content, place)
        if mark != 0xFF:
            return None
        if marker == 0xFF:  # padding
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:
            height, width = unpack_from(">HH", content, place + 5)
            return width, height
        else:
            place += 2 + max(2, length)
    return None


_READERS: dict[str, Callable[[bytes], tuple[int, int] | None]] = {
    "image/png": _png,
    "image/jpeg": _jpeg,
    "image/gif": _gif,
    "image/webp": _webp,
}
