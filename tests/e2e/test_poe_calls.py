"""Single calls through the whole gateway to the Poe emulator: leaving early, images, failover, strict sessions."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.e2e.conftest import Start
from tests.e2e.test_poe_pool import StartEmulator, upsert_all
from tests.support.gateway import EmulatorServer, GatewayServer, eventually

PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c626001000000"
        "ffff03000006000557bfabd40000000049454e44ae426082"
    )
).decode()


@pytest.fixture
def pair(gateway: Start, emulator: StartEmulator) -> Callable[..., tuple[GatewayServer, EmulatorServer]]:
    def start(accounts: int = 2, **settings: str) -> tuple[GatewayServer, EmulatorServer]:
        site = emulator("--accounts", str(accounts))
        server = gateway(POE_BASE_URL=site.base_url, POE_WS_BASE_URL=site.ws_base_url, **settings)
        upsert_all(server, site)
        return server, site

    return start


def stats(site: EmulatorServer, name: str) -> int:
    return sum(site.control("GET", f"/accounts/{each['email']}")["stats"][name] for each in site.accounts)


def asked(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **fields}


def test_a_caller_that_leaves_cancels_upstream_and_frees_the_slot(pair: Any) -> None:
    server, site = pair(1, MAX_INFLIGHT_PER_ACCOUNT="1")
    stream = server.client().chat.completions.create(**asked("[[chunks:200]] [[delay:0.2]] long", stream=True))
    next(iter(stream))
    stream.close()
    eventually(lambda: stats(site, "answers_cancelled") == 1)
    # The only slot is free again, and leaving was nobody's fault.
    answer = server.client().chat.completions.create(**asked("short"))
    assert answer.choices[0].message.content == "echo: short"
    assert server.accounts()[0]["status"] == "active"
    assert server.accounts()[0]["error_count"] == 0


def test_an_image_is_uploaded_to_the_chat(pair: Any) -> None:
    server, site = pair(1)
    content = [
        {"type": "text", "text": "what is this"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]
    answer = server.client().chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": content}],  # type: ignore[list-item]
    )
    assert "what is this" in (answer.choices[0].message.content or "")
    assert stats(site, "uploads") == 1


def test_another_account_answers_when_the_first_has_no_points(pair: Any) -> None:
    server, site = pair(2)
    first = site.accounts[0]["email"]
    site.control("POST", f"/accounts/{first}/script", behaviour={"status": "reached_limit"}, times=None)
    for number in range(4):
        raw = server.client().chat.completions.with_raw_response.create(**asked(f"call {number}"))
        assert raw.parse().choices[0].message.content == f"echo: call {number}"
    listed = {account["email"]: account for account in server.accounts()}
    assert listed[first]["status"] == "depleted"
    assert listed[first]["cooldown_until"] is not None


def test_what_the_caller_did_wrong_costs_no_account_anything(pair: Any) -> None:
    server, _ = pair(2)
    with pytest.raises(openai.APIStatusError) as refused:
        server.client().chat.completions.create(**asked("[[status:too_many_tokens]]"))
    assert refused.value.status_code == 413
    assert {account["status"] for account in server.accounts()} == {"active"}


def test_a_stream_that_breaks_off_says_so_and_is_never_spliced(pair: Any) -> None:
    server, site = pair(2)
    pieces: list[str] = []
    with pytest.raises(openai.APIError) as broken:
        for chunk in server.client().chat.completions.create(
            **asked("[[chunks:6]] [[error:error_unknown]] half an answer", stream=True)
        ):
            pieces += [choice.delta.content or "" for choice in chunk.choices]
    assert "broke off" in str(broken.value) or not pieces
    assert stats(site, "duplicate_texts") <= 1


def test_strict_sessions_answer_409_when_their_account_is_gone(pair: Any) -> None:
    server, _ = pair(2, SESSION_AFFINITY="strict")
    ask = asked("hello", metadata={"session_id": "s"})
    first = server.client().chat.completions.with_raw_response.create(**ask)
    with server.admin() as admin:
        assert admin.post(f"/admin/accounts/{first.headers['x-gateway-account']}/pause").status_code == 200
    with pytest.raises(openai.ConflictError) as lost:
        server.client().chat.completions.create(**ask)
    assert lost.value.code == "session_lost"
    assert "new session_id" in str(lost.value)


def test_everybody_depleted_is_402_and_everybody_resting_503_with_retry_after(pair: Any) -> None:
    server, site = pair(1)
    email = site.accounts[0]["email"]
    site.control("PATCH", f"/accounts/{email}", balance=0)
    with pytest.raises(openai.APIStatusError) as broke:
        server.client().chat.completions.create(**asked("hello"))
    assert broke.value.status_code == 402
    with pytest.raises(openai.APIStatusError) as again:
        server.client().chat.completions.create(**asked("hello"))
    assert (again.value.status_code, again.value.code) == (402, "all_depleted")
    assert int(again.value.response.headers["retry-after"]) > 0
    site.control("PATCH", f"/accounts/{email}", balance=3000)
    with server.admin() as admin:
        assert admin.post("/admin/accounts/refresh-points", json={"email": email}).status_code == 200
    assert server.client().chat.completions.create(**asked("hello")).choices[0].message.content == "echo: hello"
    site.control("POST", f"/accounts/{email}/script", behaviour={"status": "rate_limit_exceeded"}, times=None)
    for _ in range(2):
        with pytest.raises(openai.InternalServerError) as resting:
            server.client().chat.completions.create(**asked("hello"), timeout=60)
    assert (resting.value.status_code, resting.value.code) == (503, "all_cooling")
    assert 60 < int(resting.value.response.headers["retry-after"]) <= 120
