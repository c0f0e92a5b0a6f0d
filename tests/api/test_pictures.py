"""Pictures by address for callers who want bytes: fetched once each, and never lost when they cannot be."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import orjson
import pytest

from poe_gateway.api.errors import render
from poe_gateway.api.v1.pictures import Pictures
from poe_gateway.chat.dialect import Reply
from poe_gateway.chat.events import ImageMade
from poe_gateway.chat.images import OpenAIImages
from poe_gateway.errors import UpstreamFailed
from poe_gateway.outbound.fetch import ImageRefused
from tests.unit.replies import reply_to

DRAW = OpenAIImages()
HERE, GONE = "https://pictures.test/a", "https://pictures.test/gone"


class Shop:
    """In the fetcher's place."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def fetch(self, url: str) -> tuple[str, bytes]:
        self.asked.append(url)
        if url == GONE:
            raise ImageRefused("The image's address cannot be reached.")
        return "image/png", b"png"


def reply(*made: ImageMade, **asked: Any) -> Reply:
    request = DRAW.parse(orjson.dumps({"model": "painter", "prompt": "a red cat", **asked}))
    return reply_to(request, images=made)


async def test_what_is_wanted_as_bytes_is_fetched_once() -> None:
    shop = Shop()
    made = [ImageMade(url=HERE), ImageMade(base64="QUJD"), ImageMade(url=HERE)]
    told = await Pictures(shop).completed(reply(*made, response_format="b64_json"))  # type: ignore[arg-type]
    fetched = b64encode(b"png").decode()
    assert [image.base64 for image in told.images] == [fetched, "QUJD", fetched] and shop.asked == [HERE]


@pytest.mark.parametrize("asked", [{}, {"response_format": "url"}], ids=["nothing asked", "an address asked"])
async def test_addresses_that_will_do_are_not_fetched(asked: dict[str, Any]) -> None:
    shop = Shop()
    given = reply(ImageMade(url=GONE), **asked)
    assert await Pictures(shop).completed(given) is given and shop.asked == []  # type: ignore[arg-type]


async def test_a_picture_that_is_paid_and_cannot_be_fetched_is_not_asked_for_again_and_not_lost() -> None:
    made = [ImageMade(url=HERE), ImageMade(url=GONE)]
    with pytest.raises(UpstreamFailed) as caught:
        await Pictures(Shop()).completed(reply(*made, response_format="b64_json"))  # type: ignore[arg-type]
    status, headers, body = render(caught.value)
    assert (status, dict(headers)[b"x-should-retry"]) == (502, b"false"), "SDKs would pay twice more"
    error = orjson.loads(body)["error"]
    assert error["code"] == "no_image" and HERE in error["message"] and GONE in error["message"]
