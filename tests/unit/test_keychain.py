"""Sealed credentials are fetched ahead in batches; what is not stored does not stand in the way of the rest."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from poe_gateway.upstreams.keychain import Keychain
from poe_gateway.vault import Vault, VaultError, new_key
from tests.unit.builders import StepClock, account

VAULT = Vault((new_key(),))


class Store:
    """Credentials of the accounts with an even number."""

    def __init__(self) -> None:
        self.asked = 0

    async def credentials(self, account_id: str, credential_rev: int) -> bytes | None:
        self.asked += 1
        return (await self.credentials_of([(account_id, credential_rev)])).get((account_id, credential_rev))

    async def credentials_of(self, versions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
        return {each: VAULT.seal({"id": each[0]}) for each in versions if int(each[0]) % 2 == 0}


async def test_prefetched_credentials_are_at_hand_without_asking() -> None:
    store = Store()
    chain = Keychain(store, VAULT, StepClock())
    accounts = [account(str(number)) for number in range(1200)]
    assert [await chain.prefetch(accounts) for _ in range(4)] == [250, 250, 100, 0]
    ref = chain.at_hand(accounts[4])
    assert ref is not None and ref.credentials == {"id": "4"}
    assert store.asked == 0
    assert chain.at_hand(accounts[5]) is None
    with pytest.raises(VaultError):
        await chain.ref(accounts[5])


async def test_new_credentials_and_forgetting_end_what_is_here() -> None:
    chain = Keychain(Store(), VAULT, StepClock())
    await chain.prefetch([account("2")])
    assert chain.at_hand(account("2", credential_rev=1)) is None
    chain.forget("2")
    assert chain.at_hand(account("2")) is None


async def test_opened_credentials_lapse() -> None:
    clock = StepClock()
    chain = Keychain(Store(), VAULT, clock)
    await chain.ref(account("2"))
    clock.step(301)
    await chain.prefetch([])
    assert chain.at_hand(account("2")) is None
