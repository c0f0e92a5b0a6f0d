"""The database goes away under a running gateway and comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from poe_gateway.clock import SystemClock
from poe_gateway.storage import embedded, mongod
from tests.support.gateway import SERVICE_KEY, GatewayServer, single
from tests.support.mongod import temporary_home


class Mongo:
    """A mongod that the test may stop and start again on its port."""

    def __init__(self, home: Path) -> None:
        self._home = home / "mongo"
        self._mongo = asyncio.run(embedded.ensure_mongod(home, SystemClock()))
        self.uri = self._mongo.uri

    def stop(self) -> None:
        asyncio.run(mongod.stop_mongod(self._home, SystemClock()))

    def start(self) -> None:
        asyncio.run(mongod.start_mongod(mongod.find_mongod(), self._home, self._mongo.port))

    def release(self) -> None:
        asyncio.run(self._mongo.release())
        self.stop()


@pytest.fixture
def mongo() -> Iterator[Mongo]:
    with temporary_home() as home:
        mongo = Mongo(home)
        yield mongo
        mongo.release()


def ask(server: GatewayServer, key: str = SERVICE_KEY) -> httpx.Response:
    return single.post(
        f"{server.base_url}/v1/chat/completions",
        headers={"Authorization": f"Bearer {key}"},
        json={"model": "mock-1", "messages": [{"role": "user", "content": "hi"}]},
        timeout=30,
    )


def test_known_keys_go_on_nobody_is_told_a_key_is_wrong_and_it_recovers(tmp_path: Path, mongo: Mongo) -> None:
    # A long grant lifetime: how long known work may go on without the database is a part of it.
    server = GatewayServer(
        tmp_path, mongo.uri, "away", workers=1, GATEWAY_DEMO_POOL="true", GRANT_LIFETIME_SECONDS="120"
    )
    with server.running():
        assert ask(server).status_code == 200
        mongo.stop()
        assert single.get(f"{server.base_url}/healthz").status_code == 200
        ready = single.get(f"{server.base_url}/readyz", timeout=30)
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "database_unavailable")
        assert ask(server).status_code == 200
        unknown = ask(server, "svc_unknown_key_0001")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (503, "database_unavailable")
        assert unknown.headers["retry-after"]
        with server.admin() as admin:
            listed = admin.get("/admin/accounts")
            assert (listed.status_code, listed.json()["error"]["code"]) == (503, "database_unavailable")
            mongo.start()
            deadline = time.monotonic() + 60
            while single.get(f"{server.base_url}/readyz", timeout=30).status_code != 200:
                assert time.monotonic() < deadline, "it recovers by itself"
                time.sleep(0.1)
            assert ask(server).status_code == 200
            assert ask(server, "svc_unknown_key_0001").status_code == 401
            key = admin.post("/admin/keys", json={"name": "new"}).raise_for_status().json()["key"]
        assert ask(server, key).status_code == 200
