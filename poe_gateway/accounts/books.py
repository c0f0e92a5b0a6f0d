"""Our ledger against the upstreams' own books: orphans are decided, estimates put right, foreign spending told.

An account is read when it has rows since the last look, or orphans. Nothing is judged before it has settled, and
nothing twice: a row that was put right once stays so, and keeps its entry.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from poe_gateway.accounts.rounds import bounded
from poe_gateway.accounts.visits import Visitor
from poe_gateway.clock import Clock
from poe_gateway.errors import Conflict, GatewayError, StoreUnavailable
from poe_gateway.metering import amends
from poe_gateway.metering.amends import Price, Row, plain_price
from poe_gateway.metering.matching import TOLERANCE, BookEntry, Span, match
from poe_gateway.metering.rows import Correction
from poe_gateway.metering.store import RowFilter
from poe_gateway.pool.account import Account
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.reconcile import Reconciliation
from poe_gateway.telemetry.events import DriftKind, LedgerDrift
from poe_gateway.upstreams.base import AccountRef, Bookkeeper, Books, Upstream

SETTLED = timedelta(seconds=120)
"""Before that an upstream may not have written down what it saw."""
_FIRST = timedelta(days=1)
"""How far back the first look of a process goes."""
_OLDEST = timedelta(days=29)
"""Poe keeps its history for 30 days."""
_RUNNING = timedelta(minutes=15)
"""An answer may take so long, and its row comes at its end: until then its entry is nobody's."""
_MARGIN = 2 * TOLERANCE + _RUNNING
_PAGE = 1000
_ROWS = 20_000
"""Of one account in one look; what is beyond comes at the next one."""
_SECONDS = 120.0
_LISTED = 1000
_CONCURRENCY = 4


