"""What goes out when a start fails or a name is odd: one message, without traceback and without a secret."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from poe_gateway.api.application import create_app
from poe_gateway.api.asgi import Front, StartFailed
from poe_gateway.api.errors import render
from poe_gateway.clock import Ids
from poe_gateway.errors import InvalidRequest
from poe_gateway.storage.client import password_of


async def start(error: Exception) -> list[dict[str, Any]]:
    """What the server is told when the start raises ``error``."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        raise error
        yield

    told: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        told.append(message)

    front = Front(create_app(lifespan, []), ids=Ids())
    await front({"type": "lifespan", "state": {}}, receive, send)
    return told


async def test_a_known_failure_of_the_start_is_one_message() -> None:
    assert await start(StartFailed("MongoDB is away.")) == [
        {"type": "lifespan.startup.failed", "message": "MongoDB is away."}
    ]


async def test_an_unforeseen_failure_of_the_start_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        await start(ZeroDivisionError())


def test_halves_of_surrogate_pairs_do_not_break_an_error() -> None:
    _, _, body = render(InvalidRequest("\ud800: no such field, ü.", param="\udfff"))
    assert (
        orjson.loads(body)["error"] | {"message": "?: no such field, ü.", "param": "?"} == orjson.loads(body)["error"]
    )


@pytest.mark.parametrize(
    "uri, password",
    [
        ("mongodb://127.0.0.1:27017/?replicaSet=rs0", None),
        ("mongodb://bob@host/", None),
        ("mongodb://bob:p%40ss@host:1,other:2/db", "p%40ss"),
        ("mongodb+srv://bob:pass@cluster.example.org", "pass"),
    ],
)
def test_the_password_of_a_connection_string_is_found(uri: str, password: str | None) -> None:
    assert password_of(uri) == password
