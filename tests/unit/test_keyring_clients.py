"""Keys of the routing file's clients: in force as long as the file names them, and never twice."""

from __future__ import annotations

from typing import Any

import pytest

from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.memory import MemoryKeys
from poe_gateway.clock import Ids
from tests.unit.builders import StepClock

ADMIN = "adm-0123456789-abcdefghijklmn"


@pytest.fixture
def pair() -> tuple[KeyRing, KeyRing]:
    """Two processes on one database."""
    table: dict[str, Any] = {}
    log: list[str] = []

    def ring(seed: int) -> KeyRing:
        store = MemoryKeys(table, log)
        return KeyRing(store=store, pepper=b"p", admin_key=ADMIN, clock=StepClock(), ids=Ids(seed))

    return ring(1), ring(2)


async def test_a_clients_key_works_under_its_name_in_every_process(pair: tuple[KeyRing, KeyRing]) -> None:
    one, two = pair
    held, problems = await one.keep({"client:web": "text-of-web-1"})
    again, _ = await two.keep({"client:web": "text-of-web-1"})
    assert held == again and problems == ()
    for ring in pair:
        caller = ring.known("text-of-web-1")
        assert caller is not None and caller.name == "client:web" and caller.key_id == held["client:web"]
        assert len(ring.keys()) == 1


async def test_another_text_ends_the_one_before(pair: tuple[KeyRing, KeyRing]) -> None:
    one, two = pair
    held, _ = await one.keep({"client:web": "text-of-web-1"})
    assert (await one.keep({"client:web": "text-of-web-2"}))[0] == held
    assert one.known("text-of-web-1") is None and one.known("text-of-web-2") is not None
    await two.refresh()
    assert two.known("text-of-web-1") is None and two.known("text-of-web-2") is not None


async def test_a_client_that_goes_and_comes_back(pair: tuple[KeyRing, KeyRing]) -> None:
    one, two = pair
    kept = {"client:web": "text-of-web-1", "client:cli": "text-of-cli-1"}
    held, _ = await one.keep(kept)
    mine, _ = await one.create("client:mine", text="text-of-mine-1")
    assert [key.name for key in await one.release("client:", {"client:cli"})] == ["client:web"]
    assert one.known("text-of-web-1") is None
    assert one.known("text-of-cli-1") is not None and one.known("text-of-mine-1") is not None
    assert (await two.keep(kept))[0] == held
    assert two.known("text-of-web-1") is not None
    assert two.key(mine.id) is not None


async def test_what_the_operator_switched_off_stays_off(pair: tuple[KeyRing, KeyRing]) -> None:
    one, _ = pair
    held, _ = await one.keep({"client:web": "text-of-web-1"})
    await one.switch(held["client:web"], enabled=False)
    await one.keep({"client:web": "text-of-web-1"})
    assert one.known("text-of-web-1") is None


async def test_what_cannot_be_in_force_is_told_and_left_out(pair: tuple[KeyRing, KeyRing]) -> None:
    one, _ = pair
    old, text = await one.create("old")
    await one.revoke(old.id)
    held, problems = await one.keep(
        {"client:a": ADMIN, "client:b": text, "client:c": "text-of-c-and-d", "client:d": "text-of-c-and-d"}
    )
    assert list(held) == ["client:c"]
    assert [problem.split("'")[1] for problem in problems] == ["client:a", "client:b", "client:d"]
    assert ADMIN not in str(problems) and text not in str(problems)


async def test_a_key_that_callers_have_already_stays_that_key(pair: tuple[KeyRing, KeyRing]) -> None:
    one, _ = pair
    (boot,) = await one.start(["text-of-bootstrap"])
    held, problems = await one.keep({"client:web": "text-of-bootstrap"})
    assert held == {"client:web": boot.id} and problems == ()
    assert len(one.keys()) == 1
