"""Each measured balance against our own ledger: what is explained, what was renewed, what somebody else spent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from poe_gateway.pool.account import ResetClock
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.pool.pricebook import PriceBook
from poe_gateway.pool.reconcile import Reconciliation, reconcile
from poe_gateway.pool.reset_clock import observe, renewal_between
from poe_gateway.pool.seat import Seat
from poe_gateway.telemetry.events import Alert


class BalanceAudit:
    """Judges measurements. ``alert`` is told of foreign spending; ``judged`` of every judgement (account id first)."""

    def __init__(
        self,
        *,
        policy: PoolPolicy,
        prices: PriceBook | None = None,
        alert: Callable[[Alert], None] = lambda alert: None,
        judged: Callable[[str, Reconciliation], None] = lambda account_id, judged: None,
    ) -> None:
        self._policy = policy
        self._prices = prices
        self._alert = alert
        self._judged = judged

    def measured(self, seat: Seat, points: int | None, at: datetime) -> tuple[int, ResetClock | None]:
        """``points`` were just read: the drift to carry on, and what is known of the account's own hour now."""
        account = seat.account
        balance = account.balance
        if points is None:
            return balance.drift, None
        last, reset = balance.measured_at, self._policy.reset
        result = reconcile(
            balance,
            points,
            lambda key: None if self._prices is None else self._prices.price(account.offer, key),
            last=balance.measured,
            renewal_due=last is not None and renewal_between(account, last, at, reset),
            in_flight=self._in_flight(seat),
            apart=(at - last).total_seconds() if last is not None else 0.0,
        )
        self._judged(account.id, result)
        if self._prices is not None:
            for key, cost in result.samples:
                self._prices.observe(account.offer, key, cost, 0, at)
        if result.alarm:
            self._alert(
                Alert(
                    kind="foreign_spend",
                    message="points of an account are gone that this gateway did not spend",
                    account_id=account.id,
                    fields={"points": result.amount, "measured": points, "expected": result.expected},
                )
            )
        clock: ResetClock | None = None
        if result.renewal and account.renews_daily and last is not None:
            clock = observe(account.reset_clock, last, at, reset)
        return result.drift, clock

    def _in_flight(self, seat: Seat) -> int:
        """Points that requests under way may have cost already: our own, and those of whoever holds the other slots."""
        others = max(0, self._policy.limit_of(seat.account) - seat.held)
        if not others or self._prices is None:
            return seat.reserved
        known = self._prices.prices().items()
        dearest = max((price.upper for (offer, _), price in known if offer == seat.account.offer), default=0)
        return seat.reserved + others * dearest
