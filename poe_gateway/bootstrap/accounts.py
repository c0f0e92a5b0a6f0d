"""What is done with accounts besides chatting: the operator's desk, their daily care, and their upstreams' books."""

from __future__ import annotations

import msgspec

from poe_gateway.accounts.audit import BalanceAudit
from poe_gateway.accounts.books import AccountBooks
from poe_gateway.accounts.care import AccountCare
from poe_gateway.accounts.desk import AccountDesk
from poe_gateway.accounts.visits import Visitor
from poe_gateway.bootstrap.books import Books
from poe_gateway.bootstrap.lifetime import Ending
from poe_gateway.bootstrap.outside import Outside
from poe_gateway.bootstrap.pool import Pool
from poe_gateway.clock import Clock, Ids
from poe_gateway.metering.amends import Price, Row, rule_price
from poe_gateway.metering.matching import BookEntry
from poe_gateway.pool.reconcile import Reconciliation
from poe_gateway.routing.catalog import Catalog
from poe_gateway.settings import Settings
from poe_gateway.storage.account_admin import MongoAccountAdmin
from poe_gateway.storage.catalog import MongoCatalog
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.vault import Vault


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """``books``: the upstreams' own, against our ledger."""

    desk: AccountDesk
    care: AccountCare
    books: AccountBooks


def open_accounts(
    settings: Settings,
    *,
    book: MongoAccountAdmin,
    listings: MongoCatalog,
    vault: Vault,
    outside: Outside,
    pool: Pool,
    books: Books,
    catalog: Catalog,
    clock: Clock,
    ids: Ids,
    telemetry: Telemetry,
    ending: Ending,
) -> Accounts:
    """``book`` holds the accounts with their credentials; ``catalog`` is filled as catalogues are read."""
    broker, witness = pool.broker, pool.witness
    visitor = Visitor(book=book, broker=broker, keychain=outside.keychain, upstreams=outside.upstreams, clock=clock)

    def price(row: Row, entry: BookEntry) -> Price | None:
        """What an exchange costs by the upstream's book, in the row's unit."""
        return rule_price(books.pricelist.rule(row["org"], row["provider"], row["model"], row["at"]), row, entry)

    account_books = AccountBooks(
        visitor=visitor,
        broker=broker,
        rows=books.rows,
        note=books.ledger.note,
        clock=clock,
        drift=telemetry.emit,
        price=price,
    )

    def judged(account_id: str, judged: Reconciliation) -> None:
        witness.judged(account_id, judged)
        account_books.measured(account_id, judged)

    care = AccountCare(
        visitor=visitor,
        broker=broker,
        catalog=catalog,
        listings=listings,
        clock=clock,
        newcomers=settings.schedule.prewarm_concurrency,
        audit=BalanceAudit(policy=broker.policy, prices=pool.prices, alert=witness.alert, judged=judged),
    )
    ending.close(care.close)
    desk = AccountDesk(
        book=book,
        store=pool.accounts,
        broker=broker,
        keychain=outside.keychain,
        vault=vault,
        upstreams=outside.upstreams,
        care=care,
        visitor=visitor,
        clock=clock,
        ids=ids,
        forget_sessions=pool.bindings.drop_account,
        limits_changed=pool.keeper.limits_changed,
        acted=witness.acted,
        guard=outside.guard,
    )
    return Accounts(desk=desk, care=care, books=account_books)
