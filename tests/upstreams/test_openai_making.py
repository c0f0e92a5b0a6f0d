"""Embeddings and pictures of OpenAI-compatible providers, against a real server on loopback."""

import base64
import contextlib
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.chat.events import Embedded, Finished, ImageMade, Measured
from poe_gateway.chat.request import ChatRequest, ImagePart, Message, TextPart
from poe_gateway.clock import SystemClock
from poe_gateway.outbound.allowed import read_allowed
from poe_gateway.outbound.fetch import ImageFetcher
from poe_gateway.outbound.guard import Guard
from poe_gateway.pool.outcome import AdapterDrift, RateLimited, Rejected, Transient, Unauthorized
from poe_gateway.upstreams import exchange
from poe_gateway.upstreams.base import AccountRef, Fate, UpstreamFailure
from poe_gateway.upstreams.drift import Drift, InBandError
from poe_gateway.upstreams.http import new_session
from poe_gateway.upstreams.openai_api import OpenAIAPI
from poe_gateway.upstreams.openai_api.embeddings import read_embeddings
from poe_gateway.upstreams.openai_api.pictures import read_pictures

KEY = "canary-key-8812345"
PIXEL = b"\x89PNG\r\n\x1a\nnot quite"
PICTURE = "data:image/png;base64," + base64.b64encode(PIXEL).decode()


def embedding(*inputs, **parameters) -> ChatRequest:
    return ChatRequest(model="m", messages=(), operation="embed", inputs=inputs, parameters=parameters)


def painting(*images, prompt="a cat", **parameters) -> ChatRequest:
    turn = Message("user", (TextPart(prompt), *(ImagePart(url) for url in images)))
    return ChatRequest(model="m", messages=(turn,), operation="image", parameters=parameters)


@pytest.fixture
async def make(provider):
    async with new_session() as session:
        adapter = OpenAIAPI(session=session, clock=SystemClock(), idle_timeout=1)
        ref = AccountRef(id="a", name="a", offer="o", credentials={"api_key": KEY, "base_url": provider.url})

        async def ask(request):
            return [event async for event in adapter.chat(ref, "m-1", request, None)]

        yield ask


async def fails(make, request) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await make(request)
    assert KEY not in repr(caught.value.outcome)
    return caught.value


async def test_a_text_becomes_a_vector(make, provider):
    events = await make(embedding("hello", dimensions=2, user="u"))
    assert events == [Embedded(0, (0.5, -1.0)), Measured(2, 0), Finished("stop")]
    path, headers, body = provider.seen[-1]
    assert (path, headers["Authorization"]) == ("/v1/embeddings", f"Bearer {KEY}")
    assert body == {"model": "m-1", "input": ["hello"], "encoding_format": "float", "dimensions": 2, "user": "u"}


async def test_vectors_come_in_the_order_of_the_inputs_and_tokens_are_inputs_too(make, provider):
    packed = base64.b64encode(struct.pack("<2f", 0.25, 2)).decode()
    provider.vectors = {"data": [{"index": 1, "embedding": packed}, {"index": 0, "embedding": [1]}]}
    events = await make(embedding((1, 2, 3), (4,)))
    assert events == [Embedded(0, (1.0,)), Embedded(1, (0.25, 2.0)), Finished("stop")]
    assert provider.seen[-1][2]["input"] == [[1, 2, 3], [4]]


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"data": []},
        {"data": [{"embedding": []}]},
        {"data": [{"embedding": [1]}, {"embedding": [1]}]},
        {"data": [{"embedding": [1], "index": 1}]},
        {"data": [{"embedding": [1], "index": 0}, {"embedding": [1], "index": 0}]},
        {"data": [{"embedding": [None]}]},
        {"data": [{"embedding": "@@@@"}]},
        {"data": [{"embedding": "AAA="}]},
        b"<html>",
    ],
    ids=[
        "nothing",
        "list",
        "none",
        "empty",
        "too-many",
        "other-index",
        "same-index",
        "null",
        "no-base64",
        "half-a-number",
        "page",
    ],
)
async def test_what_is_no_vector_for_each_input_is_drift(make, provider, body):
    provider.vectors = provider.plain(200, body)
    failed = await fails(make, embedding("hello"))
    assert (type(failed.outcome), failed.fate) == (AdapterDrift, Fate.ACCEPTED)


