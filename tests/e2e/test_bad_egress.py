"""One bad egress: while nothing gets through nobody is blamed, callers are told so, and seconds later all is well."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from tests.e2e.conftest import Start
from tests.e2e.provider import ProviderSite, asked
from tests.support.gateway import GatewayServer

pytestmark = pytest.mark.slow

ACCOUNTS = 10
CALLERS = 12
PATIENCE = 2
"""Seconds for a request: an idle provider answers sooner however busy the machine is."""
BAD_SECONDS = 6.0
BACK_WITHIN = 10.0
"""Seconds after the outage within which everything must be as before: what callers are promised, not a speed."""


@pytest.fixture
def provider() -> Iterator[ProviderSite]:
    site = ProviderSite()
    yield site
    site.end()


class Callers:
    """Ask all the time, each something else every time unless ``same``. ``told``: (code, Retry-After) of refusals."""

    def __init__(self, server: GatewayServer, *, same: bool = False) -> None:
        self.answered = 0
        self.told: Counter[str] = Counter()
        self.patience: list[int] = []
        self.without: Counter[str] = Counter()
        """Refusals that should name a time and do not."""
        self._server = server
        self._same = same
        self._enough = asyncio.Event()

    async def __aenter__(self) -> Callers:
        self._client = self._server.async_client(timeout=30)
        self._tasks = [asyncio.ensure_future(self._ask(number)) for number in range(CALLERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._enough.set()
        await asyncio.gather(*self._tasks)
        await self._client.close()

    async def _ask(self, caller: int) -> None:
        number = 0
        while not self._enough.is_set():
            number += 1
            text = "ping" if self._same else f"question {caller}.{number}"
            try:
                answer = await self._client.chat.completions.create(**asked(text))
            except openai.APIStatusError as error:
                code = str(error.code)
                self.told[code] += 1
                wait = error.response.headers.get("retry-after")
                if wait is not None:
                    self.patience.append(int(wait))
                elif error.status_code == 503:
                    self.without[code] += 1
            else:
                assert answer.choices[0].message.content == f"echo: {text}"
                self.answered += 1
            await asyncio.sleep(0.1)


@contextmanager
def hanging(provider: ProviderSite) -> Iterator[None]:
    provider.hangs = True
    yield
    provider.hangs = False


@contextmanager
def closed(provider: ProviderSite) -> Iterator[None]:
    provider.shut()
    yield
    provider.open()


def states(server: GatewayServer) -> Counter[str]:
    return Counter(each["status"] for each in server.accounts())


async def outage(server: GatewayServer, provider: ProviderSite, bad: Any, *, same: bool = False) -> Callers:
    """Callers before, during and after; ends when all accounts are active and callers are answered again."""
    async with Callers(server, same=same) as callers:
        await asyncio.sleep(1.0)
        before = callers.answered
        assert before and not callers.told
        with bad(provider):
            await asyncio.sleep(BAD_SECONDS)
            worst = await asyncio.to_thread(states, server)
        over, answered = time.monotonic(), callers.answered
        print("during:", dict(callers.told), "states at the end of it:", dict(worst))
        while True:
            seen = await asyncio.to_thread(states, server)
            if seen == {"active": ACCOUNTS} and callers.answered > answered:
                break
            assert time.monotonic() < over + BACK_WITHIN, (seen, callers.answered - answered, callers.told)
            await asyncio.sleep(0.1)
        print(f"all back after {time.monotonic() - over:.1f} s; told {dict(callers.told)}")
    return callers


def alerts(server: GatewayServer) -> list[str]:
    return [line["kind"] for line in server.log_lines() if line.get("kind", "").startswith("incident_")]


def rests_of(server: GatewayServer, account_id: str) -> list[dict[str, Any]]:
    """Entries of the account's history by which it went to rest."""
    with server.admin() as admin:
        page = admin.get(f"/admin/accounts/{account_id}/history").raise_for_status().json()
    return [entry for entry in page["data"] if entry["facts"].get("state") == "cooldown"]


@pytest.mark.parametrize("bad", [hanging, closed], ids=["hangs", "port-closed"])
def test_a_bad_way_costs_seconds_and_no_account(
    gateway: Start, provider: ProviderSite, bad: Callable[[ProviderSite], Any]
) -> None:
    server = gateway(REQUEST_TIMEOUT_SECONDS=str(PATIENCE))
    ids = provider.enroll(server, ACCOUNTS)
    callers = asyncio.run(outage(server, provider, bad))
    assert callers.told["upstream_down"] > 0
    assert not callers.without, callers.without
    assert max(callers.patience) <= 10, callers.patience
    assert alerts(server) == ["incident_opened", "incident_closed"]
    # Whoever rested, rested for seconds, and was not given a strike for it.
    rests = [entry for account_id in ids for entry in rests_of(server, account_id)]
    print("\n".join(entry["text"] for entry in rests))
    assert {entry["facts"]["cause"] for entry in rests} <= {"network"}
    assert {each["strikes"] for each in server.accounts()} == {0}


def test_the_same_question_over_and_over_is_not_taken_for_the_culprit(gateway: Start, provider: ProviderSite) -> None:
    """A monitor that asks "ping" all day: what never left the gateway cannot have given offence."""
    server = gateway(REQUEST_TIMEOUT_SECONDS=str(PATIENCE))
    provider.enroll(server, ACCOUNTS)
    callers = asyncio.run(outage(server, provider, closed, same=True))
    assert "body_quarantined" not in callers.told, callers.told
