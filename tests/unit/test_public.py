"""Callers without a key: who they are, and what they may ask for."""

from __future__ import annotations

import pytest

from poe_gateway.api.callers import caller
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.keys import may_use
from poe_gateway.auth.memory import MemoryKeys
from poe_gateway.clock import Ids
from poe_gateway.errors import AuthenticationFailed
from poe_gateway.limits.terms import Rates
from poe_gateway.routing.parse import parse
from poe_gateway.routing.plan import public_names
from tests.unit.builders import StepClock

TABLE = {
    "gateway": {"public_profile": "open"},
    "backends": {"near": {"provider": "mock"}},
    "tiers": [{"name": "local:small", "backend": "near", "model": "mock-1"}],
    "aliases": {"hint:fast": "local:small"},
    "profiles": {"open": {"mode": "dispatch", "classifier": "local:small"}},
}


def ring() -> KeyRing:
    return KeyRing(
        store=MemoryKeys(),
        pepper=b"p",
        admin_key="admin",
        clock=StepClock(),
        ids=Ids(1),
        defaults=Rates(requests_minute=3),
    )


async def test_without_a_public_profile_nobody_comes_in_without_a_key() -> None:
    keyring = ring()
    with pytest.raises(AuthenticationFailed):
        await caller(keyring, None, None, "192.0.2.1")
    keyring.public.let_in(("a",))
    await caller(keyring, None, None, "192.0.2.1")
    keyring.public.let_in(public_names(parse({})))
    with pytest.raises(AuthenticationFailed):
        await caller(keyring, None, None, "192.0.2.1")


async def test_a_wrong_or_malformed_key_is_still_wrong() -> None:
    keyring = ring()
    keyring.public.let_in(("a",))
    for authorization, x_api_key in (("Bearer nothing-known", None), ("Basic x", None), (None, "nothing-known")):
        with pytest.raises(AuthenticationFailed):
            await caller(keyring, authorization, x_api_key, "192.0.2.1")


async def test_each_address_is_a_caller_of_its_own_under_the_default_limits() -> None:
    keyring = ring()
    keyring.public.let_in(("a",))
    found = [await caller(keyring, None, None, address) for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1", None)]
    assert found[0] is found[2]
    assert len({each.key_id for each in found}) == 3
    assert {scope.rates.requests_minute for each in found for scope in each.scopes} == {3}
    one, other = [await caller(keyring, None, None, address) for address in ("2001:db8::1", "2001:db8::2")]
    assert one is other


def test_only_names_of_the_file_may_be_asked_for() -> None:
    keyring = ring()
    keyring.public.let_in(public_names(parse(TABLE)))
    principal = keyring.public.at("192.0.2.1")
    assert principal is not None
    for name in ("local:small", "hint:fast", "open", "auto", "open:latest", "mock-1"):
        assert may_use(principal, name), name
    for name in ("mock-2", "gpt-4o", "mock:mock-2", "local:*"):
        assert not may_use(principal, name), name
