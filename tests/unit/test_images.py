"""``/v1/images``: bodies and forms, refusals, addresses and bytes, and what OpenAI's SDK reads of it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import httpx2
import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import ImagesResponse

from poe_gateway.chat import images
from poe_gateway.chat.events import ImageMade
from poe_gateway.chat.images import OpenAIImageEdits, OpenAIImages, addresses, parse_form, with_bytes
from poe_gateway.chat.request import ChatRequest
from poe_gateway.errors import InvalidRequest, UpstreamFailed
from tests.unit.replies import head_of, reply_to

PNG = b"\x89PNG\r\n\x1a\n\r\n--not a boundary\r\n\x00\xff"
JPG = b"\xff\xd8\xff\xe0 more"
URL, BYTES = ImageMade(url="https://pictures.test/a"), ImageMade(base64="QUJD", media_type="image/webp")
DRAW, EDIT = OpenAIImages(), OpenAIImageEdits()


def data_url(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def draw(**fields: Any) -> ChatRequest:
    return DRAW.parse(orjson.dumps({"model": "painter", "prompt": "a red cat", **fields}))


def edit(**fields: Any) -> ChatRequest:
    return EDIT.parse(orjson.dumps({"model": "painter", "prompt": "blue", "image": data_url(PNG), **fields}))


def test_a_prompt_is_one_turn() -> None:
    request = draw()
    assert request.operation == "image" and len(request.messages) == 1
    assert request.messages[0].text == "a red cat" and not request.messages[0].images
    assert request.parameters == {} and request.session_id is None and not request.stream


def test_what_is_asked_of_pictures_is_passed_on() -> None:
    asked = {
        "n": 2,
        "size": "1024x1024",
        "quality": "hd",
        "style": "vivid",
        "user": "u",
        "seed": 4,
        "background": "auto",
    }
    assert draw(**asked, response_format="url", stream=False, mask=None).parameters == asked


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "  "}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({"prompt": "a" * 32_001}, "prompt"),
        ({"n": 0}, "n"),
        ({"n": 11}, "n"),
        ({"n": "2"}, "n"),
        ({"n": 2.0}, "n"),
        ({"size": 1024}, "size"),
        ({"size": "1" * 65}, "size"),
        ({"quality": []}, "quality"),
        ({"output_compression": 101}, "output_compression"),
        ({"response_format": "png"}, "response_format"),
        ({"response_format": {}}, "response_format"),
        ({"user": 1}, "user"),
        ({"stream": True}, "stream"),
        ({"stream": 1}, "stream"),
        ({"image": "x"}, "image"),
        ({"mask": "x"}, "mask"),
    ],
    ids=range(20),
)
def test_refusals_name_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        draw(**fields)
    assert caught.value.param == param and caught.value.status == 400


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, [data_url(PNG)]),
        ({"image": ["https://a.test/1", data_url(JPG, "jpeg")]}, ["https://a.test/1", data_url(JPG, "jpeg")]),
        ({"image": None, "images": [{"image_url": "https://a.test/1"}]}, ["https://a.test/1"]),
    ],
    ids=["one", "several", "objects"],
)
def test_pictures_to_edit_as_json(fields: dict[str, Any], found: list[str]) -> None:
    request = edit(**fields)
    assert request.operation == "image" and [image.url for image in request.messages[0].images] == found
    assert request.messages[0].text == "blue" and request.parameters == {}


def test_a_mask_is_no_picture_of_the_prompt() -> None:
    request = edit(mask={"image_url": data_url(PNG)})
    assert len(request.messages[0].images) == 1 and request.parameters == {"mask": data_url(PNG)}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"image": None}, "image"),
        ({"image": []}, "image"),
        ({"image": "x.png"}, "image[0]"),
        ({"image": ["https://a.test/1", 3]}, "image[1]"),
        ({"image": ["https://a.test/1"] * 17}, "image"),
        ({"images": [{"file_id": "file-1"}]}, "images[0]"),
        ({"images": ["file:///etc/passwd"]}, "images[0]"),
        ({"mask": "x"}, "mask"),
        ({"mask": 3}, "mask"),
    ],
    ids=range(9),
)
def test_refusals_of_edits_name_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        edit(**fields)
    assert caught.value.param == param


def test_json_is_understood_whatever_its_content_type_says() -> None:
    raw = orjson.dumps({"model": "painter", "prompt": "blue", "image": data_url(PNG)})
    assert parse_form(raw, "application/json") == EDIT.parse(raw) == parse_form(raw, "")


@given(
    st.dictionaries(
        st.sampled_from(["model", "prompt", "n", "image", "mask", "size", "x"]),
        st.none() | st.text() | st.integers() | st.lists(st.text()),
    )
)
def test_any_body_is_understood_or_refused(body: dict[str, Any]) -> None:
    raw = orjson.dumps({key: value if not isinstance(value, int) else value % 2**60 for key, value in body.items()})
    for parse in (DRAW.parse, EDIT.parse):
        try:
            assert parse(raw).operation == "image"
        except InvalidRequest as error:
            assert error.param is not None


@pytest.mark.parametrize(
    ("wanted", "image", "shown"),
    [
        (None, URL, {"url": URL.url}),
        (None, BYTES, {"b64_json": "QUJD"}),
        ("url", URL, {"url": URL.url}),
        ("url", BYTES, {"url": "data:image/webp;base64,QUJD"}),
        ("b64_json", BYTES, {"b64_json": "QUJD"}),
        ("b64_json", ImageMade(url="https://a.test/1", base64="QUJD"), {"b64_json": "QUJD"}),
        ("url", ImageMade(url="https://a.test/1", base64="QUJD"), {"url": "https://a.test/1"}),
        (None, ImageMade(base64="QUJD", revised_prompt="a cat"), {"b64_json": "QUJD", "revised_prompt": "a cat"}),
    ],
    ids=range(8),
)
def test_pictures_are_told_as_asked_for(wanted: str | None, image: ImageMade, shown: dict[str, str]) -> None:
    reply = reply_to(draw(response_format=wanted), images=(image,))
    body = orjson.loads(DRAW.whole(reply))
    assert body["data"] == [shown] and addresses(reply) == ()
    ImagesResponse.model_validate(body, strict=True)


def test_bytes_that_were_asked_for_are_fetched_once() -> None:
    reply = reply_to(draw(response_format="b64_json"), images=(URL, BYTES, URL))
    assert addresses(reply) == (URL.url,)
    filled = with_bytes(reply, {"https://pictures.test/a": ("image/png", PNG)})
    assert addresses(filled) == ()
    data = orjson.loads(DRAW.whole(filled))["data"]
    assert [b64decode(each["b64_json"]) for each in data] == [PNG, b"ABC", PNG]


def test_bytes_that_nobody_fetched_are_an_error() -> None:
    reply = reply_to(draw(response_format="b64_json"), images=(URL,))
    with pytest.raises(UpstreamFailed):
        DRAW.whole(with_bytes(reply, {"https://elsewhere.test": ("image/png", PNG)}))


def test_usage_has_the_shape_of_pictures() -> None:
    body = orjson.loads(DRAW.whole(reply_to(draw(), images=(URL,))))
    answer = ImagesResponse.model_validate(body, strict=True)
    assert answer.created == 1_700_000_000 and answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (7, 5, 12)


def test_pictures_are_never_streamed() -> None:
    with pytest.raises(InvalidRequest):
        DRAW.writer(head_of(draw()))


def sdk(seen: list[ChatRequest], *made: ImageMade) -> openai.OpenAI:
    """The SDK in front of the dialects."""

    def answer(http: httpx2.Request) -> httpx2.Response:
        raw, content_type = http.read(), http.headers["content-type"]
        request = parse_form(raw, content_type) if http.url.path == EDIT.route else DRAW.parse(raw)
        seen.append(request)
        return httpx2.Response(200, content=images.whole(reply_to(request, images=made)))

    transport = httpx2.MockTransport(answer)
    return openai.OpenAI(api_key="k", base_url="http://gateway.test/v1", http_client=httpx2.Client(transport=transport))


def test_the_sdk_generates() -> None:
    seen: list[ChatRequest] = []
    found = sdk(seen, URL, BYTES).images.generate(model="painter", prompt="a red cat", n=2, size="1024x1024")
    assert found.data is not None and [each.url for each in found.data] == [URL.url, None]
    assert found.data[1].b64_json == "QUJD" and seen[0].parameters == {"n": 2, "size": "1024x1024"}


def test_the_sdk_edits_one_picture_with_a_mask() -> None:
    seen: list[ChatRequest] = []
    sdk(seen, URL).images.edit(
        model="painter", prompt="blau, größer", image=PNG, mask=("m.png", PNG), n=2, output_compression=50
    )
    turn = seen[0].messages[0]
    assert turn.text == "blau, größer" and [image.url for image in turn.images] == [data_url(PNG)]
    assert seen[0].parameters == {"n": 2, "output_compression": 50, "mask": data_url(PNG)}


def test_the_sdk_edits_several_pictures() -> None:
    seen: list[ChatRequest] = []
    sdk(seen, URL).images.edit(
        model="painter", prompt="both", image=[PNG, ('o"dd; name.jpg', JPG)], response_format="url"
    )
    assert [image.url for image in seen[0].messages[0].images] == [data_url(PNG), data_url(JPG, "jpeg")]
    assert seen[0].echo == {"response_format": "url"}
