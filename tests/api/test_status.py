"""``/status``: for anybody, true, cheap, and without a word too many."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from poe_gateway import __version__
from poe_gateway.api.application import create_app
from poe_gateway.api.status import request_counts
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.telemetry.events import Escalated, RequestFinished
from poe_gateway.telemetry.metrics import Metrics
from tests.accounts.support import House

CANARY = "canary-7d1e"


class Probed(House):
    """A house whose database, routing file and metrics are in the test's hand."""

    def __init__(self) -> None:
        super().__init__()
        self.draining = False
        self.started = self.clock.monotonic()
        self.metrics = Metrics(known_model=lambda name: True)
        self.wanting: tuple[str, ...] = ()
        self.away = False
        self.read = 0
        cast(Any, self).routes = self

    def missing(self) -> tuple[str, ...]:
        return self.wanting

    async def ping(self) -> None:
        if self.away:
            raise StoreUnavailable("away")

    def exposition(self) -> tuple[bytes, str]:
        self.read += 1
        return self.metrics.exposition()


def finished(status: int, seconds: float = 0.5, route: str = "/v1/chat/completions", **fields: Any) -> RequestFinished:
    return RequestFinished(request_id="req", route=route, status=status, seconds=seconds, **fields)


@pytest.fixture
def house() -> Probed:
    return Probed()


@pytest.fixture
async def probe(house: Probed) -> AsyncIterator[httpx.AsyncClient]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield

    app = create_app(lifespan, [])
    app.state.gateway = house
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


async def told(probe: httpx.AsyncClient) -> dict[str, Any]:
    answer = await probe.get("/status")
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


async def test_it_tells_everybody_how_it_goes(house: Probed, probe: httpx.AsyncClient) -> None:
    await house.add("one")
    for status in (200, 200, 404, 502):
        house.metrics(finished(status, 0.25 * status / 200))
    house.metrics(finished(503, 9, route="/readyz"))
    house.metrics(Escalated(profile="default", tier="small", reason="refused"))
    house.clock.pass_(seconds=61.5)
    assert await told(probe) == {
        "status": "ok",
        "ready": True,
        "uptime_secs": 61,
        "version": __version__,
        "requests": {"total": 4, "errors": 1, "error_rate": 0.25, "escalations": 1, "avg_latency_ms": 408.1},
    }


async def test_before_the_first_request_all_counts_are_nothing(house: Probed, probe: httpx.AsyncClient) -> None:
    nothing = {"total": 0, "errors": 0, "error_rate": 0.0, "escalations": 0, "avg_latency_ms": 0.0}
    assert (await told(probe))["requests"] == nothing


def close(house: Probed) -> None:
    house.draining = True


def lose_the_database(house: Probed) -> None:
    house.away = True


def want_a_key(house: Probed) -> None:
    house.wanting = ("CLOUD_API_KEY", "spare.key")


@pytest.mark.parametrize(
    ("spoil", "missing"),
    [(close, []), (lose_the_database, []), (want_a_key, ["CLOUD_API_KEY", "spare.key"])],
    ids=["draining", "no-database", "no-key"],
)
async def test_it_is_not_ready_and_names_what_is_missing(
    house: Probed, probe: httpx.AsyncClient, spoil: Callable[[Probed], None], missing: list[str]
) -> None:
    await house.add("one")
    spoil(house)
    body = await told(probe)
    assert (body["status"], body["ready"], body["missing"]) == ("ok", False, missing)


async def test_without_accounts_it_is_not_ready_and_says_where_to_read_what_to_do(probe: httpx.AsyncClient) -> None:
    body = await told(probe)
    assert not body["ready"]
    page, _, place = body["setup_url"].partition("#")
    assert (await probe.get(page)).status_code == 200
    operation = (await probe.get("/openapi.json")).json()["paths"]["/status"]["get"]
    assert place == f"/{operation['tags'][0]}/{operation['operationId']}"
    assert "POST /admin/accounts/upsert" in operation["description"]


async def test_nothing_about_accounts_keys_models_or_hosts_is_told(house: Probed, probe: httpx.AsyncClient) -> None:
    await house.add(CANARY, models=[CANARY])
    await house.keyring.create(CANARY)
    house.metrics(finished(200, model=CANARY, provider=CANARY, key_name=CANARY, account_id=CANARY, error_code=CANARY))
    house.metrics(Escalated(profile=CANARY, tier=CANARY, reason=CANARY))
    body = await told(probe)
    assert body["requests"]["total"] == 1 and body["requests"]["escalations"] == 1
    assert CANARY not in json.dumps(body) and "gateway" not in json.dumps(body)


async def test_however_many_ask_it_is_read_once_a_second(house: Probed, probe: httpx.AsyncClient) -> None:
    await house.add("one")
    await asyncio.gather(*[told(probe) for _ in range(20)])
    assert house.read == 1
    house.metrics(finished(200))
    assert (await told(probe))["requests"]["total"] == 0
    house.clock.pass_(seconds=1)
    assert (await told(probe))["requests"]["total"] == 1 and house.read == 2


def test_labels_cannot_pass_for_other_figures() -> None:
    metrics = Metrics(known_model=lambda name: True)
    forged = 'a",status_class="5xx"} 99\npoe_gateway_escalations_total 7\n'
    metrics(finished(200, model=forged))
    counts = request_counts(metrics.exposition()[0])
    assert (counts.total, counts.errors, counts.escalations) == (1, 0, 0)
