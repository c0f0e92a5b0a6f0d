"""Accounts that the gateway keeps by itself: one for each backend of the routing file with a key or address of its own.

They are ordinary accounts of the pool, named and labelled ``backend:<name>``, with a mark in their details: a keyed
digest of what they were made of. Where the mark fits, nothing is done; so any number of processes may do it at once,
and one of them at a time changes something.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import msgspec
import orjson

from poe_gateway.accounts.catalogues import Catalogues
from poe_gateway.accounts.desk import AccountDesk
from poe_gateway.accounts.incoming import MANAGED, MARK, Managed
from poe_gateway.accounts.references import References, Unresolved
from poe_gateway.accounts.store import AccountBook
from poe_gateway.accounts.terms import Terms, labels_of
from poe_gateway.accounts.visits import AccountNotFound
from poe_gateway.clock import Clock
from poe_gateway.errors import GatewayError, StoreUnavailable
from poe_gateway.metering.changes import Changes
from poe_gateway.pool.account import Account, Cause
from poe_gateway.pool.broker import Broker
from poe_gateway.routing.catalog import Catalog
from poe_gateway.routing.table import Backend, Table
from poe_gateway.routing.words import WORDS, account_fields
from poe_gateway.upstreams.base import CredentialError, Upstream

_LEASE = "managed-accounts"
_HELD = 20.0
"""Seconds after which the work of a process that died is taken over."""
_PATIENCE = 60.0
"""Seconds for which the others are waited for."""
_CATALOGUE = 10.0
"""Seconds for which a new backend's list of models is waited for."""
_PAGE = 200


class Turns(Protocol):
    """Named leases, one holder at a time. Methods raise StoreUnavailable."""

    async def acquire(self, name: str, owner: str, seconds: float) -> int:
        """Not 0 when ``owner`` holds it now."""

    async def release(self, name: str, owner: str) -> None:
        """Let others have it."""


