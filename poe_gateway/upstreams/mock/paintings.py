"""Pictures of the mock models: real PNG files of two colours, the same for the same prompt. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import zlib
from typing import Any

from poe_gateway.chat.events import ImageMade
from poe_gateway.chat.request import ChatRequest
from poe_gateway.upstreams.mock.answer import QUOTED, counted
from poe_gateway.upstreams.mock.wishes import Unfulfillable

_SIZE = re.compile(r"(\d{1,4})x(\d{1,4})")
_USUAL = (64, 64)
_LARGEST = 2048
"""Pixels of a side."""
_MOST = 10
_SQUARE = 8
"""Pixels: the pattern's squares, a byte of one bit per pixel wide."""


def paintings(request: ChatRequest) -> list[ImageMade]:
    """The pictures that are asked for: ``n`` of ``size``. Raises Unfulfillable."""
    width, height = _size(request.parameters.get("size"))
    prompt = "".join(message.text for message in request.messages)
    images = sum(len(message.images) for message in request.messages)
    words = f"[mock] {prompt[:QUOTED]}" + (f" ({counted(images)})" if images else "")
    return [
        ImageMade(base64=base64.b64encode(png(f"{nth}\n{prompt}", width, height)).decode(), revised_prompt=words)
        for nth in range(_count(request.parameters.get("n")))
    ]


def png(seed: str, width: int, height: int) -> bytes:
    """A chequered PNG whose two colours follow from ``seed``."""
    colours = hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()[:6]
    across = -(-width // _SQUARE)
    rows = [bytes((0xFF * ((nth + odd) % 2)) for nth in range(across)) for odd in (0, 1)]
    pixels = b"".join(b"\x00" + rows[line // _SQUARE % 2] for line in range(height))  # each line begins with its filter
    header = struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)  # one bit per pixel, by palette
    chunks = ((b"IHDR", header), (b"PLTE", colours), (b"IDAT", zlib.compress(pixels, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _size(wanted: Any) -> tuple[int, int]:
    if wanted in (None, "auto"):
        return _USUAL
    found = _SIZE.fullmatch(wanted) if isinstance(wanted, str) else None
    sides = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(1 <= side <= _LARGEST for side in sides):
        raise Unfulfillable(f"'size' must be 'auto' or <width>x<height> of 1 to {_LARGEST} pixels.")
    return sides


def _count(wanted: Any) -> int:
    if wanted is None:
        return 1
    if type(wanted) is not int or not 1 <= wanted <= _MOST:
        raise Unfulfillable(f"'n' must be a whole number from 1 to {_MOST}.")
    return wanted
