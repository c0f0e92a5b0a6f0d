"""The money side of one request: what is reserved for it, what is written down, what is given back.

Down the walk: ``admit`` reserves rates and budgets by an estimate; ``open`` writes each attempt into the ledger
before the upstream hears of it; ``close`` writes its end and the truth; ``again`` reserves anew what a failed attempt
cost; ``finish`` gives back what was reserved and not spent. Only ``admit`` and ``again`` may wait, and only for a slice
that this process does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from poe_gateway.auth.keys import Principal
from poe_gateway.chat.request import ChatRequest
from poe_gateway.clock import Clock
from poe_gateway.dispatch.answer import Answer
from poe_gateway.dispatch.bills import NOTHING, Bill, Used, is_paid, used
from poe_gateway.dispatch.estimates import Estimate, Estimator
from poe_gateway.errors import BudgetExceeded, GatewayError, RateLimitExceeded, StoreUnavailable, Unavailable
from poe_gateway.limits.bucket import Ask, Standing
from poe_gateway.limits.limiter import Exceeded, Hold, Limiter
from poe_gateway.limits.windows import Windows
from poe_gateway.metering.learned import Learned
from poe_gateway.metering.ledger import Ledger
from poe_gateway.metering.pricelist import PriceList
from poe_gateway.metering.rows import Intent, Outcome, RowStatus
from poe_gateway.metering.spool import SpoolFailed
from poe_gateway.metering.store import orphan
from poe_gateway.money import POINTS, shown
from poe_gateway.pool.lease import Lease, Want
from poe_gateway.pool.outcome import Cancelled, Succeeded
from poe_gateway.pool.outcome import Outcome as PoolOutcome
from poe_gateway.pool.pricebook import PriceBook
from poe_gateway.routing.catalog import Plan
from poe_gateway.upstreams.base import Fate

Standings = Sequence[tuple[Ask, Standing]]


class Charge:
    """Of one request. ``open`` and ``close`` around each attempt, ``again`` between two, ``finish`` once at the end."""

    __slots__ = (
        "_charging",
        "_estimate",
        "_finished",
        "_holds",
        "_opened",
        "_plan",
        "_reserved",
        "_spent",
        "asks",
        "bill",
        "principal",
    )

    def __init__(
        self,
        charging: Charging,
        principal: Principal,
        plan: Plan,
        estimate: Estimate,
        asks: Sequence[Ask],
        hold: Hold | None,
    ) -> None:
        self.asks = asks
        self.bill = Bill()
        self._charging = charging
        self.principal = principal
        self._plan = plan
        self._estimate = estimate
        self._holds = [] if hold is None else [hold]
        self._opened: tuple[str, Intent] | None = None
        """Row and intent of the attempt that is under way."""
        self._reserved = {ask.bucket.id: ask.amount for ask in asks if _is_budget(ask) or _is_tokens(ask)}
        self._spent: dict[str, int] = {}
        """By bucket id, as is ``_reserved``."""
        self._finished = False

    def standings(self) -> Standings:
        """How the limits stand that the request counts against."""
        return self._charging.standings(self.asks)

    def open(self, lease: Lease, request_id: str, number: int, target: str, *, stream: bool) -> None:
        """An attempt is about to begin. Raises Unavailable when that cannot be written down: then it must not."""
        account = lease.account
        quote = self._estimate.quotes.get(account.provider)
        intent = Intent(
            request_id=request_id,
            attempt=number,
            at=self._charging.clock.now(),
            org=self.principal.org,
            key_id=self.principal.key_id,
            provider=account.provider,
            offer=account.offer,
            account_id=account.id,
            model=self._plan.model,
            target=target,
            stream=stream,
            unit=None if quote is None else quote.unit,
            cost=0 if quote is None else quote.amount,
            points=self._estimate.points if account.metered else 0,
            charges={
                ask.bucket.id: left for ask in self.asks if _is_budget(ask) and (left := self._left(ask.bucket.id)) > 0
            },
        )
        try:
            self._opened = self._charging.ledger.open(intent), intent
        except SpoolFailed:
            raise Unavailable(
                "The ledger cannot be written at the moment.", code="ledger_unavailable", retry_after=5
            ) from None

    def close(self, lease: Lease, outcome: PoolOutcome, fate: Fate | None, answer: Answer, seconds: float) -> None:
        """The attempt is over: what it cost is written and counted. Does nothing when none is open."""
        if self._opened is None:
            return
        row, intent = self._opened
        account, estimator = lease.account, self._charging.estimator
        own = NOTHING
        if is_paid(outcome, fate, answer):
            rule = estimator.rule(self.principal.org, account.provider, self._plan, intent.at)
            own = used(answer, account, rule, self._estimate, lease.want.expected)
        charges = self._charges(own, fate)
        succeeded = isinstance(outcome, Succeeded)
        status: RowStatus = "succeeded" if succeeded else "cancelled" if isinstance(outcome, Cancelled) else "failed"
        written = self._charging.write(
            Outcome(
                row=row,
                at=self._charging.clock.now(),
                status=status,
                outcome=type(outcome).__name__,
                fate=None if fate is None else fate.value,
                prompt_tokens=own.prompt_tokens,
                completion_tokens=own.completion_tokens,
                cached_tokens=own.cached_tokens,
                tokens_estimated=own.tokens_estimated,
                points=own.points,
                points_estimated=own.points_estimated,
                unit=own.unit,
                raw_cost=own.raw,
                billed_cost=own.billed,
                cost_source=own.source,
                price_rule=own.rule,
                upstream_id=answer.upstream_id,
                seconds=seconds,
                charges=charges,
            )
        )
        # An end that is not written counts as reserved, here as there.
        self._spend(charges if written else intent.charges)
        self._spend({ask.bucket.id: own.prompt_tokens + own.completion_tokens for ask in self.asks if _is_tokens(ask)})
        self._opened = None
        self.bill.add(own)
        if succeeded:
            estimator.observe(account, self._plan, self._estimate, answer)

    async def move(self, plan: Plan, estimate: Estimate, asks: Sequence[Ask]) -> None:
        """The request goes on with another model: its budgets must bear that one's price, and its rates of tokens
        what that one is asked. It stays one request.

        Raises like ``Charging.admit``.
        """
        self._plan, self._estimate = plan, estimate
        wanted = {_limit_of(ask): ask.amount for ask in asks}
        # A window that has begun since is not asked: the request belongs to the one in which it came.
        self.asks = [replace(ask, amount=wanted.get(_limit_of(ask), ask.amount)) for ask in self.asks]
        await self._reserve([ask for ask in self.asks if _is_budget(ask) or _is_tokens(ask)])

    async def again(self) -> None:
        """Another attempt may follow: what earlier ones cost is reserved once more. Raises like ``Charging.admit``."""
        await self._reserve([ask for ask in self.asks if _is_budget(ask)])

    async def _reserve(self, wanted: Sequence[Ask]) -> None:
        """What is lacking of these, by what is left of what was reserved before."""
        asks = [
            replace(ask, amount=lacking) for ask in wanted if (lacking := ask.amount - self._left(ask.bucket.id)) > 0
        ]
        if asks:
            self._holds.append(await self._charging.reserve(asks))
            for ask in asks:
                self._reserved[ask.bucket.id] += ask.amount

    def _left(self, bucket_id: str) -> int:
        """Reserved and not spent; below zero when more was spent."""
        return self._reserved[bucket_id] - self._spent.get(bucket_id, 0)

    def finish(self) -> None:
        """The request is over: what is reserved and not spent is free again. Idempotent."""
        if self._finished:
            return
        self._finished = True
        try:
            if self._opened is not None:  # nobody saw the end of the attempt: it counts as reserved
                row, intent = self._opened
                self._opened = None
                self._spend(intent.charges)
                self._charging.write(orphan(intent, row, self._charging.clock.now()))
        finally:
            for hold in self._holds:
                hold.settle(self._spent)
                self._spent = {}  # all of it is taken out of the first one

    def _charges(self, own: Used, fate: Fate | None) -> dict[str, int]:
        """By budget. Where nothing was spent its name stays, for a later correction concerns it."""
        charges: dict[str, int] = {}
        for ask in self.asks:
            if not _is_budget(ask):
                continue
            unit = ask.bucket.id.split("|")[3]
            spent = (own.points or 0) if unit == POINTS else (own.billed or 0) if unit == own.unit else 0
            if spent or fate is not Fate.NOT_SENT:
                charges[ask.bucket.id] = spent
            if own.billed and unit not in (POINTS, own.unit):
                self._charging.trouble(
                    f"an upstream asks for {own.unit} where a budget is kept in {unit}: it was not charged"
                )
        return charges

    def _spend(self, amounts: dict[str, int]) -> None:
        for bucket_id, amount in amounts.items():
            self._spent[bucket_id] = self._spent.get(bucket_id, 0) + amount


class Charging:
    """Of this process. ``unpriced`` ``refuse``: no request under a money budget whose price nobody knows."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        limiter: Limiter,
        windows: Windows,
        prices: PriceList,
        learned: Learned,
        points: PriceBook,
        clock: Clock,
        unpriced: str = "allow",
        trouble: Callable[[str], None] = lambda what: None,
    ) -> None:
        """``trouble``: told what the operator should know."""
        self.ledger = ledger
        self.estimator = Estimator(prices, learned, points)
        self.clock = clock
        self.trouble = trouble
        self._limiter = limiter
        self._windows = windows
        self._refuse_unpriced = unpriced == "refuse"

    async def admit(self, principal: Principal, request: ChatRequest, plan: Plan, want: Want, tokens: int) -> Charge:
        """Reserve what the request may use. ``tokens``: estimate of its prompt.

        Raises RateLimitExceeded, BudgetExceeded, Forbidden, Unavailable.
        """
        estimate, asks = self._asks(principal, request, plan, want, tokens)
        hold = await self.reserve(asks) if asks else None
        return Charge(self, principal, plan, estimate, asks, hold)

    async def readmit(self, charge: Charge, request: ChatRequest, plan: Plan, want: Want, tokens: int) -> None:
        """The same request, now with another model. Raises like ``admit``."""
        estimate, asks = self._asks(charge.principal, request, plan, want, tokens)
        await charge.move(plan, estimate, asks)

    def _asks(
        self, principal: Principal, request: ChatRequest, plan: Plan, want: Want, tokens: int
    ) -> tuple[Estimate, Sequence[Ask]]:
        now = self.clock.now()
        estimate = self.estimator.estimate(principal.org, request, plan, want, tokens, now)
        if not principal.scopes:
            return estimate, ()
        asks = self._windows.asks(
            principal.scopes,
            now,
            tokens=estimate.tokens,
            amount=lambda unit, cap: estimate.reserve(unit, cap, refuse_unpriced=self._refuse_unpriced),
        )
        return estimate, asks

    async def reserve(self, asks: Sequence[Ask]) -> Hold:
        """All of it. Raises RateLimitExceeded, BudgetExceeded, Unavailable."""
        try:
            return await self._limiter.reserve(asks)
        except Exceeded as exceeded:
            error = _refusal(exceeded)
            error.standings = self.standings(asks)
            raise error from None
        except StoreUnavailable:
            raise Unavailable(
                "The limits of this key cannot be checked at the moment.", code="database_unavailable", retry_after=5
            ) from None

    def standings(self, asks: Sequence[Ask]) -> Standings:
        """Each ask with how its bucket stands, as far as this process knows."""
        return list(zip(asks, self._limiter.standings(asks), strict=True)) if asks else []

    def write(self, outcome: Outcome) -> bool:
        """The end of an attempt. False: it cannot be kept.

        Then far too many ends wait for the disk, or the process has left: the attempt stays open in the spool and is
        charged as reserved when that is drained.
        """
        try:
            self.ledger.close(outcome)
        except SpoolFailed:
            self.trouble("the end of an attempt could not be written to the ledger; it will count as reserved")
            return False
        return True


