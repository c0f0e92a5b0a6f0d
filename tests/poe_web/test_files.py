"""Images: decoded here, uploaded first, then named in the message."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from poe_gateway.chat.request import ImagePart
from poe_gateway.pool.outcome import Rejected
from poe_gateway.upstreams.base import Fate
from poe_gateway.upstreams.poe_web import PoeWeb
from poe_gateway.upstreams.poe_web.attachments import AttachmentError, File, decode_data_url, upload_token
from tests.poe_emulator import PoeEmulator
from tests.poe_web.kit import adapter, ask, ref, request, user

PNG = ImagePart("data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n and more").decode())
JPG = ImagePart("data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8\xff and more").decode())


@pytest.mark.parametrize("key", ["fileHashJwt", "file_hash_jwt", "jwt", "token", "bare"])
async def test_images_are_uploaded_and_named(key: str) -> None:
    async with PoeEmulator(accounts=1, upload_token_key=key) as emulator, adapter(emulator) as poe:
        account = emulator.accounts[0]
        said = await ask(poe, ref(account), request(user("what is this?", PNG, JPG)))
        assert said.finished and account.stats.uploads == 2
        assert emulator.stats.reasons() == []


async def test_an_image_without_text_is_a_message(poe: PoeWeb, emulator: Any) -> None:
    said = await ask(poe, ref(emulator.accounts[0]), request(user("", PNG)))
    assert said.outcome is None or not isinstance(said.outcome, Rejected)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.test/cat.png",
        "http://127.0.0.1/cat.png",
        "file:///etc/passwd",
        "data:text/html;base64,PGI+",
        "data:image/png;base64,%%%",
        "data:image/png;base64,",
        "data:",
    ],
)
async def test_other_images_are_refused_before_any_request(poe: PoeWeb, emulator: Any, url: str) -> None:
    account = emulator.accounts[0]
    said = await ask(poe, ref(account), request(user("what is this?", ImagePart(url))))
    assert isinstance(said.outcome, Rejected) and said.outcome.status == 400 and said.fate is Fate.NOT_SENT
    assert account.stats.requests == 0


async def test_a_hook_may_fetch_images(emulator: Any) -> None:
    async def fetch(url: str) -> File:
        return File("cat.png", "image/png", url.encode())

    async with adapter(emulator, fetch_image=fetch) as poe:
        said = await ask(poe, ref(emulator.accounts[0]), request(user("what?", ImagePart("https://example.test/c"))))
    assert said.finished and emulator.accounts[0].stats.uploads == 1


async def test_a_stale_key_at_the_upload_is_derived_again(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    await poe.prewarm(ref(account))
    emulator.rotate_formkey(account)
    assert (await ask(poe, ref(account), request(user("what?", PNG)))).finished
    assert account.stats.pages == 2


async def test_a_refused_upload_is_the_callers_fault(poe: PoeWeb, emulator: Any) -> None:
    account = emulator.accounts[0]
    account.fail("http:415", where="upload")
    said = await ask(poe, ref(account), request(user("what?", PNG)))
    assert isinstance(said.outcome, Rejected) and said.outcome.status == 400 and said.fate is Fate.NOT_SENT


def test_limits_of_an_image() -> None:
    with pytest.raises(AttachmentError, match="too large"):
        decode_data_url(PNG.url, index=0, limit=8)
    assert decode_data_url("data:image/gif,GIF89a%20x", index=3, limit=99) == File(
        "image3.gif", "image/gif", b"GIF89a x"
    )


@pytest.mark.parametrize(
    ("body", "token"),
    [
        (b'{"fileHashJwt":"a.b.c"}', "a.b.c"),
        (b'{"data":{"file":[{"file_hash_jwt":"a-1.b_2.c"}]}}', "a-1.b_2.c"),
        (b'"a.b.c"', "a.b.c"),
        (b"a.b.c\n", "a.b.c"),
        (b'{"jwt":"no token"}', None),
        (b"", None),
        (b"<html>a.b</html>", None),
    ],
)
def test_where_a_token_is_found(body: bytes, token: str | None) -> None:
    assert upload_token(body) == token
