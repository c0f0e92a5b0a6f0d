"""The daily care of accounts: balances, warm connections, second chances.

All of it goes through visits, so a challenged account is never contacted and none is contacted twice at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from poe_gateway.accounts.audit import BalanceAudit
from poe_gateway.accounts.catalogues import Catalogues
from poe_gateway.accounts.newcomers import Newcomers
from poe_gateway.accounts.rounds import Tally, round_over
from poe_gateway.accounts.visits import VisitFailed, Visitor
from poe_gateway.clock import Clock
from poe_gateway.errors import Conflict, GatewayError
from poe_gateway.pool import transitions
from poe_gateway.pool.account import Account, Cause, Intent, State
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.outcome import NetworkFault
from poe_gateway.pool.reset_clock import refresh_due
from poe_gateway.routing.catalog import Catalog, CatalogStore
from poe_gateway.upstreams.base import AccountRef, Reading, Upstream

_LONGEST_WAIT = timedelta(days=1)
"""Between two tries to bring an invalid account back."""


class NotMeasurable(Conflict):
    """The provider of this account tells no balance."""

    status = 400
    code = "balance_not_available"


class AccountCare:
    """Reads balances, warms accounts up, gives invalid ones another chance; ``catalogues`` reads catalogues."""

    def __init__(
        self,
        *,
        visitor: Visitor,
        broker: Broker,
        catalog: Catalog,
        listings: CatalogStore,
        clock: Clock,
        newcomers: int = 0,
        audit: BalanceAudit | None = None,
    ) -> None:
        """``newcomers``: how many accounts just handed in are measured at a time; 0: none."""
        self.audit = audit or BalanceAudit(policy=broker.policy)
        self.catalogues = Catalogues(visitor=visitor, broker=broker, catalog=catalog, listings=listings, clock=clock)
        self._visitor = visitor
        self._broker = broker
        self._clock = clock
        self.newcomers = Newcomers(
            lambda account_id: self.measure(account_id, evidence="upsert"), concurrency=newcomers
        )
        self._retried: dict[str, float] = {}

    async def close(self) -> None:
        """Stop what runs in the background."""
        await self.newcomers.close()
        await self.catalogues.close()

    # Balances.

    async def refresh(self, account_id: str) -> Account:
        """Measure the balance now; the account after it.

        Raises NotMeasurable, AccountNotFound, SetAside, Unreadable, VisitFailed, StoreUnavailable.
        """
        await self.measure(account_id, evidence="operator-refresh")
        return await self._visitor.account(account_id)

    async def measure(
        self,
        account_id: str,
        *,
        evidence: str,
        forced: bool = False,
        wanted: Callable[[Account], bool] = lambda account: True,
    ) -> Reading | None:
        """The same for duties: None when ``wanted`` says no at the last moment."""
        account = await self._visitor.account(account_id)
        if not self._visitor.upstream_of(account).capabilities.balance:
            raise NotMeasurable
        return await self._visitor.visit(
            account_id,
            lambda upstream, ref: upstream.read_balance(ref),
            evidence=evidence,
            forced=forced,
            wanted=wanted,
            news=lambda reading: self._measurement(account_id, reading, evidence),
        )

    def _measurement(self, account_id: str, reading: Reading, evidence: str) -> transitions.Measurement:
        at = self._clock.now()
        seat = self._broker.seats.get(account_id)
        drift, clock = (0, None) if seat is None else self.audit.measured(seat, reading.points, at)
        return transitions.Measurement(
            drift=drift,
            clock=clock,
            at=at,
            points=reading.points,
            subscription_active=reading.subscription_active,
            allotment=reading.allotment,
            next_grant_at=reading.next_grant_at,
            evidence=evidence,
        )

    async def refresh_many(
        self, account_ids: Iterable[str], *, concurrency: int, evidence: str = "refresh-all"
    ) -> Tally:
        """Measure several accounts, at most ``concurrency`` at a time. Failures are told in the tally."""
        return await round_over(
            list(account_ids), lambda account_id: self.measure(account_id, evidence=evidence), concurrency=concurrency
        )

    def measurable(self, states: Iterable[State]) -> list[str]:
        """Accounts in one of these states whose balance can be read, but for those that met a challenge."""
        wanted = frozenset(states)
        return [
            seat.account.id
            for seat in self._broker.seats.values()
            if seat.account.health.state in wanted
            and seat.account.health.cause is not Cause.CHALLENGED
            and self._can(seat.account, "balance")
        ]

    def recently_used(self, since: datetime, stale: datetime) -> list[str]:
        """Accounts used after ``since`` whose balance was last read before ``stale``; first those about to be renewed.

        Those too whose own grant has come since they were measured: nobody may use an account that seems empty.
        Not those that are paused or invalid, nor those that rest because they were too fast.
        """
        found: list[tuple[int, str]] = []
        now, reset = self._clock.now(), self._broker.policy.reset
        for seat in self._broker.seats.values():
            account = seat.account
            used, read = account.last_used_at, account.last_refresh_at
            if (
                ((used is not None and used >= since) or _granted_unseen(account, now))
                and (read is None or read <= stale)
                and _may_be_measured(account)
                and self._can(account, "balance")
            ):
                found.append((refresh_due(account, now, reset), account.id))
        return [account_id for _, account_id in sorted(found, key=_rank)]

    async def refresh_recent(self, *, since: datetime, stale: datetime, concurrency: int) -> Tally:
        """The duty over ``recently_used``."""
        return await round_over(
            self.recently_used(since, stale),
            lambda account_id: self.measure(account_id, evidence="refresh", wanted=_may_be_measured),
            concurrency=concurrency,
        )

    def _can(self, account: Account, capability: str) -> bool:
        try:
            return bool(getattr(self._visitor.upstream_of(account).capabilities, capability))
        except Conflict:
            return False

    # Warm connections.

    async def prewarm(self, *, concurrency: int, seconds: float, limit: int | None = None) -> Tally:
        """Open the accounts of which this process holds slots, those with most points first.

        ``seconds`` per account; at most ``limit`` accounts (default: as many as the pool can use at once).
        """
        policy = self._broker.policy
        limit = limit if limit is not None else policy.global_inflight
        seats = [
            seat
            for seat in self._broker.seats.values()
            if seat.held > 0 and seat.used == 0 and seat.allowed and self._can(seat.account, "prewarm")
        ]
        seats.sort(key=lambda seat: -(seat.account.balance.points or 0))

        async def warm(account_id: str) -> bool | None:
            return await self._visitor.visit(
                account_id, _prewarm, evidence="prewarm", seconds=seconds, wanted=self._may_be_warmed
            )

        return await round_over([seat.account.id for seat in seats[:limit]], warm, concurrency=concurrency)

    def _may_be_warmed(self, account: Account) -> bool:
        seat = self._broker.seats.get(account.id)
        return seat is not None and seat.held > 0 and transitions.why_not(account, self._clock.now()) is None

    # Second chances.

    def due_for_revalidation(self, interval: timedelta) -> list[str]:
        """Invalid accounts whose next try has come, longest untried first.

        The wait doubles with each failure (it is as long as the account has been invalid at its last failure), from
        ``interval`` up to a day. Never accounts that met a challenge or are paused.
        """
        now = self._clock.now()
        due: list[tuple[float, datetime, str]] = []
        for seat in self._broker.seats.values():
            account = seat.account
            if not _may_be_revalidated(account):
                continue
            failed = account.last_error.at if account.last_error is not None else account.health.since
            wait = min(max(interval, failed - account.health.since), _LONGEST_WAIT)
            if failed + wait <= now:
                due.append((self._retried.get(account.id, float("-inf")), failed, account.id))
        return [account_id for _, _, account_id in sorted(due)]

    async def revalidate(self, *, interval: float, limit: int = 3) -> Tally:
        """Try a few invalid accounts again, one after the other; stop when the network itself fails.

        ``interval``: seconds before the first second chance.
        """
        chosen = self.due_for_revalidation(timedelta(seconds=interval))[:limit]
        done, failures = 0, {}
        for account_id in chosen:
            self._retried[account_id] = self._clock.monotonic()
            try:
                done += await self._revalidate(account_id)
            except VisitFailed as failed:
                failures[account_id] = failed.code or "failed"
                if isinstance(failed.outcome, NetworkFault):
                    break
            except GatewayError as error:
                failures[account_id] = error.code or "failed"
        skipped = len(chosen) - done - len(failures)
        return Tally(total=len(chosen), succeeded=done, skipped=skipped, failures=failures)

    async def _revalidate(self, account_id: str) -> bool:
        account = await self._visitor.account(account_id)
        if self._can(account, "balance"):
            answer = await self.measure(account_id, evidence="revalidate", wanted=_may_be_revalidated)
            return answer is not None
        said = await self._visitor.visit(
            account_id,
            lambda upstream, ref: upstream.probe(ref),
            evidence="revalidate",
            wanted=_may_be_revalidated,
            news=lambda _: transitions.Measurement(at=self._clock.now(), points=None, evidence="revalidate"),
        )
        return said is not None


def _rank(entry: tuple[int, str]) -> int:
    return entry[0]


async def _prewarm(upstream: Upstream, ref: AccountRef) -> bool:
    await upstream.prewarm(ref)
    return True


def _may_be_measured(account: Account) -> bool:
    return (
        account.intent is Intent.ENABLED
        and account.health.state is not State.INVALID
        and account.health.cause is not Cause.RATE_LIMITED
    )


def _granted_unseen(account: Account, now: datetime) -> bool:
    granted, measured = account.balance.next_grant_at, account.balance.measured_at
    return granted is not None and granted <= now and measured is not None and measured < granted


def _may_be_revalidated(account: Account) -> bool:
    return (
        account.intent is Intent.ENABLED
        and account.health.state is State.INVALID
        and account.health.cause in (Cause.UNAUTHORIZED, Cause.VAULT)
    )
