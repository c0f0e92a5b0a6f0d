"""What ``/openapi.json`` says of headers, failures and paths, against the code that reads and sends them."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import orjson
import pytest
from fastapi import FastAPI

from poe_gateway import errors
from poe_gateway.api.admin import router
from poe_gateway.api.application import create_app
from poe_gateway.api.errors import render
from poe_gateway.api.health import index
from poe_gateway.api.limits import limit_headers
from poe_gateway.api.v1.chat_docs.headers import ASKED, TOLD
from poe_gateway.api.v1.hot import HotParts, hot_routes
from poe_gateway.api.v1.pictures import Pictures
from poe_gateway.clock import Ids, SystemClock
from poe_gateway.limits.bucket import Ask, Standing
from poe_gateway.limits.keys import key_of
from poe_gateway.telemetry.hub import Telemetry
from tests.support.described import HOT, answered, document, judge, operation, references, resolved
from tests.support.gateway import ROOT

API = ROOT / "poe_gateway" / "api"
SENDING = [API / "v1" / "endpoint.py", *[API / f"{name}.py" for name in ("asgi", "errors", "idempotent", "waiting")]]
"""Where headers of hot routes are read and written as bytes; those of limits are asked for."""
HTTP = {
    "authorization",
    "x-api-key",
    "content-type",
    "content-length",
    "content-encoding",
    "cache-control",
    "no-cache",
    "x-accel-buffering",
}
"""Described otherwise: as security, as content, or not at all."""
READ_ONLY = {"x-lmg-expert"}
"""Other names of what is described."""
STANDINGS = [
    (
        Ask(bucket=key_of(f"rate|key|k|{counted}|minute"), amount=1, cap=9),
        Standing(cap=9, spent=1, reserved=0, remaining=8, resets_in=3.0),
    )
    for counted in ("requests", "tokens")
]
FAILURES = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.GatewayError)]


def written() -> set[str]:
    """Names of headers that stand as bytes in the code of the hot routes."""
    names = set()
    for file in SENDING:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
                names.add(node.value.decode("latin-1"))
    return {name for name in names if re.fullmatch(r"[a-z]+(-[a-z]+)+", name)}


def given_to_errors() -> Iterator[str]:
    """Names of headers that failures are made with."""
    for file in (ROOT / "poe_gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())) if "cli" not in file.parts else ():
            if isinstance(node, ast.keyword) and node.arg == "headers" and isinstance(node.value, ast.Dict):
                yield from [str(key.value).lower() for key in node.value.keys if isinstance(key, ast.Constant)]


def test_headers_are_those_of_the_code() -> None:
    described = {name.lower() for name in ASKED} | TOLD.keys()
    rates = {name.decode() for name, _ in limit_headers(STANDINGS)}
    assert len(rates) == 6
    expected = written() - HTTP - READ_ONLY | rates | {"allow"}
    assert expected == described
    assert set(given_to_errors()) - {"content-disposition"} == {"allow", "x-should-retry"}
    assert "X-LMG-Expert" in ASKED["X-Gateway-Expert"][0]


@pytest.mark.parametrize("path", HOT)
def test_every_header_is_described_where_it_can_come(path: str) -> None:
    told = operation(path)
    assert [each["name"] for each in told["parameters"]] == list(ASKED)
    everywhere = {name for each in told["responses"].values() for name in each["headers"]}
    anthropic = HOT[path].shape == "anthropic"
    assert everywhere == TOLD.keys() - (set() if anthropic else {"request-id"})
    for each in told["responses"].values():
        assert all(resolved(header)["description"] for header in each["headers"].values())


@pytest.mark.parametrize("path", HOT)
@pytest.mark.parametrize("kind", FAILURES, ids=[each.__name__ for each in FAILURES])
def test_failures_look_as_described(path: str, kind: type[errors.GatewayError]) -> None:
    waits = "retry-after" in operation(path)["responses"][str(kind.status)]["headers"]
    headers = {"Allow": "POST"} if kind is errors.MethodNotAllowed else {}
    for error in (
        kind(headers=headers),
        kind("No.", code="some_code", param="model", headers=headers, retry_after=5 if waits else None),
    ):
        if kind.status == 429:
            error.standings = STANDINGS
        status, sent, body = render(error, {"session_id": "s"}, HOT[path].shape, "req_1")
        judge(answered(path, str(status)), strict=True).validate(orjson.loads(body))
        names = {name.decode() for name, _ in sent} - HTTP
        assert names <= operation(path)["responses"][str(status)]["headers"].keys()


@pytest.mark.parametrize(
    ("kind", "wait", "told"),
    [
        (errors.Overloaded, None, False),
        (errors.Overloaded, 60.0, False),
        (errors.Overloaded, 61.0, True),
        (errors.RateLimitExceeded, None, True),
        (errors.RateLimitExceeded, 60.0, False),
        (errors.RateLimitExceeded, 61.0, True),
        (errors.PointsExhausted, 61.0, False),
    ],
    ids=[f"{kind}-{wait}" for kind in ("pool", "limit") for wait in ("open", "short", "long")] + ["points"],
)
def test_clients_that_repeat_by_themselves_do_not_sit_and_wait(
    kind: type[errors.GatewayError], wait: float | None, told: bool
) -> None:
    _, headers, _ = render(kind(retry_after=wait))
    assert ((b"x-should-retry", b"false") in headers) is told


def test_hot_paths_are_the_described_ones() -> None:
    nothing = cast(Any, None)
    routes = hot_routes(
        HotParts(
            router=nothing,
            keyring=nothing,
            telemetry=Telemetry(),
            clock=SystemClock(),
            ids=Ids(1),
            book=nothing,
            shelf=nothing,
            pictures=Pictures(nothing),
            traffic=None,
            max_body=1,
            notice_after=0,
            streams="replay",
            patience=1,
        )
    )
    aliases = {path: re.findall(r"Also served at `(.+)`", operation(path)["description"]) for path in HOT}
    assert routes.keys() == {*HOT, *[alias for told in aliases.values() for alias in told]}
    for path, told in aliases.items():
        assert all(routes[alias] is routes[path] for alias in told)


async def test_the_index_names_all_hot_paths() -> None:
    named: set[str] = set()
    for each in (await index())["endpoints"].values():
        named |= set(each if isinstance(each, list) else [each])
    assert named >= HOT.keys()
    assert named - {"/docs"} <= document()["paths"].keys()


def test_names_of_operations_are_unique_and_references_lead_somewhere() -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # FastAPI warns of the first
        paths = create_app(lifespan, [router()]).openapi()["paths"]
    ids = [each["operationId"] for methods in paths.values() for each in methods.values()]
    assert len(ids) == len(set(ids))
    assert all(resolved({"$ref": each}) for each in references())


def test_all_paths_that_want_a_key_say_so() -> None:
    public = {"/", "/healthz", "/health", "/readyz", "/status", "/metrics", "/api/version"}
    for path, methods in document()["paths"].items():
        for told in methods.values():
            assert bool(told.get("security")) == (path not in public), path
            if path in HOT:
                assert told["security"] == document()["paths"]["/v1/key"]["get"]["security"]


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/models", "OpenAIError"),
        ("/v1/models/{model_id}", "OpenAIError"),
        ("/v1/messages/count_tokens", "AnthropicError"),
        ("/api/tags", "OllamaError"),
        ("/api/show", "OllamaError"),
    ],
)
def test_other_routes_fail_in_the_shape_of_their_dialect(path: str, shape: str) -> None:
    [told] = document()["paths"][path].values()
    for status in ("401", "403", "429", "503"):
        assert told["responses"][status]["content"]["application/json"]["schema"]["$ref"].endswith(f"/{shape}")
    assert "422" not in told["responses"]
