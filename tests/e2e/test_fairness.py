"""One slot, one key with a hundred callers, one with two: the second has its half of the turns and waits for few.

Counted in turns of the one slot, as the provider saw them; seconds are only printed.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from tests.e2e.conftest import Start
from tests.e2e.provider import ProviderSite, asked
from tests.support.gateway import GatewayServer

pytestmark = pytest.mark.slow

MANY, FEW = 100, 2
ANSWER = 0.05
TURNS = 60
"""Turns that are counted, once everybody waits."""
SETTINGS = {
    "MAX_INFLIGHT_PER_ACCOUNT": "1",
    "GLOBAL_INFLIGHT_LIMIT": "1",
    "ACQUIRE_TIMEOUT_SECONDS": "120",
    "GRANT_LIFETIME_SECONDS": "10",
}


@pytest.fixture
def provider() -> Iterator[ProviderSite]:
    site = ProviderSite()
    site.seconds = ANSWER
    yield site
    site.end()


class Waited(NamedTuple):
    """One answered request: ``turns`` of the slot between asking and its own turn, and seconds until the answer."""

    turns: int
    seconds: float


class Measured:
    """What the two keys got."""

    def __init__(self, provider: ProviderSite) -> None:
        self.provider = provider
        self.waits: dict[str, list[Waited]] = {"A": [], "B": []}
        self.window: list[str] = []
        """Whose turns they were, while both keys waited all the time."""

    def share(self, key: str) -> float:
        return self.window.count(key) / len(self.window)

    def turns(self, key: str) -> list[int]:
        return [each.turns for each in self.waits[key]]

    def longest_drought(self, key: str) -> int:
        """Turns of others in a row."""
        return max(len(run) for run in "".join(self.window).split(key))

    def told(self) -> str:
        lines = [
            f"B's share of {len(self.window)} turns: {self.share('B'):.2f}; at most "
            f"{self.longest_drought('B')} turns of A in a row"
        ]
        for key, waits in self.waits.items():
            turns, seconds = [each.turns for each in waits], [each.seconds for each in waits]
            if waits:
                lines.append(
                    f"{key}: {len(waits)} answers, waited p50 {statistics.median(turns):.0f} max {max(turns)} turns, "
                    f"p50 {statistics.median(seconds):.2f} max {max(seconds):.2f} s"
                )
        return "\n".join(lines)


def make_key(server: GatewayServer, name: str) -> str:
    with server.admin() as admin:
        created = admin.post("/admin/keys", json={"name": name, "weight": 1}).raise_for_status().json()
    return next(value for value in created.values() if isinstance(value, str) and value.startswith("pgw_"))


async def measure(provider: ProviderSite, callers: list[tuple[str, GatewayServer, str]]) -> Measured:
    """Every caller (letter, gateway, key) asks again as soon as it is answered, until enough turns were counted."""
    measured = Measured(provider)
    turns = provider.turns
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=120, trust_env=False) as http:
        enough = asyncio.Event()

        async def ask(letter: str, caller: int, server: GatewayServer, key: str) -> None:
            number = 0
            while not enough.is_set():
                number += 1
                text = f"{letter} {caller}.{number}"
                asked_at, behind = time.monotonic(), len(turns)
                answer = await http.post(
                    f"{server.base_url}/v1/chat/completions",
                    headers={"Authorization": f"Bearer {key}"},
                    json=asked(text),
                )
                assert answer.status_code == 200, answer.text
                if not enough.is_set():
                    waited = Waited(turns.index(text, behind) - behind, time.monotonic() - asked_at)
                    measured.waits[letter].append(waited)

        tasks = [asyncio.ensure_future(ask(letter, n, at, key)) for n, (letter, at, key) in enumerate(callers)]
        while len(turns) < 10:  # until all have joined
            await asyncio.sleep(0.05)
        begin = len(turns)
        while len(turns) < begin + TURNS:
            await asyncio.sleep(0.05)
            for task in tasks:
                if task.done():
                    task.result()
        enough.set()
        measured.window = [text[0] for text in turns[begin : begin + TURNS]]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return measured


def test_the_key_with_two_callers_has_half_of_the_turns(gateway: Start, provider: ProviderSite) -> None:
    server = gateway(**SETTINGS)
    provider.enroll(server, 1)
    many, few = make_key(server, "many"), make_key(server, "few")
    callers: list[Any] = [("A", server, many)] * MANY + [("B", server, few)] * FEW
    measured = asyncio.run(measure(provider, callers))
    print("\none gateway\n" + measured.told())
    assert 0.4 <= measured.share("B") <= 0.6
    assert measured.longest_drought("B") <= 4
    # Two of B's share every second turn: nobody of them waits for more than a handful; A's wait for the hundred.
    assert max(measured.turns("B")) <= 12
    assert statistics.median(measured.turns("B")) * 10 < statistics.median(measured.turns("A"))


@pytest.mark.parametrize("apart", [False, True], ids=["mixed", "apart"])
def test_two_gateways_share_the_slot(gateway: Start, provider: ProviderSite, apart: bool) -> None:
    """Turns are counted by each process for itself; the slot goes back and forth between them."""
    first, second = gateway(**SETTINGS), gateway(**SETTINGS)
    provider.enroll(first, 1)
    many, few = make_key(first, "many"), make_key(first, "few")
    if apart:
        callers: list[Any] = [("A", first, many)] * MANY + [("B", second, few)] * FEW
    else:
        half = MANY // 2
        callers = [("A", first, many)] * half + [("A", second, many)] * half + [("B", first, few), ("B", second, few)]
    measured = asyncio.run(measure(provider, callers))
    print(f"\ntwo gateways, {'apart' if apart else 'mixed'}\n" + measured.told())
    assert measured.share("B") >= 0.25
