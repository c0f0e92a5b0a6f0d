"""Starts that must fail say why once and end; workers that start together do their work once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from poe_gateway.vault import new_key
from tests.e2e.conftest import Start
from tests.support.gateway import ADMIN_KEY, SERVICE_KEY, GatewayServer, eventually, single


def every_worker(server: GatewayServer, path: str, key: str) -> list[httpx.Response]:
    """Answers over so many new connections that each of two workers surely had one."""
    headers = {"Authorization": f"Bearer {key}"}
    return [single.get(server.base_url + path, headers=headers) for _ in range(12)]


def refused(gateway: Start, **options: Any) -> str:
    """What a gateway wrote that did not come to answer."""
    with pytest.raises(RuntimeError, match="the gateway ended with") as ended:
        gateway(**options)
    text = str(ended.value)
    assert "Traceback" not in text
    return text


def test_bad_settings_end_the_gateway_with_their_message(gateway: Start) -> None:
    said = refused(gateway, workers=2, ADMIN_API_KEY="adm-short-canary")
    assert "ADMIN_API_KEY is too short" in said
    assert "adm-short-canary" not in said


def test_a_wrong_fernet_key_ends_the_gateway_with_its_message(gateway: Start) -> None:
    gateway(GATEWAY_DEMO_POOL="true").stop()
    wrong = new_key()
    said = refused(gateway, workers=2, FERNET_KEY=wrong)
    assert "FERNET_KEY does not hold the key" in said
    assert wrong not in said


def test_a_bad_connection_string_is_told_without_its_password(gateway: Start) -> None:
    said = refused(gateway, MONGODB_URI="mongodb://bob:canary-pa:ss@127.0.0.1:1/")
    assert "MONGODB_URI" in said
    assert "canary-pa" not in said


@pytest.mark.parametrize("in_the_way", ["data", "data/spool"])
def test_a_data_folder_that_cannot_be_written_is_told(gateway: Start, tmp_path: Path, in_the_way: str) -> None:
    (tmp_path / in_the_way).parent.mkdir(exist_ok=True)
    (tmp_path / in_the_way).touch()
    said = refused(gateway, workers=2, GATEWAY_DATA_DIR=str(tmp_path / "data"))
    assert "The gateway cannot start" in said
    assert "GATEWAY_DATA_DIR" in said


def test_workers_that_start_together_make_one_demo_pool_and_one_key(
    gateway: Start, mongo_uri: str, db_name: str
) -> None:
    server = gateway(workers=2, GATEWAY_DEMO_POOL="true")
    assert {answer.json()["ready_accounts"] for answer in every_worker(server, "/readyz", SERVICE_KEY)} == {3}
    for answer in every_worker(server, "/v1/models", SERVICE_KEY):
        assert "gpt-4o-mini" in {model["id"] for model in answer.json()["data"]}
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        accounts = list(client[db_name]["accounts"].find({"deleted": {"$ne": True}}))
        assert [(each["name"], each["demo"], each["credential_rev"]) for each in accounts] == [
            (f"demo-{number}", True, 1) for number in (1, 2, 3)
        ]
        assert client[db_name]["credentials"].count_documents({}) == 3
        assert client[db_name]["service_keys"].count_documents({}) == 1


def test_the_first_real_account_ends_the_demonstration_everywhere(gateway: Start) -> None:
    server = gateway(workers=2, GATEWAY_DEMO_POOL="true")
    with server.admin() as admin:
        # Even under the name of a demo account, the operator's account is his own.
        body = {"provider": "mock", "name": "demo-1", "credentials": {}}
        assert admin.post("/admin/accounts/upsert", json=body).raise_for_status().json()["demo"] is False

    def settled() -> bool:
        totals = {answer.json()["total"] for answer in every_worker(server, "/admin/accounts/summary", ADMIN_KEY)}
        return totals == {1}

    eventually(settled)
    assert [(each["name"], each["demo"]) for each in server.accounts()] == [("demo-1", False)]
    server.stop()
    again = gateway(workers=2, GATEWAY_DEMO_POOL="true")
    assert [each["name"] for each in again.accounts()] == ["demo-1"]


def test_without_the_demo_pool_nothing_is_ready(gateway: Start) -> None:
    gateway(GATEWAY_DEMO_POOL="true").stop()
    server = gateway()
    answer = single.get(f"{server.base_url}/readyz")
    assert answer.status_code == 503
    assert answer.json()["error"]["type"] == "overloaded_error"
    assert answer.json()["error"]["message"] == "No ready accounts in pool"
    assert single.get(f"{server.base_url}/healthz").json() == {"status": "ok"}
    assert server.accounts() == []


def test_a_revoked_key_stops_working_in_every_worker(gateway: Start) -> None:
    server = gateway(workers=2, GATEWAY_DEMO_POOL="true")
    with server.admin() as admin:
        key = admin.post("/admin/keys", json={"name": "app"}).raise_for_status().json()
        # Known to both workers at once: an unknown key is looked up.
        assert {answer.status_code for answer in every_worker(server, "/v1/models", key["key"])} == {200}
        admin.post(f"/admin/keys/{key['id']}/revoke").raise_for_status()
    eventually(lambda: {each.status_code for each in every_worker(server, "/v1/models", key["key"])} == {401})


def test_workers_end_with_a_supervisor_that_was_killed(gateway: Start) -> None:
    server = gateway(workers=2, GATEWAY_DEMO_POOL="true")
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()

    def free() -> bool:
        try:
            single.get(f"{server.base_url}/healthz")
        except httpx.TransportError:
            return True
        return False

    eventually(free)
