"""``multipart/form-data`` bodies (RFC 7578) as parts. Pure.

Split at the boundary in one go rather than line by line: pictures are large, and their lines have no meaning. What a
part is called is read by the standard library's parser of headers.
"""

from __future__ import annotations

from email.message import Message
from email.parser import BytesHeaderParser
from hashlib import blake2b
from typing import Any

import msgspec

from poe_gateway.errors import InvalidRequest

_MOST_PARTS = 64
_LONGEST_HEAD = 4096
"""Bytes of a part's headers."""
_LONGEST_BOUNDARY = 70
"""Characters, by RFC 2046."""
_headers = BytesHeaderParser()


class FormPart(msgspec.Struct, frozen=True):
    """One field. ``name`` without the brackets of lists: ``image[]`` is ``image``."""

    name: str
    content: bytes
    is_file: bool


def boundary_of(content_type: str) -> bytes:
    """The boundary that a content type names. Raises InvalidRequest."""
    header = Message()
    header["content-type"] = content_type.replace("\r", " ").replace("\n", " ")
    boundary = header.get_boundary()
    if header.get_content_type() != "multipart/form-data" or not boundary:
        raise InvalidRequest("The content type must be multipart/form-data with a boundary.", code="invalid_form")
    return boundary.encode("utf-8", "replace")


def parts(raw: bytes | bytearray, boundary: bytes) -> list[FormPart]:
    """Every field, in order. Raises InvalidRequest."""
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise InvalidRequest("The boundary of the form must have 1 to 70 characters.", code="invalid_form")
    delimiter = b"\r\n--" + boundary
    first, rest = delimiter[2:], bytes(raw)
    if not rest.startswith(first):
        raise InvalidRequest("The form does not begin with its boundary.", code="invalid_form")
    if rest.count(delimiter) > _MOST_PARTS:
        raise InvalidRequest(f"The form has more than {_MOST_PARTS} fields.", code="invalid_form")
    *sections, end = rest[len(first) :].split(delimiter)
    if not end.startswith(b"--"):
        raise InvalidRequest("The form is cut off: its closing boundary is missing.", code="invalid_form")
    return [_part(section) for section in sections]


def outline(raw: bytes | bytearray, content_type: str) -> dict[str, Any] | None:
    """The same for the same form, whatever its boundary: each field's name and a hash of its content, and the text
    of ``model``. None when it is no form."""
    try:
        fields = parts(raw, boundary_of(content_type))
    except InvalidRequest:
        return None
    told = [[each.name, each.is_file, blake2b(each.content, digest_size=32).hexdigest()] for each in fields]
    models = [each.content.decode("utf-8", "replace") for each in fields if each.name == "model"]
    return {"form": told, **({"model": models[-1]} if models else {})}


def _part(section: bytes) -> FormPart:
    """One section: the rest of the boundary's line, headers, an empty line, content."""
    head, found, content = section.partition(b"\r\n\r\n")
    if not found or len(head) > _LONGEST_HEAD:
        raise InvalidRequest("A field of the form has no proper headers.", code="invalid_form")
    headers = _headers.parsebytes(head.lstrip(b" \t\r\n") + b"\r\n\r\n")
    name = headers.get_param("name", header="content-disposition")
    if not isinstance(name, str) or not name:
        raise InvalidRequest("A field of the form has no name.", code="invalid_form")
    is_file = headers.get_param("filename", header="content-disposition") is not None
    return FormPart(name.split("[", 1)[0], content, is_file)
