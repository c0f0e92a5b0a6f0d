"""A pool of Poe accounts on the emulator: whole answers, exact limits, ill accounts left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.support.gateway import EmulatorServer, GatewayServer, eventually, single

StartEmulator = Callable[..., EmulatorServer]
ASK = "Please repeat: {}"


def upsert_all(server: GatewayServer, emulator: EmulatorServer) -> dict[str, str]:
    """Hand all emulated accounts to the gateway; e-mail -> account id."""
    ids = {}
    with server.admin() as admin:
        for account in emulator.accounts:
            answer = admin.post("/admin/accounts/upsert", json=emulator.upsert_body(account))
            assert answer.status_code == 200, answer.text
            ids[account["email"]] = answer.json()["id"]
    return ids


async def ask(client: Any, number: int, stream: bool) -> str:
    """One call; the text of the answer."""
    messages = [{"role": "user", "content": ASK.format(number)}]
    if not stream:
        answer = await client.chat.completions.create(model="gpt-4o-mini", messages=messages)
        return str(answer.choices[0].message.content)
    pieces = []
    async for chunk in await client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True):
        if chunk.choices:
            pieces.append(chunk.choices[0].delta.content or "")
    return "".join(pieces)


async def ask_many(server: GatewayServer, count: int, first: int = 0) -> list[str]:
    client = server.async_client(timeout=120)
    try:
        return await asyncio.gather(*(ask(client, n, n % 2 == 0) for n in range(first, first + count)))
    finally:
        await client.close()


@pytest.fixture
def poe(gateway: Start, emulator: StartEmulator) -> Callable[..., tuple[GatewayServer, EmulatorServer]]:
    def start(accounts: int, *options: str, workers: int = 1, **settings: str) -> tuple[GatewayServer, EmulatorServer]:
        site = emulator("--accounts", str(accounts), *options)
        defaults = {"POE_BASE_URL": site.base_url, "POE_WS_BASE_URL": site.ws_base_url}
        return gateway(workers=workers, **{**defaults, **settings}), site

    return start


def test_fifty_accounts_two_workers_two_hundred_calls(poe: Any) -> None:
    """Every answer whole and uncrossed; the site never sees more than the limits; ill accounts are left alone."""
    server, site = poe(
        50, workers=2, GLOBAL_INFLIGHT_LIMIT="60", ACQUIRE_TIMEOUT_SECONDS="60", PREWARM_ON_STARTUP="false"
    )
    ids = upsert_all(server, site)
    emails = [account["email"] for account in site.accounts]
    challenged, depleted, dead = emails[0], emails[1], emails[2]
    site.control("POST", f"/accounts/{challenged}/fault", kind="challenge", times=None)
    site.control("PATCH", f"/accounts/{depleted}", balance=0)
    site.control("PATCH", f"/accounts/{dead}", alive=False)
    answers = asyncio.run(ask_many(server, 200))
    assert answers == [f"echo: {ASK.format(n)}" for n in range(200)]
    stats = site.control("GET", "/stats")
    shown = {email: site.control("GET", f"/accounts/{email}")["stats"] for email in emails}
    assert stats["max_concurrent"] <= 60
    assert max(each["max_concurrent"] for each in shown.values()) <= 2
    # Within a process not one more goes out. The other one may have begun a request before it could hear of the
    # challenge; it meets the same, and stops as well.
    late = {email: each["after_challenge"] for email, each in shown.items() if each["after_challenge"]}
    assert late.keys() <= {challenged} and len(late.get(challenged, ())) <= 1, late
    assert all(each["telemetry"] == 0 for each in shown.values())
    assert sum(each["sends_accepted"] for each in shown.values()) >= 200
    assert all(each["duplicate_nonces"] == 0 for each in shown.values())
    by_id = {account["id"]: account for account in server.accounts()}
    assert by_id[ids[challenged]]["status"] == "invalid"
    assert by_id[ids[challenged]]["health"]["cause"] == "challenged"
    assert by_id[ids[depleted]]["status"] == "depleted"
    assert by_id[ids[dead]]["status"] == "invalid"
    before = {email: each["requests"] for email, each in shown.items()}
    assert asyncio.run(ask_many(server, 60, first=200)) == [f"echo: {ASK.format(n)}" for n in range(200, 260)]
    for email in (challenged, dead):
        assert site.control("GET", f"/accounts/{email}")["stats"]["requests"] == before[email], email
    # Chats that the gateway made for single calls are deleted again.
    eventually(lambda: not any(site.control("GET", f"/accounts/{email}")["chats_alive"] for email in emails))


def test_a_session_stays_with_its_account_and_chat(poe: Any) -> None:
    server, site = poe(3, workers=2)
    upsert_all(server, site)
    client = server.client()
    history: list[dict[str, str]] = []
    accounts, ways = [], []
    for turn in ("first", "second", "[[recall]]"):
        history.append({"role": "user", "content": turn})
        raw = client.chat.completions.with_raw_response.create(
            model="gpt-4o-mini",
            messages=history,  # type: ignore[arg-type]
            metadata={"session_id": "talk"},
        )
        accounts.append(raw.headers["x-gateway-account"])
        ways.append(raw.headers["x-gateway-session"])
        answer = raw.parse().choices[0].message.content
        assert answer
        history.append({"role": "assistant", "content": answer})
    assert len(set(accounts)) == 1, (ways, server.output()[-3000:])
    assert ways == ["new", "continued", "continued"]
    # Only the new turns were sent: the chat holds each once.
    assert history[-1]["content"].count("first") == 1
    assert "second" in history[-1]["content"]
    # The account falls ill: the next turn moves on, with the history replayed.
    email = next(account["email"] for account in server.accounts() if account["id"] == accounts[0])
    site.control("PATCH", f"/accounts/{email}", alive=False)
    history.append({"role": "user", "content": "and now"})
    moved = client.chat.completions.with_raw_response.create(
        model="gpt-4o-mini",
        messages=history,  # type: ignore[arg-type]
        metadata={"session_id": "talk"},
    )
    assert moved.headers["x-gateway-session"] == "moved"
    assert moved.headers["x-gateway-account"] != accounts[0]
    assert "first" in (moved.parse().choices[0].message.content or "")


def test_the_operator_sees_points_and_refreshes_them(poe: Any) -> None:
    server, site = poe(2)
    ids = upsert_all(server, site)
    # A newcomer is measured by itself.
    eventually(lambda: all(account["message_point_balance"] == 3000 for account in server.accounts()))
    assert {account["balance"]["estimated"] for account in server.accounts()} == {False}
    email = site.accounts[0]["email"]
    site.control("PATCH", f"/accounts/{email}", balance=1234)
    with server.admin() as admin:
        refreshed = admin.post("/admin/accounts/refresh-points", json={"email": email})
        assert refreshed.status_code == 200, refreshed.text
        one = admin.get(f"/admin/accounts/{ids[email]}").json()
        assert one["message_point_balance"] == 1234
        assert one["balance"]["estimated"] is False
        tested = admin.post(f"/admin/accounts/{ids[email]}/test").json()
        assert tested["ok"] is True
        missing = admin.post("/admin/accounts/refresh-points", json={"email": "nobody@example.test"})
        assert missing.status_code == 404
    models = {model.id.lower() for model in server.client().models.list()}
    assert "gpt-4o-mini" in models


def test_no_secret_leaves_the_vault(poe: Any, mongo_uri: str, db_name: str) -> None:
    """Canaries of one whole life (upsert, chats, failures, listing) are in no log, answer or plain field."""
    from bson import decode_all
    from bson.codec_options import CodecOptions
    from bson.raw_bson import RawBSONDocument
    from pymongo import MongoClient
    from pymongo.collection import Collection

    server, site = poe(4, "--clearance")
    bodies: list[str] = []
    with server.admin() as admin:
        admin.event_hooks["response"].append(lambda answer: bodies.append(answer.read().decode(errors="replace")))
        for account in site.accounts:
            admin.post("/admin/accounts/upsert", json=site.upsert_body(account))
        admin.post("/admin/accounts/upsert", json={"email": "x", "poe_p_b": 5, "formkey": "canary-formkey-0123456789"})
        admin.post(
            "/admin/accounts/upsert",
            json={
                "provider": "openai_api",
                "name": "key",
                "credentials": {"base_url": "http://127.0.0.1:9/v1", "api_key": "sk-canary-0123456789abcdef"},
            },
        )
        site.control("POST", f"/accounts/{site.accounts[0]['email']}/fault", kind="challenge", times=None)
        site.control("PATCH", f"/accounts/{site.accounts[1]['email']}", alive=False)
        asyncio.run(ask_many(server, 12))
        for account in admin.get("/admin/accounts").json()["data"]:
            admin.post(f"/admin/accounts/{account['id']}/test")
            admin.get(f"/admin/accounts/{account['id']}")
        created = admin.post("/admin/keys", json={"name": "another"}).json()
        text = next(value for value in created.values() if isinstance(value, str) and value.startswith("pgw_"))
        bodies = [body for body in bodies if text not in body]  # shown this once, on purpose
        admin.get("/admin/keys")
    for path in ("/metrics", "/openapi.json", "/readyz", "/"):
        bodies.append(single.get(server.base_url + path).text)
    server.stop()
    secrets = {text, "canary-formkey-0123456789", "sk-canary-0123456789abcdef"}
    secrets |= {value for name, value in server.environment.items() if name in ("FERNET_KEY", "ADMIN_API_KEY")}
    secrets.add(server.environment["SERVICE_API_KEYS_BOOTSTRAP"])
    for account in site.accounts:
        secrets |= {value for value in account["cookies"].values() if value} | {account["formkey"]}
    assert all(len(secret) >= 10 for secret in secrets)
    dump = b""
    with MongoClient(mongo_uri) as client:
        for name in client[db_name].list_collection_names():
            raw: Collection[RawBSONDocument] = client[db_name].get_collection(
                name, codec_options=CodecOptions(document_class=RawBSONDocument)
            )
            dump += b"".join(document.raw for document in raw.find())
    assert decode_all is not None and len(dump) > 1000
    log = server.output()
    for secret in secrets:
        assert secret.encode() not in dump, "in the database"
        assert secret not in log, "in the log"
        assert not any(secret in body for body in bodies), "in an answer"
