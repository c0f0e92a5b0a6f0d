"""``/v1/embeddings``: what is understood, what is refused and how, and the bytes that OpenAI's SDK reads."""

from __future__ import annotations

import struct
from base64 import b64decode
from typing import Any

import httpx2
import openai
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from poe_gateway.chat.embeddings import OpenAIEmbeddings, packed
from poe_gateway.chat.request import ChatRequest
from poe_gateway.chat.usage import Usage
from poe_gateway.errors import InvalidRequest
from tests.unit.replies import head_of, reply_to

DIALECT = OpenAIEmbeddings()
VECTORS = ((0.25, -1.0), (3.0, 0.5))


def parse(**fields: Any) -> ChatRequest:
    return DIALECT.parse(orjson.dumps({"model": "embed-1", "input": "a", **fields}))


@pytest.mark.parametrize(
    ("given", "inputs", "texts"),
    [
        ("one", ("one",), ["one"]),
        (["one", "two"], ("one", "two"), ["one", "two"]),
        ([1, 2, 3], ((1, 2, 3),), [""]),
        ([[1, 2], [3]], ((1, 2), (3,)), ["", ""]),
    ],
    ids=["text", "texts", "tokens", "lists of tokens"],
)
def test_inputs(given: Any, inputs: tuple[Any, ...], texts: list[str]) -> None:
    request = parse(input=given)
    assert request.operation == "embed" and request.inputs == inputs
    assert [message.text for message in request.messages] == texts
    assert not request.stream and request.session_id is None


def test_what_is_asked_of_the_vectors_is_passed_on() -> None:
    request = parse(dimensions=256, user="u", encoding_format="base64", input_type="query", stream=False)
    assert request.parameters == {"dimensions": 256, "user": "u", "input_type": "query"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": {}}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": [-1]}, "input"),
        ({"input": [2**31]}, "input"),
        ({"input": [1.5]}, "input"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": [[1], "a"]}, "input[1]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": [[1]] * 2049}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": True}, "dimensions"),
        ({"dimensions": "8"}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"encoding_format": []}, "encoding_format"),
        ({"user": 1}, "user"),
        ({"user": "u" * 513}, "user"),
        ({"stream": True}, "stream"),
        ({"stream": "no"}, "stream"),
    ],
    ids=range(26),
)
def test_refusals_name_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.param == param and caught.value.status == 400


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
    )
)
def test_any_input_is_understood_or_refused(value: Any) -> None:
    try:
        assert parse(input=value).inputs
    except InvalidRequest as error:
        assert error.param is not None


@given(st.binary(max_size=60))
def test_any_bytes_are_understood_or_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        DIALECT.parse(raw)


def test_numbers_are_written_in_the_order_of_the_inputs() -> None:
    body = orjson.loads(DIALECT.whole(reply_to(parse(input=["a", "b"]), vectors=VECTORS)))
    answer = CreateEmbeddingResponse.model_validate(body, strict=True)
    assert [(each.index, each.embedding) for each in answer.data] == [(0, [0.25, -1.0]), (1, [3.0, 0.5])]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (7, 7) and answer.model == "GPT-4o"


def test_base64_is_what_openai_packs() -> None:
    body = orjson.loads(DIALECT.whole(reply_to(parse(encoding_format="base64"), vectors=VECTORS[:1])))
    assert body["data"][0]["embedding"] == "AACAPgAAgL8="
    assert struct.unpack("<2f", b64decode("AACAPgAAgL8=")) == (0.25, -1.0)


@given(st.lists(st.floats(allow_nan=False), max_size=8))
def test_any_vector_is_packed(vector: list[float]) -> None:
    assert len(b64decode(packed(tuple(vector)))) == 4 * len(vector)


def test_an_estimate_is_told_as_one() -> None:
    usage = Usage(prompt_tokens=2, completion_tokens=0, counted="estimate")
    body = orjson.loads(DIALECT.whole(reply_to(parse(), vectors=VECTORS[:1], usage=usage)))
    assert body["usage"] == {"prompt_tokens": 2, "total_tokens": 2, "estimated": True, "counted_by": "estimate"}


@pytest.mark.parametrize("asked", [{}, {"encoding_format": "float"}], ids=["as the SDK asks", "numbers"])
def test_the_sdk_reads_its_vectors(asked: dict[str, Any]) -> None:
    def answer(http: httpx2.Request) -> httpx2.Response:
        request = DIALECT.parse(http.content)
        assert request.inputs == ("a", "b") and request.parameters == {"dimensions": 2}
        return httpx2.Response(200, content=DIALECT.whole(reply_to(request, vectors=VECTORS)))

    client = openai.OpenAI(api_key="k", http_client=httpx2.Client(transport=httpx2.MockTransport(answer)))
    found = client.embeddings.create(model="embed-1", input=["a", "b"], dimensions=2, **asked)
    assert [each.embedding for each in found.data] == [[0.25, -1.0], [3.0, 0.5]]


def test_vectors_are_never_streamed() -> None:
    with pytest.raises(InvalidRequest):
        DIALECT.writer(head_of(parse()))
