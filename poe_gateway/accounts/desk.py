"""The operator's desk: everything the operator does to one account, and what he sees of all of them.

Verbs answer only when the database has taken the change. Credentials come in, are checked by their adapter and
sealed; nothing here gives them out again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from poe_gateway.accounts.bulk import AccountFilter, Applied, BulkChange, apply_to, chosen_accounts, outcome
from poe_gateway.accounts.care import AccountCare
from poe_gateway.accounts.checkup import TestReport, check_up
from poe_gateway.accounts.incoming import MARK, Managed, check_incoming
from poe_gateway.accounts.store import AccountBook
from poe_gateway.accounts.summary import Summary, summarise
from poe_gateway.accounts.terms import AS_THEY_ARE, Terms
from poe_gateway.accounts.visits import AccountNotFound, Visitor
from poe_gateway.clock import Clock, Ids
from poe_gateway.errors import InvalidRequest
from poe_gateway.outbound.guard import Guard
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.policy import DailyReset
from poe_gateway.pool.store import AccountStore
from poe_gateway.upstreams.base import CredentialError, Described, Upstream
from poe_gateway.upstreams.keychain import Keychain
from poe_gateway.vault import Vault


class AccountDesk:
    """Verbs of the operator. ``forget_sessions`` drops what conversations are bound to a deleted account;
    ``limits_changed`` is called when an account's own limit changed; ``acted`` is told what was done: account id, verb,
    detail. ``guard`` judges addresses that are handed in at run time.

    Every verb raises StoreUnavailable, and AccountNotFound where it names an account.
    """

    def __init__(
        self,
        *,
        book: AccountBook,
        store: AccountStore,
        broker: Broker,
        keychain: Keychain,
        vault: Vault,
        upstreams: Mapping[str, Upstream],
        care: AccountCare,
        visitor: Visitor,
        clock: Clock,
        ids: Ids,
        forget_sessions: Callable[[str], Awaitable[object]],
        limits_changed: Callable[[], None] = lambda: None,
        acted: Callable[[str, str, str], None] = lambda account_id, verb, detail: None,
        guard: Guard | None = None,
    ) -> None:
        self._book = book
        self._store = store
        self._broker = broker
        self._keychain = keychain
        self._vault = vault
        self._upstreams = upstreams
        self._care = care
        self._visitor = visitor
        self._clock = clock
        self._ids = ids
        self._forget_sessions = forget_sessions
        self._limits_changed = limits_changed
        self._acted = acted
        self._guard = guard

    # Accounts come and go.

    async def upsert(
        self,
        provider: str,
        name: str,
        credentials: Mapping[str, Any],
        *,
        terms: Terms = AS_THEY_ARE,
        demo: bool = False,
        managed: Managed | None = None,
    ) -> tuple[Account, bool]:
        """Store an account, or new credentials for it; True when it is new.

        The credential document is replaced as a whole and the account starts afresh, but a pause stays, and what
        ``terms`` do not give. Only ``managed`` accounts may name their key instead of holding it, and lead anywhere.
        Raises InvalidRequest or Unprocessable naming the field, never its value.
        """
        upstream = self._upstream(provider)
        name = name.strip()
        if not name or len(name) > 254 or not name.isprintable():
            raise InvalidRequest("A name of 1 to 254 printable characters is required.", param="name")
        try:
            described = upstream.describe(credentials)
        except CredentialError as error:
            raise InvalidRequest(error.message, param=error.field, code="invalid_credentials") from None
        if managed is None:
            await check_incoming(self._guard, name, credentials)
        else:
            described = replace(described, details={**described.details, MARK: managed.mark})
        try:
            sealed = self._vault.seal(credentials if managed is None else managed.document)
        except (TypeError, ValueError, OverflowError):
            # Half of a surrogate pair, a number beyond 64 bits: JSON readers take them, nothing can store them.
            raise InvalidRequest(
                "A value of the credentials cannot be stored.", param="credentials", code="invalid_credentials"
            ) from None
        applied = Applied(terms, self._clock.now())
        build = self._builder(provider, name, described, applied, demo=demo)
        account, created = await self._book.upsert(provider, name, build, sealed, self._vault.kid)
        self._keychain.forget(account.id)
        await upstream.forget(account.id)
        self._broker.accept((account,))
        self._acted(account.id, "upsert", "")
        if not created and applied.resized:
            self._limits_changed()
        if not account.demo:
            await self.retire_demo()
        self._care.catalogues.load_soon(account.offer)
        if upstream.capabilities.balance:
            self._care.newcomers.add(account.id)
        return self._broker.account(account.id) or account, created

    def _upstream(self, provider: str) -> Upstream:
        upstream = self._upstreams.get(provider)
        if upstream is None:
            known = ", ".join(sorted(self._upstreams))
            raise InvalidRequest(f"Unknown provider; known: {known}.", param="provider", code="unknown_provider")
        return upstream

    def _builder(
        self, provider: str, name: str, described: Described, applied: Applied, *, demo: bool
    ) -> Callable[[Account | None], Account]:
        now, new_id, policy = self._clock.now(), self._ids.new("acct", 16), self._broker.policy

        def build(present: Account | None) -> Account:
            account = present or Account(id=new_id, provider=provider, name=name, offer=described.offer, created_at=now)
            account = transitions.renewed_credentials(account, now)
            account = replace(
                applied(account),
                name=name,
                offer=described.offer,
                metered=described.metered,
                renews_daily=described.renews_daily,
                details=described.details,
                demo=demo,
                updated_at=now,
            )
            return transitions.as_of(account, now, policy)

        return build

    async def retire_demo(self, *, even_alone: bool = False) -> None:
        """The first real account ends the demonstration, whichever process took it in; may be repeated.

        ``even_alone``: demonstration accounts go even where there are no others.
        """
        accounts = [seat.account for seat in self._broker.seats.values()]
        demo = [account.id for account in accounts if account.demo]
        if even_alone or len(demo) < len(accounts):
            for account_id in demo:
                await self._remove(account_id)

    async def delete(self, account_id: str) -> None:
        """Remove an account with its credentials and sessions. Running answers come to their end."""
        if not await self._remove(account_id):
            raise AccountNotFound

    async def _remove(self, account_id: str) -> bool:
        account = self._broker.account(account_id) or await self._book.get(account_id)
        there = await self._book.delete(account_id)
        self._broker.remove((account_id,))
        self._keychain.forget(account_id)
        if account is not None and account.provider in self._upstreams:
            await self._upstreams[account.provider].forget(account_id)
        if there:
            self._acted(account_id, "delete", "")
            await self._forget_sessions(account_id)
        return there

    # The operator decides.

    async def pause(self, account_id: str) -> Account:
        """No new requests; running ones come to their end."""
        return await self._change(account_id, transitions.paused, "pause")

    async def resume(self, account_id: str) -> Account:
        """Undo a pause; health is what it is."""
        return await self._change(account_id, transitions.resumed, "resume")

    async def clear_cooldown(self, account_id: str) -> Account:
        """The operator vouches for the account: rests, model blocks, invalidity and even a challenge end."""
        now, policy = self._clock.now(), self._broker.policy

        def step(account: Account) -> Account:
            # Runs a second time on top of news that was not stored yet: what came after the word of the operator stays.
            return account if account.health.since > now else transitions.cleared(account, now, policy)

        account = await self._change(account_id, step, "clear_cooldown")
        self._broker.step(account_id, step)
        self._broker.pardon(account_id)
        return self._broker.account(account_id) or account

    async def set_terms(self, account_id: str, terms: Terms) -> Account:
        """New terms for one account; nothing else changes. May be repeated."""
        step = Applied(terms, self._clock.now())
        account = await self._change(account_id, step, "change", terms.in_words())
        if step.resized:
            self._limits_changed()
        return account

    async def set_terms_of(self, chosen: AccountFilter, terms: Terms, *, dry_run: bool = False) -> BulkChange:
        """New terms for all accounts that are meant; ``dry_run`` changes nothing and tells what would.

        After StoreUnavailable some are changed and some are not: it may be repeated.
        """
        now = self._clock.now()
        accounts = await chosen_accounts(self._book, chosen, now)
        step = Applied(terms, now)
        if dry_run:
            for account in accounts:
                step(account)
            return outcome(accounts, step)
        try:
            done = await apply_to(accounts, step, self._stored)
            for account_id in step.changed:
                self._acted(account_id, "change", terms.in_words())
            return done
        finally:
            if step.resized:
                self._limits_changed()

    async def _change(
        self, account_id: str, step: Callable[[Account], Account], verb: str, detail: str = ""
    ) -> Account:
        now = self._clock.now()
        changed = False

        def dated(account: Account) -> Account:
            nonlocal changed
            after = _dated(account, step(account), now)
            changed = after != account
            return after

        stored = await self._stored({account_id: dated})
        if account_id not in stored:
            raise AccountNotFound
        if changed:
            self._acted(account_id, verb, detail)
        return self._broker.account(account_id) or stored[account_id]

    async def _stored(self, steps: Mapping[str, Callable[[Account], Account]]) -> Mapping[str, Account]:
        """Change stored accounts, and have the changes in force here."""
        stored = await self._store.change(steps)
        self._broker.accept(stored.values())
        return stored

    # The operator looks.

    async def get(self, account_id: str) -> Account:
        """One account as of now."""
        return self._now(await self._visitor.account(account_id))

    async def find(self, provider: str, name: str) -> Account:
        """The account of that name, in any case, as of now."""
        account = await self._book.find(provider, name)
        if account is None:
            raise AccountNotFound
        return self._now(self._broker.account(account.id) or account)

    async def page(
        self,
        *,
        page: int,
        page_size: int,
        status: Sequence[str] = (),
        provider: str | None = None,
        min_balance: int | None = None,
        max_balance: int | None = None,
        text: str | None = None,
        labels: Sequence[str] = (),
        priority: int | None = None,
    ) -> tuple[list[Account], int]:
        """One page (from 1), oldest account first, and the number of all that fit; see ``AccountBook.page``."""
        accounts, total = await self._book.page(
            page,
            page_size,
            now=self._clock.now(),
            status=status,
            provider=provider,
            min_balance=min_balance,
            max_balance=max_balance,
            text=text,
            labels=labels,
            priority=priority,
        )
        return [self._now(account) for account in accounts], total

    def _now(self, account: Account) -> Account:
        return transitions.as_of(account, self._clock.now(), self._broker.policy)

    def summary(self) -> Summary:
        """Counts over all accounts that this process knows, as of now."""
        self._broker.tick()
        return summarise((seat.account for seat in self._broker.seats.values()), self._clock.now())

    @property
    def reset(self) -> DailyReset:
        """The configured daily renewal, to which learned reset clocks refer."""
        return self._broker.policy.reset

    def inflight(self, account_id: str) -> int:
        """Requests that this process runs on the account."""
        seat = self._broker.seats.get(account_id)
        return seat.used if seat is not None else 0

    async def test(self, account_id: str, *, force: bool = False) -> TestReport:
        """One real, cheap round trip; a failure is told, not raised. ``force``: even if the account was challenged.

        Raises SetAside, Unreadable, AccountNotFound.
        """
        return await check_up(self._visitor, self._care, self._clock, account_id, force=force)


def _dated(before: Account, after: Account, now: datetime) -> Account:
    return after if after == before else replace(after, updated_at=now)