async def test_pictures_by_address_or_in_data(make, provider):
    provider.pictures = {
        "data": [
            {"url": "https://pictures.example/1.png", "revised_prompt": "a fat cat"},
            {"b64_json": "/9j/AAAA"},
            {"b64_json": "AAAA"},
            {"url": PICTURE},
        ],
        "output_format": "webp",
        "usage": {"input_tokens": 5, "output_tokens": 100, "total_tokens": 105},
    }
    assert await make(painting(n=4, size="1024x1024")) == [
        ImageMade(url="https://pictures.example/1.png", revised_prompt="a fat cat"),
        ImageMade(base64="/9j/AAAA", media_type="image/jpeg"),
        ImageMade(base64="AAAA", media_type="image/webp"),
        ImageMade(base64=PICTURE.partition(",")[2], media_type="image/png"),
        Measured(5, 100),
        Finished("stop"),
    ]
    path, _, body = provider.seen[-1]
    assert path == "/v1/images/generations"
    assert body == {"model": "m-1", "prompt": "a cat", "n": 4, "size": "1024x1024"}


async def test_pictures_are_edited_by_a_form(make, provider):
    await make(painting(PICTURE, mask=PICTURE, n=2, quality="high"))
    path, headers, form = provider.seen[-1]
    assert path == "/v1/images/edits"
    assert headers["Content-Type"].startswith("multipart/form-data")
    assert form == [
        ("model", "m-1"),
        ("prompt", "a cat"),
        ("image", ("picture0.png", "image/png", PIXEL)),
        ("mask", ("picture1.png", "image/png", PIXEL)),
        ("n", "2"),
        ("quality", "high"),
    ]
    await make(painting(PICTURE, PICTURE))
    assert [name for name, _ in provider.seen[-1][2]] == ["model", "prompt", "image[]", "image[]"]


async def test_pictures_by_address_are_fetched_where_somebody_does(provider):
    async def picture(request):
        return await provider.plain(200, PIXEL)(request)

    provider.key = picture
    here = provider.url.removeprefix("http://")
    fetcher = ImageFetcher(Guard(read_allowed([here])))
    async with new_session() as session:
        adapter = OpenAIAPI(session=session, clock=SystemClock(), images=fetcher)
        ref = AccountRef(id="a", name="a", offer="o", credentials={"base_url": provider.url})
        url = f"{provider.url}/v1/key"
        events = [event async for event in adapter.chat(ref, "m-1", painting(url, mask=url), None)]
        assert isinstance(events[0], ImageMade)
        form = provider.seen[-1][2]
        assert [(name, value[2]) for name, value in form if isinstance(value, tuple)] == [
            ("image", PIXEL),
            ("mask", PIXEL),
        ]
        with pytest.raises(UpstreamFailure) as caught:
            await anext(adapter.chat(ref, "m-1", painting("http://169.254.169.254/x.png"), None))
        assert caught.value.outcome.code == "invalid_image"
    await fetcher.close()