_WHOSE = {
    "key": "this key",
    "org": "the organisation",
    "profile": "the routing profile",
    "global": "the gateway",
}


def _refusal(exceeded: Exceeded) -> GatewayError:
    """What a caller is told whose limit is reached."""
    ask, standing, retry_after = exceeded.ask, exceeded.standing, exceeded.retry_after
    kind, scope, _, *rest = ask.bucket.id.split("|")
    whose = _WHOSE.get(scope, "this key")
    error: GatewayError
    if kind == "budget":
        unit, period, *_ = rest
        window = "in all" if period == "total" else f"per {period}"
        text = f"The budget of {whose} is {shown(ask.cap, unit)} {unit} {window}"
        if ask.amount > ask.cap:
            text += f", and this request alone may cost {shown(ask.amount, unit)} {unit}."
        else:
            text += f" and used up: {shown(standing.spent, unit)} spent"
            text += f", {shown(standing.reserved, unit)} reserved by requests under way." if standing.reserved else "."
        error = BudgetExceeded(text, retry_after=retry_after)
    elif kind == "parallel":
        text = f"{whose.capitalize()} may have {ask.cap} requests at a time, and has them."
        error = RateLimitExceeded(text, retry_after=retry_after)
    else:
        counted, period = rest
        text = f"Rate limit of {whose} reached: {ask.cap} {counted} per {period}"
        if ask.amount > ask.cap:
            text, retry_after = f"{text}, and this request alone needs {ask.amount}", None
        error = RateLimitExceeded(f"{text}.", retry_after=retry_after)
    error.limited_by = kind
    return error


def _is_budget(ask: Ask) -> bool:
    return ask.bucket.kind == "budget"


def _limit_of(ask: Ask) -> str:
    """The same in every window of a budget."""
    return ask.bucket.id.rpartition("|")[0] if _is_budget(ask) else ask.bucket.id


def _is_tokens(ask: Ask) -> bool:
    return ask.bucket.kind == "rate" and not ask.bucket.counts_requests
