"""The walk of one chat request: plan, slot, credentials, upstream, and back. The hub that asks every room in turn.

Nothing here decides: the planner plans, the broker chooses, the guard judges, ``failover`` says what follows a
failure. Nothing here waits for the database, but for a session's binding and for credentials that were not opened for a
while.

Why this is one module although long: it is one walk. Every way out of it must give back the slot, end the session's
turn and complete the record, and that can only be seen where all of them stand together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from poe_gateway.auth.keys import Principal
from poe_gateway.chat import estimate
from poe_gateway.chat.request import ChatRequest
from poe_gateway.clock import Clock
from poe_gateway.dispatch.answer import Answer
from poe_gateway.dispatch.charging import Charging
from poe_gateway.dispatch.continuity import Continuity, Turn
from poe_gateway.dispatch.failover import Tell, next_step
from poe_gateway.dispatch.fingerprint import fingerprint
from poe_gateway.dispatch.fitting import answered
from poe_gateway.dispatch.journey import Journey, WalkPolicy
from poe_gateway.dispatch.opening import Opening
from poe_gateway.dispatch.planning import Planner, Way
from poe_gateway.dispatch.stream import Attempt, ChatStream, capacity_lost
from poe_gateway.dispatch.trail import Trail
from poe_gateway.errors import GatewayError, SessionLost, Unavailable
from poe_gateway.pool import transitions
from poe_gateway.pool.broker import Broker, Waits
from poe_gateway.pool.decision import Choice, Decision, Try
from poe_gateway.pool.lease import Lease
from poe_gateway.pool.outcome import (
    AdapterDrift,
    Cancelled,
    Depleted,
    Failure,
    Outcome,
    RateLimited,
    Rejected,
    Succeeded,
    Transient,
)
from poe_gateway.pool.pricebook import PriceBook
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.routing.catalog import Plan
from poe_gateway.routing.course import Leg
from poe_gateway.telemetry.events import AttemptFinished, Notice
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.upstreams.base import AccountRef, Fate, UpstreamFailure
from poe_gateway.upstreams.keychain import Keychain
from poe_gateway.vault import VaultError


class Dispatcher:
    """Walks chat requests. One instance per process. ``decided`` is handed the record of every request."""

    def __init__(
        self,
        *,
        broker: Broker,
        keychain: Keychain,
        planner: Planner,
        continuity: Continuity,
        telemetry: Telemetry,
        clock: Clock,
        policy: WalkPolicy,
        prices: PriceBook | None = None,
        decided: Callable[[Decision], None] = lambda decision: None,
        charging: Charging | None = None,
        count: Callable[[str], int] | None = None,
    ) -> None:
        """``charging`` None: nothing is limited, priced or written into a ledger (rehearsals).

        ``count``: tokens of a text, for upstreams that do not tell; None: they are estimated.
        """
        self._broker = broker
        self._keychain = keychain
        self._planner = planner
        self._continuity = continuity
        self._telemetry = telemetry
        self._clock = clock
        self._policy = policy
        self._prices = prices
        self._decided = decided
        self._charging = charging
        self._count = count

    async def chat(
        self,
        principal: Principal,
        request: ChatRequest,
        request_id: str,
        waiting: Waits | None = None,
        leg: Leg | None = None,
        trail: Trail | None = None,
    ) -> ChatStream:
        """The stream of an answer whose first piece has arrived. Raises GatewayError.

        ``waiting`` is told when the request has to stand in line, again after a failed attempt. ``leg``: where it is
        to be answered; None: wherever the model's name leads. ``trail``: what earlier legs left.
        """
        leg = leg or Leg(model=request.model)
        trail = trail or Trail()
        try:
            plan, ways = self._planner.plan(principal, request, leg, granted=trail.granted)
        except GatewayError as error:
            self.record(principal, request_id, leg, trail)
            if not trail.onward(error):
                self.close(trail, error.status, error.code)
            raise
        journey = self._journey(principal, request, request_id, plan, ways, leg, trail)
        try:
            if self._charging is not None:
                tokens = journey.decision.tokens
                if trail.charge is None:
                    journey.charge = trail.charge = await self._charging.admit(
                        principal, request, plan, journey.want, tokens
                    )
                else:
                    journey.charge = trail.charge
                    await self._charging.readmit(trail.charge, request, plan, journey.want, tokens)
            await self._continuity.find(journey)
            while True:
                lease = await self._lease(journey, waiting)
                stream = await self._attempt(journey, lease)
                if stream is not None:
                    return stream
                if journey.charge is not None:
                    await journey.charge.again()
        except GatewayError as error:
            error.attempts = trail.attempts = journey.attempts
            if journey.charge is not None:
                error.standings = journey.charge.standings()
            if not trail.onward(error):
                self._decide(journey, error.status, error.code)
            raise
        except asyncio.CancelledError:
            self._decide(journey, 499, "client_gone")
            raise
        except Exception:
            self._decide(journey, GatewayError.status, GatewayError.code)
            raise

    def _journey(
        self,
        principal: Principal,
        request: ChatRequest,
        request_id: str,
        plan: Plan,
        ways: Mapping[str, Way],
        leg: Leg,
        trail: Trail,
    ) -> Journey:
        now = self._clock.monotonic()
        patience = self.patience(request)
        if trail.deadline is not None:
            patience = max(0.0, min(patience, trail.deadline - now))
        tokens = estimate.prompt_tokens(request)
        mark = fingerprint(request, plan.key)
        decision = self.record(principal, request_id, leg, trail)
        decision.model, decision.offers = plan.model, list(plan.targets)
        decision.tokens, decision.fingerprint = tokens, mark
        return Journey(
            principal=principal,
            request=request,
            request_id=request_id,
            plan=plan,
            ways=ways,
            trail=trail,
            before=trail.attempts,
            attempts=trail.attempts,
            deadline=now + patience,
            impatient=patience < self._policy.request_timeout,
            want=self._planner.want(
                principal,
                plan,
                tokens=tokens,
                request_id=request_id,
                fingerprint=mark,
                deadline=now + min(self._policy.acquire_timeout, patience),
                labels=leg.labels,
            ),
            decision=decision,
        )

    def patience(self, request: ChatRequest) -> float:
        """Seconds that a request has, all legs together."""
        longest = self._policy.request_timeout
        return longest if request.timeout is None else min(longest, request.timeout)

    def record(self, principal: Principal, request_id: str, leg: Leg, trail: Trail) -> Decision:
        """The record of the request, as far as it is known when a leg begins."""
        decision = trail.decision
        if decision is None:
            decision = trail.decision = Decision(
                request_id=request_id, at=self._clock.now(), process=self._broker.epoch, key_id=principal.key_id
            )
        decision.model, decision.tier = leg.model, leg.tier or ""
        decision.asked = trail.asked_for if trail.asked_for != leg.model else ""
        decision.profile, decision.label, decision.escalations = trail.profile, trail.label, trail.escalations
        return decision

    def _decide(self, journey: Journey, status: int, code: str | None) -> None:
        """The request is over, unless another leg follows: its record is complete."""
        journey.trail.attempts = journey.attempts
        if not journey.trail.goes_on:
            self.close(journey.trail, status, code)

    def close(self, trail: Trail, status: int, code: str | None) -> None:
        """Nothing follows any more: the charge is finished, the record handed out. Idempotent."""
        trail.finish()
        decision = trail.decision
        if decision is None or trail.told:
            return
        trail.told = True
        decision.status = status
        decision.error_code = code
        decision.seconds = (self._clock.now() - decision.at).total_seconds()
        self._decided(decision)

    async def _lease(self, journey: Journey, waiting: Waits | None) -> Lease:
        want = self._continuity.leaning(journey)
        began = self._clock.monotonic()
        try:
            if want is None:
                raise SessionLost
            lease = await self._broker.lease(want, waiting)
        except GatewayError as error:
            choice = self._broker.refused(want or journey.want, error)
            choice.wait_seconds = self._clock.monotonic() - began
            journey.decision.choices.append(choice)
            if journey.last is None:
                raise
            if await self._pause(journey):
                return await self._lease(journey, waiting)
            step = next_step(journey.last.outcome, journey.last.fate, 1, 1)
            assert isinstance(step, Tell)  # noqa: S101 - no attempt is left
            raise self._timed(journey, step.error, journey.last.outcome) from None
        except asyncio.CancelledError:
            waited = self._clock.monotonic() - began
            journey.decision.choices.append(Choice(how="client_gone", need=journey.want.need, wait_seconds=waited))
            raise
        if lease.choice.how == "affinity" and journey.session is None:
            lease.choice.how = "prefix"
        journey.decision.choices.append(lease.choice)
        return lease

    async def _pause(self, journey: Journey) -> bool:
        """Wait a little when accounts are left whose failure may have been for a moment; False: none is."""
        if not journey.momentary or not self._policy.retry_delay:
            return False
        tries = journey.attempts - journey.before
        delay = min(self._policy.retry_delay * 2 ** (tries - 1), self._policy.retry_delay * 10)
        if self._clock.monotonic() + delay >= journey.want.deadline:
            return False
        await asyncio.sleep(delay)
        journey.tried -= journey.momentary
        journey.again |= journey.momentary
        journey.momentary.clear()
        return True

    async def _attempt(self, journey: Journey, lease: Lease) -> ChatStream | None:
        """One attempt on one slot: a stream, or None when another account should be tried. Raises GatewayError."""
        journey.attempts += 1
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - requests are walked in tasks
        lease.on_revoked = task.cancel  # until the stream takes over
        kept = sent = False
        try:
            if lease.revoked:
                raise capacity_lost()
            ref = await self._open(journey, lease)
            if ref is None:
                return None
            turn = self._continuity.turn(journey, lease)
            attempt = Attempt(
                number=journey.attempts,
                lease=lease,
                provider=lease.account.provider,
                target=journey.plan.targets[lease.account.offer],
                session=turn.how,
                fit=journey.ways[lease.account.provider].fit,
            )
            sent = True
            try:
                stream = await self._begin(journey, attempt, ref, turn)
            except UpstreamFailure as failure:
                self._after(journey, attempt, failure)
                return None
            kept = True
            return stream
        except asyncio.CancelledError:
            if not lease.revoked:
                raise
            task.uncancel()
            lost = capacity_lost()
            lost.unsettled = sent
            raise lost from None
        finally:
            if not kept:
                lease.on_revoked = None
                self._broker.give_up(lease)  # does nothing when settled: no way out of here keeps the slot

    async def _open(self, journey: Journey, lease: Lease) -> AccountRef | None:
        """The account's credentials, at hand as a rule; None when they cannot be read (the account is set aside)."""
        try:
            return self._keychain.at_hand(lease.account) or await self._keychain.ref(lease.account)
        except VaultError as error:
            now, detail = self._clock.now(), str(error)
            self._broker.step(lease.account.id, lambda account: transitions.unreadable(account, now, detail))
            journey.tried.add(lease.account.id)
            journey.attempts -= 1
            self._broker.give_up(lease)
            return None
        except BaseException as error:
            self._broker.give_up(lease)
            if isinstance(error, StoreUnavailable):
                raise Unavailable(
                    "The database is not reachable.", code="database_unavailable", retry_after=5
                ) from None
            raise

    async def _begin(self, journey: Journey, attempt: Attempt, ref: AccountRef, turn: Turn) -> ChatStream:
        """Call the upstream and wait for its first piece. Raises UpstreamFailure. Settled but when it returns."""
        source = answered(
            attempt.fit,
            journey.ways[attempt.provider].upstream,
            ref,
            attempt.target,
            turn.request,
            turn.bound,
            salt=journey.request_id,
            count=self._count,
        )
        if journey.charge is not None:  # nothing is sent before the first event is asked for
            stream = turn.request.stream
            journey.charge.open(attempt.lease, journey.request_id, attempt.number, attempt.target, stream=stream)
        self._continuity.begin(turn)
        answer = Answer()
        opening = Opening(source, answer)
        deadline = asyncio.get_running_loop().time() + max(0.05, journey.deadline - self._clock.monotonic())
        begun = 0.0

        def began() -> None:
            nonlocal begun
            begun = self._clock.monotonic()

        try:
            await self._open_answer(journey, attempt, opening, deadline, began)
        except BaseException as error:
            try:
                await opening.abandon()
            finally:  # the caller may leave while the adapter cleans up
                self._continuity.end(turn)
                outcome, fate = _ended(error)
                self._settle(journey, attempt, answer, self._blamed(journey, outcome), fate)
            raise

        def settle(outcome: Outcome, fate: Fate | None) -> None:
            if attempt.lease.closed:
                return
            outcome = self._blamed(journey, outcome)
            self._continuity.end(turn)
            try:
                self._settle(journey, attempt, answer, outcome, fate, ttft=begun - attempt.lease.taken)
                self._continuity.answered(journey, attempt.lease, turn, answer, outcome)
            finally:
                self._broker.give_up(attempt.lease)  # does nothing when settled
                self._decide(journey, *_told(outcome))

        return ChatStream(
            request=journey.request,
            model=journey.plan.model,
            attempt=attempt,
            answer=answer,
            head=opening.head,
            source=source,
            pending=opening.pending,
            deadline=deadline,
            settle=settle,
            charge=journey.charge,
        )

    def _blamed(self, journey: Journey, outcome: Outcome) -> Outcome:
        """A caller that has less patience than the gateway left, when its time is up: no account was too slow."""
        late = isinstance(outcome, Transient) and outcome.timeout
        if late and journey.impatient and self._clock.monotonic() >= journey.deadline - _MOMENT:
            return Cancelled()
        return outcome

    async def _open_answer(
        self, journey: Journey, attempt: Attempt, opening: Opening, deadline: float, began: Callable[[], None]
    ) -> None:
        """Read what is read before the caller sees anything. Raises UpstreamFailure for whatever goes wrong."""
        try:
            stream = journey.request.stream
            await opening.read(deadline, began, whole=not stream)
            if stream and self._policy.hold_back:
                await opening.hold_back(asyncio.get_running_loop().time() + self._policy.hold_back)
        except UpstreamFailure:
            raise
        except Exception as error:
            self._telemetry.emit(
                Notice(
                    level="error",
                    message="an adapter failed in an unforeseen way",
                    fields={
                        "provider": attempt.provider,
                        "error": type(error).__name__,
                        "request_id": journey.request_id,
                    },
                )
            )
            raise UpstreamFailure(AdapterDrift(f"unforeseen {type(error).__name__}"), Fate.UNKNOWN) from error

    def _after(self, journey: Journey, attempt: Attempt, failure: UpstreamFailure) -> None:
        """Decide what follows a failure before the first piece. Raises GatewayError when nothing does."""
        outcome, fate = failure.outcome, failure.fate
        if attempt.session == "continued" and fate is Fate.NOT_SENT and isinstance(outcome, Rejected | AdapterDrift):
            self._continuity.refused(journey)
            return
        stop = journey.verdict is not None and self._broker.ends(journey.want, journey.verdict)
        stop = stop or self._clock.monotonic() >= journey.deadline
        number = attempt.number - journey.before
        step = next_step(outcome, fate, number, number if stop else self._policy.max_attempts)
        if isinstance(step, Tell):
            step.error.unsettled = fate is Fate.UNKNOWN
            raise self._timed(journey, step.error, outcome)
        if attempt.session == "continued" and fate is not Fate.NOT_SENT:
            self._continuity.spoilt(journey)
        journey.last = failure
        journey.tried.add(attempt.lease.account.id)
        if isinstance(outcome, Transient) and not outcome.timeout:
            journey.momentary.add(attempt.lease.account.id)

    def _timed(self, journey: Journey, error: GatewayError, outcome: Failure) -> GatewayError:
        """When to come back is told of the whole pool, not of the account that was tried last."""
        if isinstance(outcome, RateLimited | Depleted):
            error.retry_after = self._broker.comes_back(journey.want)
        return error

    def _settle(
        self,
        journey: Journey,
        attempt: Attempt,
        answer: Answer,
        outcome: Outcome,
        fate: Fate | None,
        ttft: float | None = None,
    ) -> None:
        lease = attempt.lease
        if self._count is not None and (answer.discarded or not answer.empty):
            answer.reckon(journey.request, self._count)
        if journey.charge is not None:  # first: whatever became of the slot, what was spent is spent
            spent = self._clock.monotonic() - lease.taken
            journey.charge.close(lease, outcome, fate, answer, spent)
        if lease.closed:
            return
        accepted = fate is Fate.ACCEPTED or not answer.empty
        again = lease.account.id in journey.again
        verdict = journey.verdict = self._broker.settle(lease, outcome, accepted=accepted, again=again)
        now = self._clock.monotonic()
        if isinstance(outcome, Succeeded):
            self._book(journey, attempt, answer)
        fate_told = fate.value if fate is not None else None
        journey.decision.session = attempt.session or ""
        journey.decision.tries.append(
            Try(
                number=attempt.number,
                account_id=lease.account.id,
                outcome=type(outcome).__name__,
                fate=fate_told,
                detail=_detail(outcome),
                charged_to=verdict.scope if not isinstance(outcome, Succeeded | Cancelled) else "",
                withheld=verdict.withheld,
                seconds=now - lease.taken,
                ttft_seconds=ttft,
                points=answer.points,
            )
        )
        self._telemetry.emit(
            AttemptFinished(
                request_id=journey.request_id,
                attempt=attempt.number,
                account_id=lease.account.id,
                provider=attempt.provider,
                model=attempt.target,
                outcome=type(outcome).__name__,
                fate=fate_told,
                ttft_seconds=ttft,
                seconds=now - lease.taken,
                points=answer.points,
                detail=_detail(outcome),
            )
        )

    def _book(self, journey: Journey, attempt: Attempt, answer: Answer) -> None:
        """What the answer cost teaches the price book."""
        prices, account = self._prices, attempt.lease.account
        if prices is None or not account.metered:
            return
        now = self._clock.now()
        spent = answer.points
        if spent is None:
            spent = journey.want.expected
        else:
            prices.observe(account.offer, journey.plan.key, spent, journey.decision.tokens, now)
        prices.used(account.offer, journey.plan.key, spent, now)


_MOMENT = 0.05


def _told(outcome: Outcome) -> tuple[int, str | None]:
    """Status and code of an answer that had begun."""
    if isinstance(outcome, Succeeded):
        return 200, None
    if isinstance(outcome, Cancelled):
        return 499, "client_gone"
    return 200, "broke_off"


def _ended(error: BaseException) -> tuple[Outcome, Fate]:
    """How an attempt ended that never began to answer. A failure that the caller's leaving overtook stays true."""
    for each in (error, error.__context__):
        if isinstance(each, UpstreamFailure):
            return each.outcome, each.fate
    return Cancelled(), Fate.UNKNOWN


def _detail(outcome: Outcome | Failure) -> str:
    return str(getattr(outcome, "detail", "") or getattr(outcome, "public", ""))