@pytest.mark.parametrize("preset", [None, "vllm", "openai"])
async def test_where_a_server_nearby_would_fetch_from_is_judged(provider, preset):
    """Else it would be a way for callers into the network that it stands in."""
    looking = Message("user", (TextPart("look"), ImagePart("http://[::ffff:10.0.0.1]/x.png")))
    request = ChatRequest(model="m", messages=(looking,))
    fetcher = ImageFetcher(Guard())
    async with new_session() as session:
        public = {"openai": provider.url} if preset == "openai" else {}
        adapter = OpenAIAPI(session=session, clock=SystemClock(), images=fetcher, preset_urls=public)
        address = {} if preset == "openai" else {"base_url": provider.url}
        credentials = {"api_key": KEY, **address, **({"preset": preset} if preset else {})}
        ref = AccountRef(id="a", name="a", offer="o", credentials=credentials)
        if preset == "openai":  # it fetches from its own network
            await anext(adapter.chat(ref, "m-1", request, None))
            assert len(provider.seen) == 1
        else:
            with pytest.raises(UpstreamFailure) as caught:
                await anext(adapter.chat(ref, "m-1", request, None))
            assert caught.value.outcome.code == "invalid_image" and caught.value.fate is Fate.NOT_SENT
            assert not provider.seen
    await fetcher.close()


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (painting("https://pictures.example/1.png"), "image"),
        (painting("data:image/png;base64,%%"), "image"),
        (painting(PICTURE, mask="https://pictures.example/1.png"), "mask"),
        (painting(PICTURE, extra={"a": 1}), "extra"),
        (painting(extra=2**70), "JSON"),
    ],
    ids=["by-address", "no-base64", "mask-by-address", "object-in-a-form", "huge-number"],
)
async def test_what_cannot_be_sent_is_refused_by_name(make, provider, request_, word):
    failed = await fails(make, request_)
    assert isinstance(failed.outcome, Rejected) and word in failed.outcome.public
    assert failed.fate is Fate.NOT_SENT and not provider.seen


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"data": []}, Transient),
        ({"data": [{}]}, AdapterDrift),
        ({"data": ["x"]}, AdapterDrift),
        ({"created": 1}, AdapterDrift),
        (b"<html>", AdapterDrift),
    ],
    ids=["none", "empty", "odd", "no-data", "page"],
)
async def test_an_answer_without_pictures(make, provider, body, kind):
    provider.pictures = provider.plain(200, body)
    failed = await fails(make, painting())
    assert (type(failed.outcome), failed.fate) == (kind, Fate.ACCEPTED)


@pytest.mark.parametrize("making", [embedding("hello"), painting()], ids=["vectors", "pictures"])
@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (400, {"error": {"message": "too long", "code": "bad"}}, Rejected("too long", 400, "bad")),
        (404, {"error": {"message": "no such model"}}, Rejected("no such model", 404, "model_not_found")),
        (403, {"error": {"message": "not from this model"}}, Rejected("not from this model", 403)),
        (401, {"error": {"message": KEY}}, Unauthorized("HTTP 401 (untyped)")),
        (429, {"error": {}}, RateLimited(detail="HTTP 429 (untyped)")),
        (200, {"error": {"code": 429, "message": KEY}}, RateLimited(detail="error within the answer: 429")),
    ],
    ids=["bad", "no-model", "no-access", "bad-key", "too-fast", "too-fast-within"],
)
async def test_refusals_are_typed_and_say_nothing_of_the_models_chats(make, provider, making, status, body, outcome):
    provider.vectors = provider.pictures = provider.plain(status, body)
    failed = await fails(make, making)
    assert (failed.outcome, failed.fate) == (outcome, Fate.NOT_SENT)


@pytest.mark.parametrize("status", [404, 405, 501])
@pytest.mark.parametrize("body", [b"<html>", {"detail": "Not Found"}], ids=["page", "json"])
async def test_a_provider_that_has_no_such_address_is_told_plainly(make, provider, status, body):
    provider.vectors = provider.pictures = provider.plain(status, body)
    assert (await fails(make, embedding("hello"))).outcome == Rejected(
        "The provider of this model offers no embeddings by this API.", code="unsupported_operation"
    )
    assert (await fails(make, painting())).outcome.code == "unsupported_operation"


async def test_a_silent_provider(make, provider):
    async def sleep(request):
        request.transport.abort()

    provider.vectors = sleep
    assert (await fails(make, embedding("hello"))).fate is Fate.UNKNOWN


async def test_an_answer_is_bounded(make, provider, monkeypatch):
    monkeypatch.setattr(exchange.whole, "__defaults__", (1000,))
    provider.pictures = {"data": [{"b64_json": "A" * 2000}]}
    failed = await fails(make, painting())
    assert (type(failed.outcome), failed.fate) == (AdapterDrift, Fate.ACCEPTED)


# Pictures out of chats.