class LedgerRows(Protocol):
    """What is read of the ledger. Both methods raise StoreUnavailable."""

    async def rows(
        self, where: RowFilter, limit: int = 100, after: tuple[datetime, str] | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """One page, oldest first, corrections among them; ``after``: moment and id of the last one before the page."""

    async def orphans(self, account_id: str | None, before: datetime, limit: int = 1000) -> Sequence[Mapping[str, Any]]:
        """Orphaned rows that nobody has corrected, begun before a moment, oldest first."""


class BooksReport(msgspec.Struct, kw_only=True):
    """What one look at the books told. Rows are named by their ids, at most a thousand of them."""

    accounts: int = 0
    """Whose books were read."""
    rows: int = 0
    """Rows that were compared."""
    corrected: int = 0
    """Rows for which a correction was written, ``unseen`` among them."""
    unseen: int = 0
    """Attempts that never reached the upstream."""
    foreign: int = 0
    foreign_points: int = 0
    """Entries that are not ours, and what they cost."""
    missing: int = 0
    missing_points: int = 0
    """Rows that the upstream answered and its book does not have."""
    shared: list[str] = []
    """Accounts whose books have entries in common: keys of one owner. Only what has the same id is compared there."""
    undecided: list[str] = []
    """Orphans of accounts without books: they stay charged as reserved."""
    failures: dict[str, str] = {}
    """Account -> code of the error."""

    def __str__(self) -> str:
        if not (self.accounts or self.failures):
            return ""
        return (
            f"{self.accounts} books read, {self.corrected} rows put right, {self.foreign} foreign entries, "
            f"{self.missing} rows missing, {len(self.failures)} failed"
        )


class _Look(msgspec.Struct, kw_only=True):
    """One account, both sides."""

    account: Account
    span: Span
    rows: dict[str, Row]
    corrections: dict[str, Row]
    complete: bool
    """All rows up to now were read."""
    books: Books | None = None


class AccountBooks:
    """``note`` writes a correction to the ledger (raises SpoolFailed); ``drift`` is told of every difference.

    ``price``: what an exchange costs by its entry, in the row's unit.
    """

    def __init__(
        self,
        *,
        visitor: Visitor,
        broker: Broker,
        rows: LedgerRows,
        note: Callable[[Correction], None],
        clock: Clock,
        drift: Callable[[LedgerDrift], None] = lambda drift: None,
        price: Callable[[Row, BookEntry], Price | None] = plain_price,
        settled: timedelta = SETTLED,
    ) -> None:
        self._visitor = visitor
        self._broker = broker
        self._rows = rows
        self._note = note
        self._clock = clock
        self._drift = drift
        self._price = price
        self._settled = settled
        self._began = clock.now()
        self._looked: dict[str, datetime] = {}
        """Until when an account's rows have been judged."""
        self._bookless: dict[str, int] = {}
        """Accounts whose upstream said that it keeps no book of them, with the revision of their credentials."""
        self._turn = asyncio.Lock()

    def keeps(self, account: Account) -> bool:
        """Whether the upstream of this account keeps books, as far as that is known."""
        try:
            upstream = self._visitor.upstream_of(account)
        except Conflict:
            return False
        return upstream.capabilities.books and self._bookless.get(account.id) != account.credential_rev

    def measured(self, account_id: str, judged: Reconciliation) -> None:
        """A balance was judged: of accounts without books it alone tells what others spent."""
        seat = self._broker.seats.get(account_id)
        if seat is not None and judged.alarm and judged.amount > 0 and not self.keeps(seat.account):
            self._tell(seat.account, "foreign", judged.amount, 0, "balance")

    async def reconcile(
        self, account_ids: Iterable[str] | None = None, *, settled: timedelta | None = None
    ) -> BooksReport:
        """Compare the books of these accounts (default: of all) with the ledger, and write what it lacks.

        ``settled``: age from which rows and entries are judged. Raises StoreUnavailable, SpoolFailed.
        """
        async with self._turn:
            until = self._clock.now() - (self._settled if settled is None else settled)
            report = BooksReport()
            wanted = None if account_ids is None else frozenset(account_ids)
            looks = await self._look(wanted, until, report)
            for look in self._apart(looks, report):
                await self._compare(look, report)
            await self._undecided(wanted, until, report)
            return report

    async def _look(self, wanted: frozenset[str] | None, until: datetime, report: BooksReport) -> list[_Look]:
        looks: list[_Look] = []

        async def one(account_id: str) -> None:
            seat = self._broker.seats.get(account_id)
            if seat is None or not self.keeps(seat.account):
                return
            look = await self._ours(seat.account, until)
            if not look.rows:
                return
            try:
                look.books = await self._visitor.visit(
                    account_id, _reading(look.span.since - _MARGIN), evidence="books", seconds=_SECONDS
                )
            except StoreUnavailable:
                raise
            except GatewayError as error:
                report.failures[account_id] = error.code or "failed"
                return
            if look.books is None:
                self._bookless[account_id] = seat.account.credential_rev
                return
            looks.append(look)

        chosen = [account_id for account_id in self._broker.seats if wanted is None or account_id in wanted]
        try:
            await bounded(chosen, one, concurrency=_CONCURRENCY)
        except* StoreUnavailable as group:
            raise _first(group) from None
        return looks

    async def _ours(self, account: Account, until: datetime) -> _Look:
        """The account's rows since its last look, or since its oldest orphan."""
        looked = self._looked.get(account.id)
        since = until - _FIRST if looked is None else looked
        oldest = until - _OLDEST
        orphans = [row for row in await self._rows.orphans(account.id, until, 1000) if row["at"] >= oldest]
        since = min([since, *(row["at"] for row in orphans)])
        rows: dict[str, Row] = {}
        corrections: dict[str, Row] = {}
        after: tuple[datetime, str] | None = None
        where = RowFilter(account_id=account.id, since=since - _MARGIN)
        complete = False
        while not complete and len(rows) < _ROWS:
            page = await self._rows.rows(where, _PAGE, after)
            for row in page:
                if row["status"] == "correction":
                    corrections[row["corrects"]] = row
                else:
                    rows[row["_id"]] = row
            complete = len(page) < _PAGE
            if page:
                after = (page[-1]["at"], page[-1]["_id"])
        if not complete and after is not None:
            until = min(until, after[0] - _MARGIN)
        span = Span(since=since, until=until, fresh=looked or self._began)
        if not any(since <= row["at"] < until for row in rows.values()):
            rows = {}
        return _Look(account=account, span=span, rows=rows, corrections=corrections, complete=complete)

    def _apart(self, looks: list[_Look], report: BooksReport) -> list[_Look]:
        """Of accounts with a common book only what bears an id of ours stays: whose the rest is nobody can tell."""
        seen = Counter(entry.id for look in looks for entry in (look.books.entries if look.books else ()))
        for look in looks:
            assert look.books is not None  # noqa: S101 - only such are gathered
            if not any(seen[entry.id] > 1 for entry in look.books.entries):
                continue
            report.shared.append(look.account.id)
            named = {amends.ours(row, look.corrections).upstream_id for row in look.rows.values()}
            look.books = Books(
                since=look.span.until, entries=tuple(entry for entry in look.books.entries if entry.id in named)
            )
        return looks

    async def _compare(self, look: _Look, report: BooksReport) -> None:
        assert look.books is not None  # noqa: S101 - only such are gathered
        account, now = look.account, self._clock.now()
        entries = {entry.id: entry for entry in look.books.entries}
        since = look.span.since if look.books.since < look.span.since else look.books.since + TOLERANCE
        span = Span(since=since, until=look.span.until, fresh=look.span.fresh, running=_RUNNING)
        ours = [amends.ours(row, look.corrections) for row in look.rows.values()]
        # The tables of pairs may be large.
        found = await asyncio.to_thread(match, ours, look.books.entries, span)
        report.accounts += 1
        report.rows += len(ours)
        corrected: list[Correction] = []
        for row_id, entry_id in found.pairs.items():
            row = look.rows[row_id]
            if row_id in look.corrections or row["at"] >= span.until:
                continue
            entry = entries[entry_id]
            correction = amends.seen(row, entry, self._price(row, entry), by_id=row_id in found.by_id, at=now)
            if correction is not None:
                corrected.append(correction)
        for row_id in found.unseen:
            if (correction := amends.unseen(look.rows[row_id], now)) is not None:
                corrected.append(correction)
                report.unseen += 1
        for correction in corrected:
            self._note(correction)
        self._looked[account.id] = look.span.until
        self._tell_all(account, look, entries, corrected, found.foreign, found.missing, report)

    def _tell_all(
        self,
        account: Account,
        look: _Look,
        entries: Mapping[str, BookEntry],
        corrected: Sequence[Correction],
        foreign: Sequence[str],
        missing: Sequence[str],
        report: BooksReport,
    ) -> None:
        report.corrected += len(corrected)
        report.foreign += len(foreign)
        report.missing += len(missing)
        theirs = sum(entries[entry_id].points or 0 for entry_id in foreign)
        lost = sum(look.rows[row_id].get("points") or 0 for row_id in missing)
        report.foreign_points += theirs
        report.missing_points += lost
        self._tell(account, "corrected", sum(abs(each.points) for each in corrected), len(corrected), "books")
        self._tell(account, "foreign", theirs, len(foreign), "books")
        self._tell(account, "missing", lost, len(missing), "books")

    def _tell(self, account: Account, kind: DriftKind, points: int, entries: int, evidence: str) -> None:
        if points or entries:
            self._drift(
                LedgerDrift(
                    account_id=account.id,
                    provider=account.provider,
                    kind=kind,
                    points=points,
                    entries=entries,
                    evidence=evidence,
                )
            )

    async def _undecided(self, wanted: frozenset[str] | None, until: datetime, report: BooksReport) -> None:
        for row in await self._rows.orphans(None, until, _LISTED):
            account_id = row["account_id"]
            if wanted is not None and account_id not in wanted:
                continue
            seat = self._broker.seats.get(account_id)
            if seat is None or not self.keeps(seat.account):
                report.undecided.append(row["_id"])


def _reading(since: datetime) -> Callable[[Upstream, AccountRef], Any]:
    async def call(upstream: Upstream, ref: AccountRef) -> Books | None:
        return await upstream.read_books(ref, since) if isinstance(upstream, Bookkeeper) else None

    return call


def _first(group: BaseExceptionGroup[StoreUnavailable]) -> StoreUnavailable:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, StoreUnavailable)  # noqa: S101 - all of the group are
    return error
