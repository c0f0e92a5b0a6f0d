"""The ledger against upstreams' books, on memory stores and an upstream that keeps a book."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from poe_gateway.accounts.books import AccountBooks
from poe_gateway.errors import StoreUnavailable
from poe_gateway.metering.matching import BookEntry
from poe_gateway.metering.memory import MemoryRows
from poe_gateway.metering.rows import Correction
from poe_gateway.metering.store import Entry
from poe_gateway.pool.account import Account
from poe_gateway.pool.outcome import Transient
from poe_gateway.pool.reconcile import Kind, Reconciliation
from poe_gateway.telemetry.events import LedgerDrift
from poe_gateway.upstreams.base import AccountRef, Books, Capabilities, UpstreamFailure
from poe_gateway.upstreams.mock import MockUpstream
from tests.accounts.support import START, House

BUDGET = "budget|key|k|USD|total"
CENT = 1_000_000


class Booked(MockUpstream):
    """Keeps a book by account; ``books`` None: of none."""

    name = "booked"
    capabilities = Capabilities(books=True)

    def __init__(self) -> None:
        super().__init__()
        self.books: dict[str, list[BookEntry]] | None = {}
        self.asked: list[datetime] = []
        self.down = False

    async def read_books(self, account: AccountRef, since: datetime) -> Books | None:
        self.asked.append(since)
        if self.down:
            raise UpstreamFailure(Transient(detail="down"))
        if self.books is None:
            return None
        entries = self.books.get(account.id, [])
        return Books(since=since, entries=tuple(each for each in entries if each.at >= since))


class Site:
    """A house with one account at such an upstream, and its ledger."""

    def __init__(self) -> None:
        self.upstream = Booked()
        self.house = House(upstreams={"booked": self.upstream})
        self.rows = MemoryRows()
        self.noted: list[Correction] = []
        self.drift: list[LedgerDrift] = []
        self.books = AccountBooks(
            visitor=self.house.visitor,
            broker=self.house.broker,
            rows=self.rows,
            note=self.noted.append,
            clock=self.house.clock,
            drift=self.drift.append,
        )

    async def account(self, name: str = "one", provider: str = "booked") -> Account:
        account, _ = await self.house.desk.upsert(provider, name, {})
        await self.house.settle()
        return account

    def row(self, account: Account, number: int, seconds: float, **fields: Any) -> str:
        row_id = f"spool-{number}"
        self.rows.documents[row_id] = {
            "_id": row_id,
            "at": START + timedelta(seconds=seconds),
            "account_id": account.id,
            "provider": account.provider,
            "model": "m",
            "target": "m",
            "status": "succeeded",
            "fate": None,
            "points": 5,
            "points_estimated": True,
            "unit": "USD",
            "raw_cost": 2 * CENT,
            "billed_cost": 2 * CENT,
            "cost_source": "estimate",
            "charges": [{"b": BUDGET, "n": 2 * CENT}],
            **fields,
        }
        return row_id

    def entry(self, account: Account, name: str, seconds: float, **more: Any) -> None:
        assert self.upstream.books is not None
        found = BookEntry(**{"id": name, "at": START + timedelta(seconds=seconds), "model": "m", "points": 5, **more})
        self.upstream.books.setdefault(account.id, []).append(found)

    async def ship(self) -> None:
        """What was noted is in the database now."""
        for seq, correction in enumerate(self.noted, 1):
            await self.rows.amend(Entry("spool_b", seq, correction))


@pytest.fixture
def site() -> Site:
    return Site()


async def test_an_orphan_that_was_never_seen_gives_its_charge_back(site: Site) -> None:
    account = await site.account()
    orphan = site.row(account, 1, 0, status="orphaned")
    site.house.clock.pass_(minutes=10)
    report = await site.books.reconcile()
    assert [(each.row, each.reason, each.charges) for each in site.noted] == [(orphan, "unseen", {BUDGET: -2 * CENT})]
    assert (report.accounts, report.corrected, report.unseen) == (1, 1, 1)


async def test_an_orphan_that_was_seen_costs_what_the_book_says_and_is_decided_once(site: Site) -> None:
    account = await site.account()
    orphan = site.row(account, 1, 0, status="orphaned")
    site.entry(account, "q1", 0.5, points=8)
    site.house.clock.pass_(minutes=10)
    await site.books.reconcile()
    assert [(each.row, each.points, each.upstream_id) for each in site.noted] == [(orphan, 3, "q1")]
    await site.ship()
    site.row(account, 2, 1, status="orphaned")
    await site.books.reconcile()
    assert [(each.row, each.reason) for each in site.noted[1:]] == [("spool-2", "unseen")], "q1 is not taken twice"
    await site.ship()
    site.house.clock.pass_(minutes=30)
    assert (await site.books.reconcile()).corrected == 0


async def test_nothing_is_judged_before_it_has_settled(site: Site) -> None:
    account = await site.account()
    site.row(account, 1, 0, status="orphaned")
    site.house.clock.pass_(seconds=119)
    assert str(await site.books.reconcile()) == ""
    assert site.noted == [] and site.upstream.asked == []
    assert (await site.books.reconcile(settled=timedelta(0))).unseen == 1


async def test_an_account_without_new_rows_is_not_asked(site: Site) -> None:
    account = await site.account()
    site.house.clock.pass_(minutes=10)
    await site.books.reconcile()
    assert site.upstream.asked == []
    site.row(account, 1, 0, points_estimated=False)
    site.entry(account, "q1", 1)
    await site.books.reconcile()
    site.house.clock.pass_(hours=1)
    await site.books.reconcile()
    assert len(site.upstream.asked) == 1, "nothing came after the first look"


async def test_foreign_spending_and_missing_rows_are_told_once(site: Site) -> None:
    account = await site.account()
    site.row(account, 1, 0, points_estimated=False)
    site.entry(account, "stranger", 300, points=40)
    site.house.clock.pass_(hours=1)
    report = await site.books.reconcile()
    assert (report.foreign, report.foreign_points, report.missing, report.missing_points) == (1, 40, 1, 5)
    told = {each.kind: (each.points, each.entries, each.evidence) for each in site.drift}
    assert told == {"foreign": (40, 1, "books"), "missing": (5, 1, "books")}
    site.row(account, 2, 3600, points_estimated=False)
    site.entry(account, "q2", 3601)
    site.house.clock.pass_(hours=1)
    report = await site.books.reconcile()
    assert (report.accounts, report.foreign, report.missing) == (1, 0, 0)


async def test_an_account_without_books_keeps_its_orphans_as_reserved(site: Site) -> None:
    site.upstream.books = None
    account = await site.account()
    plain = await site.account("two", "mock")
    ids = [site.row(account, 1, 0, status="orphaned"), site.row(plain, 2, 0, status="orphaned")]
    site.house.clock.pass_(minutes=10)
    assert (await site.books.reconcile()).undecided == ids and site.noted == []
    await site.books.reconcile()
    assert len(site.upstream.asked) == 1, "it is not asked again"
    assert (await site.books.reconcile([plain.id])).undecided == [ids[1]]


async def test_a_book_that_cannot_be_read_decides_nothing(site: Site) -> None:
    account = await site.account()
    site.row(account, 1, 0, status="orphaned")
    site.house.clock.pass_(minutes=10)
    site.upstream.down = True
    report = await site.books.reconcile()
    assert report.failures == {account.id: "upstream_transient"} and site.noted == []
    site.upstream.down = False
    assert (await site.books.reconcile()).unseen == 1


async def test_keys_of_one_owner_are_compared_by_id_only(site: Site) -> None:
    one, two = await site.account("one"), await site.account("two")
    site.row(one, 1, 0, status="orphaned")
    known = site.row(two, 2, 1, upstream_id="q2", points_estimated=False)
    for account in (one, two):
        site.entry(account, "q2", 1.2, points=9)
        site.entry(account, "q3", 400)
    site.house.clock.pass_(hours=1)
    report = await site.books.reconcile()
    assert sorted(report.shared) == sorted([one.id, two.id])
    assert [(each.row, each.points) for each in site.noted] == [(known, 4)]
    assert (report.foreign, report.unseen) == (0, 0), "the orphan may be q3, or not"


async def test_the_database_is_away(site: Site) -> None:
    class Away(MemoryRows):
        async def orphans(self, account_id: str | None, before: datetime, limit: int = 1000) -> list[dict[str, Any]]:
            raise StoreUnavailable

    await site.account()
    site.books._rows = Away()
    with pytest.raises(StoreUnavailable):
        await site.books.reconcile()


@pytest.mark.parametrize(("provider", "told"), [("mock", 1), ("booked", 0)])
async def test_a_balance_tells_of_foreign_spending_where_no_book_does(site: Site, provider: str, told: int) -> None:
    account = await site.account("one", provider)
    judged = Reconciliation(kind=Kind.FOREIGN_SPEND, expected=100, measured=40, amount=60, alarm=True)
    site.books.measured(account.id, judged)
    site.books.measured(account.id, Reconciliation(kind=Kind.FOREIGN_SPEND, expected=100, measured=40, amount=60))
    assert [(each.kind, each.points, each.evidence) for each in site.drift] == [("foreign", 60, "balance")] * told
