"""Forms: what is in them byte for byte, and that nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.chat.forms import FormPart, boundary_of, parts
from poe_gateway.chat.images import LARGEST_IMAGE, parse_form
from poe_gateway.errors import InvalidRequest

TYPE = "multipart/form-data; boundary=XX"
PNG = b"\x89PNG\r\n\x1a\n more"


def field(name: str, content: bytes, filename: str | None = None) -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    return f'Content-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content


def form(*fields: bytes) -> bytes:
    return b"".join(b"--XX\r\n" + each + b"\r\n" for each in fields) + b"--XX--\r\n"


GOOD = (field("model", b"painter"), field("prompt", b"blue"), field("image", PNG, "a.png"))


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_contents_come_out_as_they_went_in(contents: list[bytes]) -> None:
    contents = [content for content in contents if b"\r\n--XX" not in b"\r\n" + content]
    found = parts(form(*(field("f", content) for content in contents)), b"XX")
    assert found == [FormPart("f", content, False) for content in contents]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_form_or_refused(raw: bytes) -> None:
    for body in (raw, b"--XX\r\n" + raw + b"\r\n--XX--", b"--XX" + raw):
        with pytest.raises(InvalidRequest):
            parse_form(body, TYPE)


@given(st.binary(max_size=80))
def test_any_headers_are_read_or_refused(head: bytes) -> None:
    try:
        parts(b"--XX\r\n" + head + b"\r\n\r\nx\r\n--XX--", b"XX")
    except InvalidRequest as error:
        assert error.code == "invalid_form"


@pytest.mark.parametrize(
    ("header", "name", "is_file"),
    [
        (b'content-disposition: form-data; name="image[]"; filename="a.png"', "image", True),
        (b"Content-Disposition: form-data; name=image[0]; filename=", "image", True),
        (b"Content-Type: text/plain\r\nContent-Disposition: form-data; name=prompt", "prompt", False),
        (b'Content-Disposition: form-data; name="prompt"\r\nContent-Length: 3', "prompt", False),
        ('Content-Disposition: form-data; name="image"; filename="größer.png"'.encode(), "image", True),
        (b"Content-Disposition: form-data; name=\"image\"; filename*=UTF-8''gr%C3%B6%C3%9Fer.png", "image", True),
    ],
    ids=range(6),
)
def test_headers_of_clients(header: bytes, name: str, is_file: bool) -> None:
    assert parts(form(header + b"\r\n\r\nabc"), b"XX") == [FormPart(name, b"abc", is_file)]


def test_space_after_a_boundary_is_no_content() -> None:
    raw = b"--XX \t\r\n" + field("f", b"abc") + b"\r\n--XX--"
    assert parts(raw, b"XX") == [FormPart("f", b"abc", False)]


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (form(*GOOD), "multipart/form-data"),
        (form(*GOOD), "multipart/form-data; boundary="),
        (form(*GOOD), "multipart/mixed; boundary=XX"),
        (form(*GOOD), "multipart/form-data; boundary=YY"),
        (form(*GOOD), "multipart/form-data; boundary=" + "X" * 71),
        (form(*GOOD), 'multipart/form-data; boundary="ö\r\n"'),
        (form(*GOOD)[:-8], TYPE),
        (form(*GOOD)[:30], TYPE),
        (b"", TYPE),
        (b"--XX", TYPE),
        (form(b"no headers"), TYPE),
        (form(b"Content-Type: text/plain\r\n\r\nx"), TYPE),
        (form(field("", b"x")), TYPE),
        (form(b"X: " + b"y" * 5000 + b"\r\n" + field("a", b"x")), TYPE),
        (form(*[field("a", b"x")] * 65), TYPE),
        (form(*GOOD, field("size", b"\xff\xfe")), TYPE),
    ],
    ids=range(16),
)
def test_what_is_no_form_is_refused(raw: bytes, content_type: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_form(raw, content_type)
    assert caught.value.code == "invalid_form"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ((*GOOD[:2],), "image"),
        ((*GOOD[:1], GOOD[2]), "prompt"),
        ((*GOOD[1:],), "model"),
        ((*GOOD[:2], field("image", b"GIF but not", "a.gif")), "image[0]"),
        ((*GOOD[:2], field("image", b"", "a.png")), "image[0]"),
        ((*GOOD, field("mask", b"no picture", "m.png")), "mask"),
        ((*GOOD, field("prompt", b"x", "p.txt")), "prompt"),
        ((*GOOD, field("n", b"two")), "n"),
        ((*GOOD, field("n", b"1" * 5000)), "n"),
        ((*GOOD, field("n", b"-1")), "n"),
        ((*GOOD, field("stream", b"true")), "stream"),
        ((*GOOD, field("stream", b"maybe")), "stream"),
        ((*GOOD, *[field("image[]", PNG, "a.png")] * 16), "image"),
        ((*GOOD[:2], field("image", PNG + bytes(LARGEST_IMAGE), "a.png")), "image[0]"),
    ],
    ids=range(14),
)
def test_refusals_name_the_field(fields: tuple[bytes, ...], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_form(form(*fields), TYPE)
    assert caught.value.param == param and caught.value.status == 400


def test_a_boundary_may_be_quoted() -> None:
    assert boundary_of('Multipart/Form-Data; charset=utf-8; boundary="a b:c"') == b"a b:c"
    assert parse_form(form(*GOOD, field("stream", b"false")), TYPE).messages[0].text == "blue"
