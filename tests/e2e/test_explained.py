"""Why did my request get what it got? The records of real requests, read as an operator reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from aiohttp import web

from tests.e2e.conftest import Start
from tests.e2e.provider import ProviderSite, asked
from tests.support.gateway import GatewayServer, eventually

pytestmark = pytest.mark.slow

SLOW_DOWN = {"error": {"message": "slow down", "type": "requests"}}
DEAD_KEY = {"error": {"message": "no", "code": "invalid_api_key"}}


@pytest.fixture
def provider() -> Iterator[ProviderSite]:
    site = ProviderSite()
    yield site
    site.end()


def explained(server: GatewayServer, request_id: str) -> str:
    with server.admin() as admin:
        answer = admin.get(f"/admin/explain/{request_id}").raise_for_status().json()
    assert answer["complete"] is True
    (record,) = answer["data"]
    text: str = record["text"]
    print("\n" + text)
    prose = re.sub(r"\b(acct|key)_\w+|\(.*?\)|\b[45]\d\d \w+", "", text)
    assert "_" not in prose and "None" not in prose, "words of the machine are left"
    return text


def told_in_order(text: str, *patterns: str) -> None:
    """Each pattern is found behind the one before it."""
    at = 0
    for pattern in patterns:
        found = re.compile(pattern).search(text, at)
        assert found is not None, f"{pattern!r} is not in, or not in this place of:\n{text}"
        at = found.end()


def refused(server: GatewayServer, text: str) -> tuple[openai.APIStatusError, str]:
    with server.client() as client, pytest.raises(openai.APIStatusError) as error:
        client.chat.completions.create(**asked(text))
    return error.value, error.value.response.headers["x-request-id"]


def until_open(server: GatewayServer, accounts: int) -> None:
    """Wait until so many accounts have a free slot in the gateway: the slots come a moment after the account."""
    with server.admin() as admin:
        eventually(lambda: sum(each["open_here"] for each in admin.get("/admin/pool").json()["offers"]) == accounts)


def test_a_refused_request(gateway: Start, provider: ProviderSite) -> None:
    server = gateway()
    paused, dead, fast, faster = provider.enroll(server, 4)
    provider.rule = lambda call: (
        web.json_response(DEAD_KEY, status=401)
        if call.key.endswith("1")
        else web.json_response(SLOW_DOWN, status=429, headers={"Retry-After": "300"})
    )
    with server.admin() as admin:
        # One request changes one account: each gets what is coming to it by a request of its own.
        for each in (paused, fast, faster):
            admin.post(f"/admin/accounts/{each}/pause").raise_for_status()
        until_open(server, 1)
        refused(server, "one")
        for each in (fast, faster):
            admin.post(f"/admin/accounts/{each}/resume").raise_for_status()
            until_open(server, 1)
            refused(server, f"for {each}")
    assert [each["status"] for each in server.accounts()] == ["active", "invalid", "cooldown", "cooldown"]
    error, request_id = refused(server, "is anybody there?")
    assert (error.status_code, error.code) == (503, "all_cooling")
    assert 290 <= int(error.response.headers["retry-after"]) <= 300
    text = explained(server, request_id)
    told_in_order(
        text,
        r"^key_\w+ asked for m-1 with a prompt of about \d+ tokens at [-\d]+ [:\d]+ UTC\.\n",
        r"4 accounts for this model, 0 in service",
        r"Passed over: 2 resting, (1 paused by the operator|1 set aside until the operator acts), 1 \w+",
        r"Refused: all accounts are resting \(all_cooling\)",
        rf"For example: .*{paused} paused by the operator",
        r"The caller got 503 all_cooling after [.\d]+ m?s\.$",
    )
    for account_id, words in ((dead, "set aside until the operator acts"), (fast, "resting"), (faster, "resting")):
        assert f"{account_id} {words}" in text


def test_a_request_that_failed_over(gateway: Start, provider: ProviderSite) -> None:
    server = gateway()
    first, second = provider.enroll(server, 2)
    until_open(server, 2)
    provider.rule = lambda call: web.json_response(DEAD_KEY, status=401) if call.key.endswith("0") else None
    with server.client() as client:
        for number in range(2):  # the strategy may begin with either
            raw = client.chat.completions.with_raw_response.create(**asked(f"question {number}"))
            assert raw.parse().choices[0].message.content == f"echo: question {number}"
            if len(provider.calls) == number + 2:
                break
    told_in_order(
        explained(server, raw.headers["x-request-id"]),
        r"asked for m-1",
        r"2 accounts for this model, 2 in service, 2 with a free slot",
        rf"Chose {first} \(balanced: ",
        rf"Attempt 1 on {first} found the credential dead after [.\d]+ m?s \(HTTP 401 invalid_api_key\)",
        r"the message had not been sent",
        r"Charged to the account\.\n",
        r"1 in service, 1 with a free slot here.*Passed over: 1 set aside until the operator acts",
        rf"Chose {second} ",
        rf"Attempt 2 on {second} answered in [.\d]+ m?s",
        r"The caller got 200 after [.\d]+ m?s\.$",
    )


def test_a_request_that_waited_in_line(gateway: Start, provider: ProviderSite) -> None:
    server = gateway(MAX_INFLIGHT_PER_ACCOUNT="1")
    (account,) = provider.enroll(server, 1)
    provider.seconds = 60.0
    with server.client() as client, server.admin() as admin, ThreadPoolExecutor() as threads:
        first = threads.submit(client.chat.completions.create, **asked("the one before"))
        eventually(lambda: provider.turns)
        behind = threads.submit(client.chat.completions.with_raw_response.create, **asked("the one behind"))
        eventually(lambda: admin.get("/admin/accounts/summary").json()["waiting"])
        provider.seconds = 0.0
        first.result(60)
        raw = behind.result(60)
    assert raw.headers["x-gateway-queue-position"] == "1"
    told_in_order(
        explained(server, raw.headers["x-request-id"]),
        r"asked for m-1",
        r"[Ww]aited [.\d]+ m?s in line.* \(number 1 at joining\)",
        rf"(?i:chose) {account} \(balanced: ",
        rf"Attempt 1 on {account} answered in [.\d]+ m?s",
        r"The caller got 200 after [.\d]+ m?s\.$",
    )