@pytest.fixture
async def draw(provider):
    async with new_session() as session:
        urls = {"poe": f"{provider.url}/v1", "openrouter": f"{provider.url}/v1"}
        adapter = OpenAIAPI(session=session, clock=SystemClock(), preset_urls=urls, idle_timeout=1)

        async def ask(preset, request):
            ref = AccountRef(id=preset, name="a", offer="o", credentials={"api_key": KEY, "preset": preset})
            return [event async for event in adapter.chat(ref, "m-1", request, None)]

        yield ask


def completion(content, **message):
    choice = {"index": 0, "message": {"content": content, **message}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 9}}


async def test_openrouter_draws_in_chats(draw, provider):
    provider.answer = provider.plain(200, completion("Here.", images=[{"image_url": {"url": PICTURE}}]))
    events = await draw("openrouter", painting(PICTURE, n=1, image_config={"aspect_ratio": "1:1"}))
    assert events == [ImageMade(base64=PICTURE.partition(",")[2]), Measured(3, 9), Finished("stop")]
    path, _, body = provider.seen[-1]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "m-1",
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "a cat"}, {"type": "image_url", "image_url": {"url": PICTURE}}],
            }
        ],
        "image_config": {"aspect_ratio": "1:1"},
        "modalities": ["image", "text"],
        "stream": False,
    }


async def test_a_model_that_only_draws_is_asked_to_draw_only(draw, provider):
    async def answer(request):
        if (await request.json())["modalities"] == ["image", "text"]:
            return await provider.plain(404, {"error": {"message": "no such modalities"}})(request)
        return await provider.plain(200, completion("", images=[{"image_url": {"url": PICTURE}}]))(request)

    provider.answer = answer
    assert isinstance((await draw("openrouter", painting()))[0], ImageMade)
    assert len(provider.seen) == 2
    provider.answer = provider.plain(400, {"error": {"message": "no"}})
    with pytest.raises(UpstreamFailure):
        await draw("openrouter", painting())
    assert len(provider.seen) == 3, "other refusals are final"


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("Done: ![a cat](https://p.example/1.png) and ![b](https://p.example/2.png 'b')", ["1", "2"]),
        ("![a](https://p.example/1.png)\n\nhttps://p.example/1.png", ["1"]),
        ("https://p.example/1.png\n", ["1"]),
        ("[see](https://p.example/1.png)\nhttps://p.example/2.png", ["2"]),
    ],
    ids=["markdown", "both", "bare", "not-a-link"],
)
async def test_poes_bots_show_their_pictures_in_the_text(draw, provider, text, urls):
    provider.answer = provider.plain(200, completion(text))
    events = await draw("poe", painting())
    assert [e.url for e in events if isinstance(e, ImageMade)] == [f"https://p.example/{each}.png" for each in urls]
    assert "modalities" not in provider.seen[-1][2]


async def test_words_instead_of_a_picture_are_the_callers_news(draw, provider):
    provider.answer = provider.plain(200, completion("I only   talk. " + "x" * 300))
    with pytest.raises(UpstreamFailure) as caught:
        await draw("poe", painting())
    outcome = caught.value.outcome
    assert isinstance(outcome, Rejected) and outcome.code == "no_picture" and outcome.model is None
    assert "I only talk. xxx" in outcome.public and len(outcome.public) < 300


@pytest.mark.parametrize("parameters", [{"n": 2}, {"size": "1x1"}, {"mask": PICTURE}], ids=["n", "size", "mask"])
async def test_what_no_chat_takes_is_refused_by_name(draw, provider, parameters):
    with pytest.raises(UpstreamFailure) as caught:
        await draw("poe", painting(**parameters))
    assert next(iter(parameters)) in caught.value.outcome.public
    assert not provider.seen


NAMES = st.sampled_from(["data", "index", "embedding", "usage", "error", "url", "b64_json", "prompt_tokens"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "index", "embedding", "usage", "error", "url", "b64_json", "prompt_tokens"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(VALUES, st.integers(0, 3))
def test_any_json_is_vectors_and_pictures_or_drift(value, expected):
    body = json.dumps(value).encode()
    for read in (lambda: read_embeddings(body, expected), lambda: read_pictures(body)):
        with contextlib.suppress(Drift, InBandError):
            read()