class _Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What an account has to be."""

    backend: Backend
    provider: str
    document: dict[str, Any]
    """With references: what is sealed."""
    credentials: dict[str, Any]
    """With the key."""
    mark: str

    @property
    def key(self) -> tuple[str, str]:
        return self.provider, self.backend.label


class ManagedAccounts:
    """Keeps them. ``secret`` keys the marks; ``owner`` names this process."""

    def __init__(
        self,
        *,
        desk: AccountDesk,
        book: AccountBook,
        broker: Broker,
        catalogues: Catalogues,
        catalog: Catalog,
        upstreams: Mapping[str, Upstream],
        references: References,
        turns: Turns,
        changes: Changes,
        clock: Clock,
        secret: bytes,
        owner: str,
    ) -> None:
        self._desk = desk
        self._book = book
        self._broker = broker
        self._catalogues = catalogues
        self._catalog = catalog
        self._upstreams = upstreams
        self._references = references
        self._turns = turns
        self._changes = changes
        self._clock = clock
        self._secret = secret
        self._owner = owner

    def problems(self, table: Table) -> tuple[str, ...]:
        """What keeps backends from ever having an account: mistakes of the file. A key that is missing is none."""
        return tuple([told for backend in _keeping(table) if (told := self._wrong(backend)) is not None])

    def missing(self, table: Table) -> tuple[Unresolved, ...]:
        """References of backends that lead to nothing now."""
        found = []
        for backend in _keeping(table):
            try:
                self._references.resolved(account_fields(backend))
            except Unresolved as unresolved:
                found.append(unresolved)
        return tuple(found)

    def _wrong(self, backend: Backend) -> str | None:
        upstream = self._upstreams.get(WORDS[backend.provider].adapter)
        if upstream is None:
            return f"backends.{backend.name}: this gateway has no adapter for provider '{backend.provider}'"
        try:
            labels_of([backend.label])
            upstream.describe(self._references.resolved(account_fields(backend)))
        except Unresolved:
            return None
        except CredentialError as error:
            return f"backends.{backend.name}.{error.field}: {error.message}"
        except GatewayError as error:
            return f"backends.{backend.name}: {error}"
        return None

    async def sync(self, table: Table) -> tuple[str, ...]:
        """Make or renew the accounts that the table wants; what the operator should know. None is removed here.

        A backend whose key is missing gets no account; one that it has stays as it is. Afterwards this process knows
        the accounts and, where the provider tells them, their models. Raises StoreUnavailable.
        """
        wanted = [each for backend in _keeping(table) if (each := self._wanted(backend)) is not None]
        told: list[str] = []
        if await self._lacking(wanted):
            await self._acquire()
            try:
                for each in await self._lacking(wanted):
                    try:
                        await self._make(each)
                    except GatewayError as error:
                        told.append(f"backends.{each.backend.name}: {error}")
            finally:
                await self._turns.release(_LEASE, self._owner)
        present = await self._present()
        accounts = [present[each.key] for each in wanted if each.key in present]
        self._broker.accept(accounts)
        told += await self._load(dict.fromkeys(account.offer for account in accounts))
        return tuple(told)

    async def retire(self, table: Table) -> int:
        """Remove the accounts whose backends the table does not have any more; how many. Raises StoreUnavailable."""
        wanted = {(WORDS[backend.provider].adapter, backend.label) for backend in _keeping(table)}
        gone = [account for key, account in (await self._present()).items() if key not in wanted]
        for account in gone:
            try:
                await self._desk.delete(account.id)
            except AccountNotFound:
                continue  # another process was faster
            self._changes.record("account.delete", f"account:{account.id}", before=_told(account), actor="settings")
        return len(gone)

    def _wanted(self, backend: Backend) -> _Wanted | None:
        document = account_fields(backend)
        try:
            credentials = self._references.resolved(document)
        except Unresolved:
            return None
        provider = WORDS[backend.provider].adapter
        made_of = orjson.dumps(
            [provider, document, credentials, backend.max_inflight], option=orjson.OPT_SORT_KEYS, default=str
        )
        return _Wanted(
            backend=backend,
            provider=provider,
            document=document,
            credentials=credentials,
            mark=hmac.digest(self._secret, b"managed:" + made_of, "sha256").hex()[:32],
        )

    async def _lacking(self, wanted: Iterable[_Wanted]) -> list[_Wanted]:
        """Those whose account is not there, not as it has to be, or could not be opened the last time."""
        present = await self._present()
        return [each for each in wanted if not _fits(present.get(each.key), each)]

    async def _present(self) -> dict[tuple[str, str], Account]:
        """All managed accounts as they are stored, by provider and name."""
        found: dict[tuple[str, str], Account] = {}
        page = 1
        while True:
            accounts, total = await self._book.page(page, _PAGE, now=self._clock.now(), text=MANAGED)
            found |= {(each.provider, each.name): each for each in accounts if MARK in each.details}
            if page * _PAGE >= total:
                return found
            page += 1

    async def _acquire(self) -> None:
        deadline = self._clock.monotonic() + _PATIENCE
        while not await self._turns.acquire(_LEASE, self._owner, _HELD):
            if self._clock.monotonic() >= deadline:
                raise StoreUnavailable("another process does not finish the accounts of the backends")
            await asyncio.sleep(0.05)

    async def _make(self, wanted: _Wanted) -> None:
        backend = wanted.backend
        stranger = await self._book.find(wanted.provider, backend.label)
        if stranger is not None and MARK not in stranger.details:
            raise GatewayError(f"an account named {backend.label} exists that was made by hand; rename or delete it")
        account, created = await self._desk.upsert(
            wanted.provider,
            backend.label,
            wanted.credentials,
            terms=Terms(labels=labels_of([backend.label]), max_inflight=backend.max_inflight),
            managed=Managed(document=wanted.document, mark=wanted.mark),
        )
        told = {**_told(account), "new": created}
        self._changes.record("account.upsert", f"account:{account.id}", after=told, actor="settings")

    async def _load(self, offers: Iterable[str]) -> list[str]:
        """Have the lists of models of new offers, as far as the providers tell them soon."""
        await self._catalogues.sync()

        async def load(offer: str) -> str | None:
            try:
                async with asyncio.timeout(_CATALOGUE):
                    await self._catalogues.load(offer)
            except TimeoutError:
                return f"{offer}: its list of models did not come in time; it is asked for again later"
            except GatewayError as error:
                return f"{offer}: its list of models cannot be read ({error.code}); it is asked for again later"
            return None

        unknown = [offer for offer in offers if not self._catalog.has(offer)]
        return [told for told in await asyncio.gather(*map(load, unknown)) if told is not None]


def _keeping(table: Table) -> list[Backend]:
    return [backend for backend in table.backends.values() if backend.keeps_account]


def _fits(account: Account | None, wanted: _Wanted) -> bool:
    return account is not None and account.details[MARK] == wanted.mark and account.health.cause is not Cause.VAULT


def _told(account: Account) -> dict[str, Any]:
    return {"provider": account.provider, "name": account.name, "backend": account.name.removeprefix(MANAGED)}
