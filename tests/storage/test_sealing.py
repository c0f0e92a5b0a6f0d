"""Rotation of the Fernet key while serving, on a real MongoDB."""

from __future__ import annotations

from poe_gateway.accounts.sealing import Resealed, reseal
from poe_gateway.storage.account_admin import MongoAccountAdmin
from poe_gateway.storage.client import Database
from poe_gateway.vault import Vault, new_key
from tests.storage.making import account


async def test_the_newest_key_takes_over_everything_that_can_be_opened(db: Database) -> None:
    admin = MongoAccountAdmin(db)
    old, new, lost = new_key(), new_key(), new_key()
    before, foreign = Vault((old,)), Vault((lost,))
    ids = []
    for number in range(230):
        vault = foreign if number % 50 == 7 else before
        made, _ = await admin.upsert(
            "mock", f"a{number}", lambda _, n=number: account(n, name=f"a{n}"), vault.seal({"n": number}), vault.kid
        )
        ids.append((made.id, made.credential_rev, number))
    both = Vault((new, old))
    assert await reseal(admin, both) == Resealed(done=225, unreadable=5)
    assert await reseal(admin, both) == Resealed(done=0, unreadable=5), "twice does no harm"
    alone = Vault((new,))
    for account_id, version, number in ids:
        if number % 50 != 7:
            token = await admin.credentials(account_id, version)
            assert token is not None
            assert alone.open(token) == {"n": number}


async def test_credentials_handed_in_meanwhile_are_not_overwritten(db: Database) -> None:
    admin = MongoAccountAdmin(db)
    old, new = new_key(), new_key()
    before, both = Vault((old,)), Vault((new, old))
    made, _ = await admin.upsert("mock", "a", lambda _: account(1, name="a"), before.seal({"v": 1}), before.kid)
    [(account_id, version, token)] = await admin.sealed_otherwise(both.kid)
    # While the round works on what it read, the same version is replaced by another token.
    newer = before.seal({"v": 2})
    assert await admin.reseal(account_id, version, token, newer, before.kid)
    assert not await admin.reseal(account_id, version, token, both.reseal(token), both.kid)
    stored = await admin.credentials(made.id, made.credential_rev)
    assert stored is not None and both.open(stored) == {"v": 2}
