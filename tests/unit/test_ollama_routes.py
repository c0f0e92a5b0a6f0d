"""``/api/tags`` and its neighbours, served, with a real key ring and catalogue."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from poe_gateway.api.v1 import ollama as routes
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.keys import KeyTerms, Principal, may_use
from poe_gateway.auth.memory import MemoryKeys, MemoryOrgs
from poe_gateway.clock import Ids
from poe_gateway.routing.catalog import Catalog, Listing, Model
from tests.accounts.support import HandClock

GPT = Model(id="GPT-4o", upstream="gpt4_o", owned_by="poe", created=1_700_000_000, details={"images": True})
LLAMA = Model(
    id="llama3:latest",
    upstream="llama3",
    owned_by="meta",
    details={"context_length": 8192, "input_modalities": ["text"], "supported_parameters": ["reasoning"]},
)
VECTORS = Model(id="embed-1", upstream="embed-1", owned_by="x", details={"output_modalities": ["embeddings"]})
PAINTER = Model(id="painter", upstream="p", owned_by="x", created=10**18, details={"output_modalities": ["image"]})


def catalogued(rooms: Any, principal: Principal) -> list[Model]:
    return [model for model in rooms.catalog.models(rooms.broker.offers()) if may_use(principal, model.id)]


class Gate:
    """The routes, and keys for all models and for some."""

    def __init__(self, models: routes.Models) -> None:
        self.app = FastAPI()
        self.app.include_router(routes.router(models))
        self.keys = KeyRing(
            store=MemoryKeys(), orgs=MemoryOrgs(), pepper=b"p", admin_key="the-admin-key", clock=HandClock(), ids=Ids(1)
        )
        catalog = Catalog()
        models_ = (GPT, LLAMA, VECTORS, PAINTER)
        catalog.replace([Listing(offer="mock", models=models_, fetched_at=datetime(2026, 1, 1, tzinfo=UTC))])
        broker = SimpleNamespace(offers=lambda: {"mock": 1})
        self.app.state.gateway = SimpleNamespace(keyring=self.keys, catalog=catalog, broker=broker)

    async def ask(self, method: str, path: str, key: str | None, **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            return await client.request(method, path, headers=headers, **more)


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    gate = Gate(catalogued)
    await gate.keys.start(())
    yield gate


@pytest.fixture
async def key(gate: Gate) -> str:
    return (await gate.keys.create("all"))[1]


async def test_tags_list_what_the_key_may_use(gate: Gate, key: str) -> None:
    narrow = (await gate.keys.create("narrow", KeyTerms(models=("gpt-*",))))[1]
    for presented, names in ((key, ["embed-1", "GPT-4o", "llama3:latest", "painter"]), (narrow, ["GPT-4o"])):
        answer = await gate.ask("GET", "/api/tags", presented)
        assert [model["name"] for model in answer.json()["models"]] == names


async def test_an_entry_has_the_fields_that_clients_read(gate: Gate, key: str) -> None:
    models = (await gate.ask("GET", "/api/tags", key)).json()["models"]
    entry = next(model for model in models if model["name"] == "GPT-4o")
    assert entry["model"] == "GPT-4o" and entry["modified_at"] == "2023-11-14T22:13:20Z" and entry["size"] == 0
    assert len(entry["digest"]) == 64 and entry["details"]["family"] == "poe"
    assert len({model["digest"] for model in models}) == len(models)


@pytest.mark.parametrize(
    ("asked", "found", "capabilities"),
    [
        ({"model": "gpt-4o"}, "GPT-4o", ["completion", "tools", "vision"]),
        ({"name": "GPT-4o:latest"}, "GPT-4o", ["completion", "tools", "vision"]),
        ({"model": "llama3:latest"}, "llama3:latest", ["completion", "tools", "thinking"]),
        ({"model": "embed-1", "verbose": True}, "embed-1", ["embedding"]),
        ({"model": "painter"}, "painter", ["image"]),
    ],
    ids=range(5),
)
async def test_show(gate: Gate, key: str, asked: dict[str, Any], found: str, capabilities: list[str]) -> None:
    answer = (await gate.ask("POST", "/api/show", key, json=asked)).json()
    assert answer["model_info"]["general.basename"] == found and answer["capabilities"] == capabilities
    assert answer["model_info"].get("meta.context_length") == (8192 if found.startswith("llama") else None)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model":"nobody"}', 404),
        (b'{"model":7}', 400),
        (b"{}", 400),
        (b"[]", 400),
        (b"{", 400),
        (b'{"model":"' + b"x" * 70_000 + b'"}', 413),
    ],
    ids=range(6),
)
async def test_refusals_have_ollamas_shape(gate: Gate, key: str, body: bytes, status: int) -> None:
    answer = await gate.ask("POST", "/api/show", key, content=body)
    assert answer.status_code == status and isinstance(answer.json()["error"], str)


async def test_a_model_that_the_key_may_not_use_does_not_exist(gate: Gate) -> None:
    narrow = (await gate.keys.create("narrow", KeyTerms(models=("gpt-*",))))[1]
    assert (await gate.ask("POST", "/api/show", narrow, json={"model": "painter"})).status_code == 404


@pytest.mark.parametrize("path", ["/api/tags", "/api/ps", "/api/show"])
async def test_a_key_is_needed(gate: Gate, path: str) -> None:
    method = "POST" if path == "/api/show" else "GET"
    for key in (None, "wrong-key"):
        answer = await gate.ask(method, path, key, content=b"{" if method == "POST" else None)
        assert answer.status_code == 401 and isinstance(answer.json()["error"], str)
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_nothing_is_loaded_and_the_version_is_public(gate: Gate, key: str) -> None:
    assert (await gate.ask("GET", "/api/ps", key)).json() == {"models": []}
    assert (await gate.ask("GET", "/api/version", None)).json() == {"version": routes.API_LEVEL}


async def test_other_names_may_be_listed() -> None:
    gate = Gate(lambda rooms, principal: [*catalogued(rooms, principal), Model(id="fast", upstream="", owned_by="g")])
    await gate.keys.start(())
    key = (await gate.keys.create("all"))[1]
    assert (await gate.ask("GET", "/api/tags", key)).json()["models"][-1]["name"] == "fast"
    assert (await gate.ask("POST", "/api/show", key, json={"model": "fast"})).status_code == 200


async def test_ollamas_own_client_reads_the_lists(gate: Gate, key: str) -> None:
    ollama = pytest.importorskip("ollama")
    headers = {"authorization": f"Bearer {key}"}
    client = ollama.AsyncClient("http://gateway.test", headers=headers, transport=httpx.ASGITransport(gate.app))
    listed = (await client.list()).models
    assert [model.model for model in listed] == ["embed-1", "GPT-4o", "llama3:latest", "painter"]
    assert listed[1].modified_at.year == 2023 and listed[1].details.family == "poe"
    assert (await client.show("GPT-4o")).capabilities == ["completion", "tools", "vision"]
    assert (await client.ps()).models == []
    with pytest.raises(ollama.ResponseError, match="does not exist") as caught:
        await client.show("nobody")
    assert caught.value.status_code == 404
