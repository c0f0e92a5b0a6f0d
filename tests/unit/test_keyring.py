"""The key ring: who calls, and how soon a change of a key is in force everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from poe_gateway.api.callers import caller, operator
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.keys import DEFAULTS, KeyTerms, Principal, ServiceKey, allowed, keyed_hash, may_use
from poe_gateway.auth.memory import MemoryKeys, MemoryOrgs
from poe_gateway.auth.orgs import DEFAULT_ORG, OrgTerms
from poe_gateway.clock import Ids
from poe_gateway.errors import (
    AuthenticationFailed,
    Conflict,
    Forbidden,
    GatewayError,
    RateLimitExceeded,
    StoreUnavailable,
    Unavailable,
)
from poe_gateway.limits.terms import Budget, Rates, Scope
from tests.accounts.support import HandClock

TERMS = KeyTerms(priority=7, weight=3, providers=("mock",), labels=("eu",), without=("trial",))


class Process:
    """A key ring of one process over a shared table."""

    def __init__(self, beside: Process | None = None, **more: Any) -> None:
        self.clock: HandClock = beside.clock if beside else HandClock()
        self.store: MemoryKeys = MemoryKeys(beside.store.table, beside.store.log) if beside else MemoryKeys()
        self.orgs: MemoryOrgs = MemoryOrgs(beside.orgs.table, beside.orgs.log) if beside else MemoryOrgs()
        self.ring = KeyRing(
            store=self.store,
            orgs=self.orgs,
            pepper=b"p",
            admin_key="admin-key-of-the-operator",
            clock=self.clock,
            ids=Ids(2 if beside else 1),
            **more,
        )

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
    known: dict[str, Any] = {"priority": 0, "weight": 1, "providers": (), "labels": (), "without": ()}
    newer = {"org": "default", "expires_at": None, "models": (), "addresses": (), "budgets": (), "note": ""}
    assert {**known, **newer, "rates": Rates()} == DEFAULTS


DAY = Budget(unit="USD", period="day", amount=500_000_000)


async def test_a_caller_is_held_by_the_limits_of_key_organisation_and_gateway() -> None:
    everywhere = Scope(kind="global", id="", rates=Rates(tokens_minute=9000))
    ring = await Process(defaults=Rates(requests_minute=60, parallel=0), everywhere=everywhere).started()
    org = await ring.create_org("acme", OrgTerms(rates=Rates(requests_day=1000), keep_text=True))
    key, text = await ring.create("app", KeyTerms(org=org.id, rates=Rates(requests_minute=5), budgets=(DAY,)))
    own = Scope(kind="key", id=key.id, rates=Rates(requests_minute=5, parallel=0), budgets=(DAY,))
    known = ring.known(text)
    assert known is not None and known.org == org.id and known.keep_text
    assert known.scopes == (own, Scope(kind="org", id=org.id, rates=Rates(requests_day=1000)), everywhere)
    plain, text = await ring.create("plain")
    known = ring.known(text)
    assert known is not None and known.org == DEFAULT_ORG
    assert [scope.kind for scope in known.scopes] == ["key", "global"]
    await ring.change(plain.id, KeyTerms(rates=Rates(requests_minute=0)))
    known = ring.known(text)
    assert known is not None and known.scopes == (everywhere,)


async def test_a_change_of_an_organisation_reaches_its_keys_and_no_others() -> None:
    here = Process()
    there = Process(here)
    ring, other = await here.started(), await there.started()
    org = await ring.create_org("acme")
    _, inside = await ring.create("inside", KeyTerms(org=org.id))
    _, outside = await ring.create("outside")
    await other.refresh()
    before = other.known(inside), other.known(outside)
    await ring.change_org(org.id, OrgTerms(budgets=(DAY,)))
    await other.refresh()
    known = other.known(inside)
    assert known is not before[0] and known is not None and known.scopes[0].budgets == (DAY,)
    assert other.known(outside) is before[1]
    await ring.change_org(org.id, OrgTerms(note="no limit is touched"))
    await other.refresh()
    assert other.known(inside) is known


async def test_the_keys_of_an_organisation_that_is_off_do_not_work() -> None:
    here = Process()
    there = Process(here)
    ring, other = await here.started(), await there.started()
    org = await ring.create_org("acme")
    _, text = await ring.create("app", KeyTerms(org=org.id))
    await other.refresh()
    await ring.change_org(org.id, OrgTerms(enabled=False))
    await other.refresh()
    for each in (ring, other):
        with pytest.raises(Forbidden) as refused:
            each.known(text)
        assert (refused.value.status, refused.value.code) == (403, "org_disabled")
    await ring.change_org(org.id, OrgTerms(enabled=True))
    assert ring.known(text) is not None


async def test_the_default_organisation_is_always_there_and_keeps_its_name() -> None:
    process = Process()
    ring = await process.started()
    assert [org.id for org in ring.orgs()] == [DEFAULT_ORG] and not process.orgs.table
    _, text = await ring.create("app")
    await ring.change_org(DEFAULT_ORG, OrgTerms(rates=Rates(parallel=2)))
    again = await Process(process).started()
    known = again.known(text)
    assert known is not None and known.scopes == (Scope(kind="org", id=DEFAULT_ORG, rates=Rates(parallel=2)),)
    with pytest.raises(Conflict):
        await ring.change_org(DEFAULT_ORG, OrgTerms(name="other"))
    org = await ring.create_org("acme")
    for taken in ("default", "acme"):
        with pytest.raises(Conflict):
            await ring.create_org(taken)
    other = await ring.create_org("other")
    for taken in ("default", "acme"):
        with pytest.raises(Conflict):
            await ring.change_org(other.id, OrgTerms(name=taken))
    assert ring.org("acme") == ring.org(org.id) == org and ring.org("nobody") is None
    assert await ring.change_org("org_nobody", OrgTerms(note="x")) is None


async def test_a_key_of_an_organisation_that_nobody_knows_does_not_work() -> None:
    ring = await Process().started()
    _, text = await ring.create("app", KeyTerms(org="org_lost"))
    with pytest.raises(Forbidden):
        ring.known(text)


async def test_changed_keys_come_into_force_when_organisations_cannot_be_read() -> None:
    here = Process()
    there = Process(here)
    ring, other = await here.started(), await there.started()
    key, text = await ring.create("app")
    await other.refresh()
    await ring.revoke(key.id)
    there.orgs.failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await other.refresh()
    assert other.known(text) is None


async def test_a_key_expires_on_the_moment_without_a_look() -> None:
    process = Process()
    ring = await process.started()
    key, text = await ring.create("app", KeyTerms(expires_at=process.clock.now() + timedelta(hours=1)))
    process.clock.pass_(minutes=59, seconds=59)
    assert ring.known(text) is not None
    process.clock.pass_(seconds=1)
    with pytest.raises(AuthenticationFailed) as refused:
        ring.known(text)
    assert (refused.value.status, refused.value.code) == (401, "key_expired")
    await ring.change(key.id, KeyTerms(expires_at=None))
    assert ring.known(text) is not None


async def test_a_key_can_be_switched_off_and_on_but_not_after_its_revocation() -> None:
    ring = await Process().started()
    key, text = await ring.create("app")
    await ring.switch(key.id, enabled=False)
    assert ring.known(text) is None
    await ring.switch(key.id, enabled=True)
    assert ring.known(text) is not None
    await ring.switch(key.id, enabled=False)
    revoked = await ring.revoke(key.id)
    assert revoked is not None and revoked.revoked_at is not None
    for enabled in (True, False):
        with pytest.raises(Conflict) as refused:
            await ring.switch(key.id, enabled=enabled)
        assert refused.value.code == "key_revoked" and ring.known(text) is None
    assert await ring.switch("key_nobody", enabled=True) is None


async def test_both_texts_of_a_rotated_key_work_for_the_overlap_everywhere() -> None:
    here = Process()
    there = Process(here)
    ring, other = await here.started(), await there.started()
    key, old = await ring.create("app", TERMS)
    await other.refresh()
    rotated = await ring.rotate(key.id, 3600)
    assert rotated is not None
    record, new = rotated
    assert record.id == key.id and record.last_rotated_at == here.clock.now() and new != old
    assert ring.known(old) is ring.known(new) is not None
    assert other.known(old) is not None and await other.recognise(new) is None
    await other.refresh()
    for each in (ring, other):
        assert each.known(old) is each.known(new) is not None
    here.clock.pass_(seconds=3600)
    for each in (ring, other):
        assert each.known(old) is None and await each.recognise(old) is None and each.known(new) is not None


async def test_without_overlap_the_old_text_stops_at_once_and_only_the_last_one_overlaps() -> None:
    ring = await Process().started()
    key, first = await ring.create("app")
    rotated = await ring.rotate(key.id, 0)
    assert rotated is not None and ring.known(first) is None and ring.known(rotated[1]) is not None
    again = await ring.rotate(key.id, 60)
    third = await ring.rotate(key.id, 60)
    assert again is not None and third is not None
    assert ring.known(rotated[1]) is None and ring.known(again[1]) is ring.known(third[1]) is not None
    await ring.revoke(key.id)
    assert ring.known(again[1]) is None and ring.known(third[1]) is None
    with pytest.raises(Conflict):
        await ring.rotate(key.id, 60)
    assert await ring.rotate("key_nobody", 0) is None


async def test_a_bootstrap_key_is_not_rotated_it_would_come_back() -> None:
    ring = await Process().started(["svc-bootstrap-key-1"])
    known = ring.known("svc-bootstrap-key-1")
    assert known is not None
    with pytest.raises(Conflict) as refused:
        await ring.rotate(known.key_id, 0)
    assert refused.value.code == "key_of_settings" and ring.known("svc-bootstrap-key-1") is known


async def test_a_key_that_callers_have_already_is_taken_over_once() -> None:
    process = Process()
    ring = await process.started()
    key, text = await ring.create("legacy", text="agw_12.old-secret-text")
    assert text == "agw_12.old-secret-text" and ring.known(text) is not None
    rotated = await ring.rotate(key.id, 60)
    assert rotated is not None
    for taken in (text, rotated[1], "admin-key-of-the-operator"):
        with pytest.raises(Conflict):
            await ring.create("twin", text=taken)
    assert len(process.store.table) == 1


async def test_only_hashes_are_kept() -> None:
    process = Process()
    ring = await process.started()
    key, first = await ring.create("app")
    rotated = await ring.rotate(key.id, 60)
    assert rotated is not None
    kept = msgspec.json.encode(list(process.store.table.values())).decode()
    for text in (first, rotated[1]):
        assert text not in kept and text.partition(".")[2] not in kept and keyed_hash(b"p", text) in kept


async def test_a_look_under_way_does_not_undo_a_revocation() -> None:
    class Slow(MemoryKeys):
        async def changes(self) -> list[ServiceKey]:
            read = await super().changes()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return read

    clock, store = HandClock(), Slow()
    ring = KeyRing(store=store, pepper=b"p", admin_key="admin", clock=clock, ids=Ids(1))
    await ring.start(())
    key, text = await ring.create("app")
    looking = asyncio.create_task(ring.refresh())
    await asyncio.sleep(0)
    await ring.revoke(key.id)
    await looking
    assert ring.known(text) is None


@pytest.mark.parametrize(
    ("globs", "model", "may"),
    [
        ((), "anything", True),
        (("gpt-4o*",), "GPT-4o-mini", True),
        (("GPT-4O",), "gpt-4o", True),
        (("gpt-4o",), "gpt-4o-mini", False),
        (("claude-*", "gpt-?"), "gpt-5", True),
        (("claude-*", "gpt-?"), "gpt-4o", False),
        (("*",), "provider/model:tag", True),
        (("a.c",), "abc", False),
        (("a|b",), "a", False),
        (("a", "b*"), "a\nb", False),
    ],
)
def test_models_that_a_key_may_use(globs: tuple[str, ...], model: str, may: bool) -> None:
    principal = Principal(key_id="key_1", name="one", models=globs)
    assert may_use(principal, model) is may
    if may:
        allowed(principal, model)
        return
    with pytest.raises(Forbidden) as refused:
        allowed(principal, model)
    assert (refused.value.status, refused.value.code, refused.value.param) == (403, "model_not_allowed", "model")


HOME, AWAY = "192.0.2.7", "198.51.100.9"


async def refusal(ring: KeyRing, text: str, address: str | None) -> GatewayError | None:
    try:
        await caller(ring, f"Bearer {text}", None, address)
    except GatewayError as error:
        return error
    return None


async def test_a_key_may_be_bound_to_addresses() -> None:
    ring = await Process().started()
    _, text = await ring.create("app", KeyTerms(addresses=("192.0.2.0/24", "2001:db8::/32")))
    for address in (HOME, f"::ffff:{HOME}", "2001:db8::5"):
        assert await refusal(ring, text, address) is None
    for elsewhere in (AWAY, "2001:db9::5", "nonsense", None):
        error = await refusal(ring, text, elsewhere)
        assert error is not None and (error.status, error.code) == (403, "address_not_allowed")
        assert "192.0.2" not in error.message and "2001" not in error.message


async def test_an_address_with_too_many_wrong_keys_is_refused_unseen_but_known_keys_work() -> None:
    process = Process(failures_per_minute=3)
    ring = await process.started()
    _, text = await ring.create("app")
    for number in range(3):
        error = await refusal(ring, f"wrong-key-{number}", AWAY)
        assert isinstance(error, AuthenticationFailed) and error.code == "invalid_api_key"
    process.clock.pass_(seconds=15)
    process.store.failure = StoreUnavailable()
    error = await refusal(ring, "wrong-key-4", AWAY)
    assert isinstance(error, RateLimitExceeded)
    assert (error.status, error.code, error.retry_after) == (429, "too_many_failures", 45)
    assert await refusal(ring, text, AWAY) is None
    process.clock.pass_(seconds=45)
    assert isinstance(await refusal(ring, "wrong-key-5", AWAY), Unavailable)
    process.store.failure = None
    assert isinstance(await refusal(ring, "wrong-key-6", AWAY), AuthenticationFailed)
    assert isinstance(await refusal(ring, "wrong-key-7", HOME), AuthenticationFailed)


async def test_many_wrong_keys_at_once_are_not_more_than_so_many() -> None:
    ring = await Process(failures_per_minute=3).started()
    errors = await asyncio.gather(*(refusal(ring, f"wrong-key-{number}", AWAY) for number in range(50)))
    assert sum(isinstance(error, AuthenticationFailed) for error in errors) == 3
    assert sum(isinstance(error, RateLimitExceeded) for error in errors) == 47


async def test_the_operators_key_is_throttled_alike_and_the_right_one_passes() -> None:
    ring = await Process(failures_per_minute=2).started()
    _, service = await ring.create("app")
    for wrong in (service, "wrong-admin-key"):
        with pytest.raises(AuthenticationFailed):
            operator(ring, None, wrong, AWAY)
    with pytest.raises(RateLimitExceeded):
        operator(ring, None, "wrong-admin-key", AWAY)
    operator(ring, "Bearer admin-key-of-the-operator", None, AWAY)
    with pytest.raises(AuthenticationFailed, match="Missing"):
        operator(ring, None, None, AWAY)
    assert isinstance(await refusal(ring, "admin-key-of-the-operator", HOME), AuthenticationFailed)
