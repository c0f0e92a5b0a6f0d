"""The key ring: who calls, and how soon a change of a key is in force everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.keys import DEFAULTS, KeyTerms, Principal, ServiceKey
from poe_gateway.auth.memory import MemoryKeys
from poe_gateway.clock import Ids
from tests.accounts.support import HandClock

TERMS = KeyTerms(priority=7, weight=3, providers=("mock",), labels=("eu",), without=("trial",))


class Process:
    """A key ring of one process over a shared table."""

    def __init__(self, beside: Process | None = None) -> None:
        self.clock = beside.clock if beside else HandClock()
        shared: Any = beside.store if beside else MemoryKeys()
        self.store = MemoryKeys(shared.table, shared.log)
        self.ring = KeyRing(store=self.store, pepper=b"p", admin_key="admin", clock=self.clock, ids=Ids(1))

    async def started(self, bootstrap: Iterable[str] = ()) -> KeyRing:
        await self.ring.start(bootstrap)
        return self.ring


async def test_a_new_key_has_the_terms_it_was_made_with() -> None:
    ring = await Process().started()
    plain, text = await ring.create("app")
    assert ring.known(text) == Principal(key_id=plain.id, name="app")
    key, text = await ring.create("dear", TERMS)
    assert ring.known(text) == Principal(
        key_id=key.id, name="dear", priority=7, weight=3, providers=("mock",), labels=("eu",), without=("trial",)
    )


async def test_a_change_is_in_force_at_once_here_and_elsewhere_with_the_next_look() -> None:
    here = Process()
    there = Process(here)
    ring, other = await here.started(), await there.started()
    key, text = await ring.create("app", TERMS)
    await other.refresh()
    changed = await ring.change(key.id, KeyTerms(name="renamed", weight=9, labels=()))
    assert changed is not None and (changed.name, changed.weight, changed.labels) == ("renamed", 9, ())
    assert (changed.priority, changed.providers, changed.without) == (7, ("mock",), ("trial",))
    assert ring.known(text) == Principal(
        key_id=key.id, name="renamed", priority=7, weight=9, providers=("mock",), without=("trial",)
    )
    assert other.known(text) != ring.known(text)
    await other.refresh()
    assert other.known(text) == ring.known(text)


async def test_bootstrap_keys_have_the_defaults_and_keep_what_they_were_changed_to() -> None:
    first = Process()
    ring = await first.started(["svc-bootstrap-key-1"])
    known = ring.known("svc-bootstrap-key-1")
    assert known is not None and (known.priority, known.weight, known.providers) == (0, 1, ())
    await ring.change(known.key_id, TERMS)
    again = await Process(first).started(["svc-bootstrap-key-1"])
    kept = again.known("svc-bootstrap-key-1")
    assert kept is not None and (kept.key_id, kept.priority, kept.labels) == (known.key_id, 7, ("eu",))


async def test_a_caller_is_one_object_as_long_as_its_key_does_not_change() -> None:
    ring = await Process().started()
    key, text = await ring.create("app", TERMS)
    known = ring.known(text)
    await ring.refresh()
    assert ring.known(text) is ring.known(text)
    await ring.change(key.id, KeyTerms(weight=2))
    assert ring.known(text) is not known


async def test_a_revoked_key_stays_off_whatever_is_changed_of_it() -> None:
    ring = await Process().started()
    key, text = await ring.create("app")
    await ring.revoke(key.id)
    changed = await ring.change(key.id, TERMS)
    assert changed is not None and not changed.enabled and changed.weight == 3
    assert ring.known(text) is None and await ring.recognise(text) is None


async def test_an_unknown_key_is_not_changed_and_a_failure_is_told() -> None:
    process = Process()
    ring = await process.started()
    assert await ring.change("key_nobody", TERMS) is None
    process.store.failure = ConnectionError("away")
    with pytest.raises(ConnectionError):
        await ring.change("key_nobody", TERMS)


def test_keys_that_were_stored_before_there_were_terms_have_the_defaults() -> None:
    old = {"id": "key_1", "name": "old", "hash": "0", "created_at": "2026-01-01T00:00:00Z", "bootstrap": True}
    key = msgspec.convert(old, ServiceKey)
    assert {name: getattr(key, name) for name in DEFAULTS} == DEFAULTS
    assert DEFAULTS == {"priority": 0, "weight": 1, "providers": (), "labels": (), "without": ()}
