"""What ``/openapi.json`` says of bodies, against what the parsers of the hot routes take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from poe_gateway.chat import embeddings, images, openai_chat
from poe_gateway.chat.anthropic import messages, parse
from poe_gateway.chat.images import OpenAIImageEdits
from poe_gateway.chat.ollama import requests as ollama
from poe_gateway.chat.responses import parsing
from poe_gateway.errors import InvalidRequest
from tests.e2e.dialects.table import DIALECTS as ASKS
from tests.support.described import HOT, asked, document, examples, judge, resolved

PICTURES = {"image", "images", "mask"}
KNOWN = {
    "/v1/chat/completions": openai_chat._OWN - {"functions", "function_call"},
    "/v1/responses": parsing._OWN,
    "/v1/messages": messages._KNOWN | messages._NATIVE,
    "/v1/embeddings": embeddings._OWN,
    "/v1/images/generations": (images._OWN | set(images._WORDS) | set(images._INTEGERS))
    - PICTURES
    - {"input_fidelity"},
    "/v1/images/edits": images._OWN | set(images._WORDS) | set(images._INTEGERS),
    "/api/chat": ollama._CHAT,
    "/api/generate": ollama._GENERATE - {"suffix", "template", "context", "raw"},
    "/api/embed": ollama._EMBED - {"prompt"},
    "/api/embeddings": ollama._EMBED - {"input"},
}
"""Fields that the parsers know by name, without those that they refuse."""
EXAMPLES = [(path, name) for path in HOT for name in examples(path)]
FEATURES = [(dialect, feature) for dialect, known in ASKS.items() for feature in known.asks]


def taken(path: str, body: Any) -> bool:
    """Whether the route's parser takes the body."""
    raw = orjson.dumps(body)
    try:
        parse(raw, counting=True) if path.endswith("count_tokens") else HOT[path].parse(raw)
    except InvalidRequest:
        return False
    return True


@pytest.mark.parametrize(("path", "name"), EXAMPLES, ids=[f"{path} {name}" for path, name in EXAMPLES])
def test_examples_are_described_and_taken(path: str, name: str) -> None:
    body = examples(path)[name]
    judge(asked(path)).validate(body)
    request = HOT[path].parse(orjson.dumps(body))
    assert request.model == body["model"]
    if not path.startswith("/api/"):
        assert request.stream == body.get("stream", False)


@pytest.mark.parametrize(("dialect", "feature"), FEATURES, ids=[f"{one} {other}" for one, other in FEATURES])
def test_what_is_taken_is_described(dialect: str, feature: str) -> None:
    ask = ASKS[dialect].asks[feature]("some-model", "https://example.com/a.png")
    kind = "application/json" if ask.files is None else "multipart/form-data"
    body = {**ask.body, **{name: ["bytes"] for name in ask.files or ()}}
    path = ask.path
    schema = asked(path, kind) if path in HOT else resolved(_json(document()["paths"][path]["post"]["requestBody"]))
    described = judge(schema).is_valid(body)
    assert described == (ask.files is not None or taken(path, body))
    assert described == (feature != "n above 1")


def _json(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["content"]["application/json"]["schema"]
    return found


@pytest.mark.parametrize("path", HOT)
def test_every_field_that_a_parser_knows_is_described(path: str) -> None:
    assert asked(path)["properties"].keys() >= KNOWN[path]


@pytest.mark.parametrize("path", HOT)
def test_fields_that_are_not_described_are_refused_where_it_says_so(path: str) -> None:
    body = {**next(iter(examples(path).values())), "strange_field": 1}
    assert judge(asked(path)).is_valid(body) == taken(path, body) == (path != "/v1/messages")


@pytest.mark.parametrize("path", HOT)
def test_needed_fields_are_needed_and_all_others_may_be_null(path: str) -> None:
    schema, body = asked(path), next(iter(examples(path).values()))
    for name, field in schema["properties"].items():
        without = {key: value for key, value in body.items() if key != name}
        if name in schema["required"]:
            assert not taken(path, without) and not taken(path, {**body, name: None})
        elif name not in body:
            assert taken(path, {**without, name: None}), name
            assert {"type": "null"} in field["anyOf"], name
            if field.get("default") is not None:
                assert taken(path, {**without, name: field["default"]}), name


def edges(field: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """The last values within the bounds of a field, with the first ones outside."""
    for form in (field, *field.get("anyOf", ())):
        step = 1 if form.get("type") == "integer" else 0.5
        if "minimum" in form:
            yield form["minimum"], form["minimum"] - step
        if "maximum" in form:
            yield form["maximum"], form["maximum"] + step
        if "maxLength" in form:
            yield "x" * form["maxLength"], "x" * (form["maxLength"] + 1)
        if "minLength" in form:
            yield "x" * form["minLength"], "x" * (form["minLength"] - 1)
        if "const" in form:
            yield form["const"], "another" if isinstance(form["const"], str) else form["const"] + 1
        for word in form.get("enum", ()):
            yield word, "another"


BOUNDS = [
    (path, name, *edge)
    for path in HOT
    for name, field in asked(path)["properties"].items()
    for edge in edges(field)
    if (path, name) not in {("/v1/responses", "tool_choice"), ("/v1/chat/completions", "tool_choice")}
]
"""Without what depends on other fields."""


@pytest.mark.parametrize(
    ("path", "name", "inside", "outside"),
    BOUNDS,
    ids=[f"{path} {name} {str(inside)[:9]}-{len(str(inside))}" for path, name, inside, _ in BOUNDS],
)
def test_bounds_are_those_of_the_parsers(path: str, name: str, inside: Any, outside: Any) -> None:
    body = next(iter(examples(path).values()))
    needs = {"logprobs": True} if (path[:5], name) == ("/api/", "top_logprobs") else {}
    assert judge(asked(path)).is_valid({**body, **needs, name: inside}) and taken(path, {**body, **needs, name: inside})
    assert not judge(asked(path)).is_valid({**body, **needs, name: outside})
    assert not taken(path, {**body, **needs, name: outside})


def test_a_form_is_taken_as_it_is_described() -> None:
    form = asked("/v1/images/edits", "multipart/form-data")
    picture = ("a.png", b"\x89PNG\r\n\x1a\n more", "image/png")
    assert set(form["required"]) == {"model", "prompt", "image"}
    fields = {"model": "m", "prompt": "Make it blue.", "n": "2", "size": "1024x1024", "output_compression": "50"}
    assert fields.keys() <= form["properties"].keys()
    request = httpx.Request(
        "POST", "http://gateway", data=fields, files=[("image[]", picture), ("image[]", picture), ("mask", picture)]
    )
    read = OpenAIImageEdits().parse_form(request.read(), request.headers["content-type"])
    assert len(read.messages[0].images) == 2
    assert read.parameters["n"] == 2 and read.parameters["mask"].startswith("data:image/png")
    # All that is in one form of the body is in the other, but for the list of addresses.
    assert asked("/v1/images/edits")["properties"].keys() == form["properties"].keys() | {"images"}


def test_a_count_may_lack_what_a_message_needs() -> None:
    counted = resolved(_json(document()["paths"]["/v1/messages/count_tokens"]["post"]["requestBody"]))
    for body in examples("/v1/messages").values():
        less = {name: value for name, value in body.items() if name != "max_tokens"}
        assert judge(counted).is_valid(less)
        assert taken("/v1/messages/count_tokens", less)
        assert not judge(asked("/v1/messages")).is_valid(less)
        assert not taken("/v1/messages", less)
