"""The proof of the right FERNET_KEY, and the shared pepper."""

from __future__ import annotations

import asyncio

import pytest

from poe_gateway.clock import Ids
from poe_gateway.storage.client import Database
from poe_gateway.storage.meta import MongoMeta, VaultMismatch
from poe_gateway.vault import Vault, new_key

OLD, NEW, WRONG = new_key(), new_key(), new_key()


@pytest.fixture
def meta(db: Database) -> MongoMeta:
    return MongoMeta(db)


async def test_an_empty_database_takes_any_key_and_remembers_it(meta: MongoMeta) -> None:
    await meta.self_test(Vault((OLD,)))
    await meta.self_test(Vault((OLD,)))
    with pytest.raises(VaultMismatch, match="FERNET_KEY") as mismatch:
        await meta.self_test(Vault((WRONG,)))
    assert WRONG not in str(mismatch.value) and OLD not in str(mismatch.value)
    await meta.self_test(Vault((OLD,)))


async def test_of_two_keys_on_an_empty_database_one_wins(meta: MongoMeta, db: Database) -> None:
    keys = [new_key() for _ in range(8)]
    results = await asyncio.gather(
        *(MongoMeta(db).self_test(Vault((key,))) for key in keys), return_exceptions=True
    )  # fmt: skip
    assert [type(each) for each in results].count(VaultMismatch) == 7
    assert results.count(None) == 1


async def test_rotation_old_then_both_then_new(meta: MongoMeta) -> None:
    for keys in ((OLD,), (NEW, OLD), (NEW,), (NEW, WRONG)):
        await meta.self_test(Vault(keys))
    with pytest.raises(VaultMismatch):
        await meta.self_test(Vault((new_key(),)))


async def test_credentials_without_proof_are_tried(meta: MongoMeta, db: Database) -> None:
    await db.credentials.insert_one({"account_id": "a", "rev": 0, "sealed": Vault((OLD,)).seal({"k": "v"})})
    with pytest.raises(VaultMismatch):
        await meta.self_test(Vault((WRONG,)))
    await meta.self_test(Vault((OLD,)))


async def test_all_processes_share_one_pepper(meta: MongoMeta, db: Database) -> None:
    vault = Vault((OLD,))
    peppers = await asyncio.gather(*(MongoMeta(db).pepper(vault, Ids()) for _ in range(10)))
    assert len(set(peppers)) == 1 and len(peppers[0]) == 32
    stored = await db.meta.find_one({"_id": "pepper"})
    assert stored is not None and peppers[0] not in stored["sealed"]


async def test_the_pepper_survives_a_rotation(meta: MongoMeta) -> None:
    pepper = await meta.pepper(Vault((OLD,)), Ids())
    assert await meta.pepper(Vault((NEW, OLD)), Ids()) == pepper
    assert await meta.pepper(Vault((NEW,)), Ids()) == pepper
    with pytest.raises(VaultMismatch):
        await meta.pepper(Vault((OLD,)), Ids())
