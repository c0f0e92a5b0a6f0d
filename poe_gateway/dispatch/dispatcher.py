"""The walk of one chat request: plan, slot, credentials, upstream, and back. The hub that asks every room in turn.

Nothing here decides: the catalogue plans, the broker chooses, the guard judges, ``failover`` says what follows a
failure. Nothing here waits for the database, but for a session's binding and for credentials that were not opened for a
while.

Why this is one module although long: it is one walk. Every way out of it must give back the slot, end the session's
turn and complete the record, and that can only be seen where all of them stand together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec
from msgspec.structs import replace

from poe_gateway.auth.keys import Principal, allowed, may_use
from poe_gateway.chat import estimate, history
from poe_gateway.chat.request import ChatRequest, Message
from poe_gateway.clock import Clock
from poe_gateway.dispatch.answer import Answer
from poe_gateway.dispatch.charging import Charge, Charging
from poe_gateway.dispatch.failover import Tell, next_step
from poe_gateway.dispatch.fingerprint import fingerprint
from poe_gateway.dispatch.fitting import Fit, answered, fit
from poe_gateway.dispatch.opening import Opening
from poe_gateway.dispatch.prefixes import PrefixBook, opening_of, opening_with
from poe_gateway.dispatch.sessions import SessionBinding, SessionBook
from poe_gateway.dispatch.stream import Attempt, ChatStream, capacity_lost
from poe_gateway.dispatch.trail import Trail
from poe_gateway.errors import (
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    SessionLost,
    Unavailable,
    UpstreamFailed,
)
from poe_gateway.pool import transitions
from poe_gateway.pool.broker import Broker, Waits
from poe_gateway.pool.decision import Choice, Decision, Try
from poe_gateway.pool.guard import Verdict
from poe_gateway.pool.lease import Lease, Want
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
from poe_gateway.pool.selector import EVERY, Selector
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.routing.catalog import Catalog, Plan
from poe_gateway.routing.course import Leg
from poe_gateway.telemetry.events import AttemptFinished, Notice
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.upstreams.base import AccountRef, Fate, Upstream, UpstreamFailure
from poe_gateway.upstreams.keychain import Keychain
from poe_gateway.vault import VaultError


class WalkPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one request, in seconds and attempts."""

    acquire_timeout: float = 30.0
    request_timeout: float = 300.0
    max_attempts: int = 3
    strict_sessions: bool = False
    hold_back: float = 0.05
    """How long the first piece of a streamed answer waits while a failure can still be hidden."""
    affinity_requests: int = 200
    affinity_seconds: float = 3600.0
    """After so many requests, or so long, a session may choose anew."""
    retry_delay: float = 0.0
    """Where no other account is left, one that failed for a moment is tried again after so long, doubling up to ten
    times as long; 0: never."""


class _Journey(msgspec.Struct, kw_only=True):
    """What one request has met so far."""

    principal: Principal
    request: ChatRequest
    request_id: str
    plan: Plan
    fits: Mapping[str, Fit]
    """By provider."""
    trail: Trail
    before: int
    """Attempts of earlier legs."""
    want: Want
    deadline: float
    impatient: bool
    """The deadline is the caller's own, before the gateway's."""
    decision: Decision
    started: float
    charge: Charge | None = None
    session: str | None = None
    binding: SessionBinding | None = None
    opening: bytes | None = None
    """Of a conversation without a session that goes on."""
    attempts: int = 0
    """Of this request, earlier legs included."""
    momentary: set[str] = set()
    """Accounts whose failure may have been for a moment only."""
    again: set[str] = set()
    """Those of them that the request was, or may be, tried at once more."""
    tried: set[str] = set()
    last: UpstreamFailure | None = None
    verdict: Verdict | None = None


class Dispatcher:
    """Walks chat requests. One instance per process. ``decided`` is handed the record of every request."""

    def __init__(
        self,
        *,
        broker: Broker,
        keychain: Keychain,
        upstreams: Mapping[str, Upstream],
        catalog: Catalog,
        sessions: SessionBook,
        telemetry: Telemetry,
        clock: Clock,
        policy: WalkPolicy,
        prices: PriceBook | None = None,
        prefixes: PrefixBook | None = None,
        decided: Callable[[Decision], None] = lambda decision: None,
        charging: Charging | None = None,
        count: Callable[[str], int] | None = None,
    ) -> None:
        """``charging`` None: nothing is limited, priced or written into a ledger (rehearsals).

        ``count``: tokens of a text, for upstreams that do not tell; None: they are estimated.
        """
        self._count = count
        self._charging = charging
        self._broker = broker
        self._keychain = keychain
        self._upstreams = upstreams
        self._catalog = catalog
        self._sessions = sessions
        self._telemetry = telemetry
        self._clock = clock
        self._policy = policy
        self._prices = prices
        self._prefixes = prefixes
        self._decided = decided
        self._selectors: dict[tuple[tuple[str, ...], ...], Selector] = {}
        self._met: dict[tuple[frozenset[str], Selector], tuple[float, bool]] = {}
        """Offers and selector -> until when it is known, and whether they have an account in common."""

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
            plan = self._catalog.plan(leg.model, self._broker.offers(), leg.offers)
            if not (trail.granted or _may_use(principal, leg, plan.model)):
                allowed(principal, plan.model)
            plan, fits = self._fitting(plan, request, self._selector(principal, leg.labels))
        except GatewayError as error:
            self.record(principal, request_id, leg, trail)
            if not trail.onward(error):
                self.close(trail, error.status, error.code)
            raise
        journey = self._journey(principal, request, request_id, plan, fits, leg, trail)
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
            if request.session_id is not None:
                journey.session = SessionBook.key(principal.key_id, request.session_id)
                journey.binding = await self._sessions.find(journey.session)
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

    def _fitting(self, plan: Plan, request: ChatRequest, selector: Selector) -> tuple[Plan, dict[str, Fit]]:
        """The offers that can do what is asked, at best without emulation, and how each provider is asked.

        ``selector``: a provider of which it has no account does not keep others from emulating.

        Raises InvalidRequest when none can, UpstreamFailed when there is no adapter.
        """
        fits: dict[str, Fit] = {}
        refusal: InvalidRequest | None = None
        for provider in {offer.partition(":")[0] for offer in plan.offers}:
            upstream = self._upstreams.get(provider)
            if upstream is None:  # an account of an adapter that this version does not have
                continue
            try:
                fits[provider] = fit(request, upstream.capabilities, drop=request.lenient)
            except InvalidRequest as error:
                refusal = error
        if not fits:
            raise refusal or UpstreamFailed("Nothing here speaks to the accounts of this model.", code="no_adapter")
        if len(fits) > 1 and selector is not EVERY:
            fits = {name: each for name, each in fits.items() if self._meets(_of(plan.offers, name), selector)} or fits
        if len(fits) > 1:
            least = min(len(each.emulated) + len(each.dropped) for each in fits.values())
            fits = {name: each for name, each in fits.items() if len(each.emulated) + len(each.dropped) == least}
        targets = {offer: name for offer, name in plan.targets.items() if offer.partition(":")[0] in fits}
        if len(targets) < len(plan.targets):
            plan = replace(plan, targets=targets, offers=frozenset(targets))
        return plan, fits

    def _journey(
        self,
        principal: Principal,
        request: ChatRequest,
        request_id: str,
        plan: Plan,
        fits: Mapping[str, Fit],
        leg: Leg,
        trail: Trail,
    ) -> _Journey:
        now = self._clock.monotonic()
        patience = self.patience(request)
        if trail.deadline is not None:
            patience = max(0.0, min(patience, trail.deadline - now))
        tokens = estimate.prompt_tokens(request)
        mark = fingerprint(request, plan.key)
        decision = self.record(principal, request_id, leg, trail)
        decision.model, decision.offers = plan.model, list(plan.targets)
        decision.tokens, decision.fingerprint = tokens, mark
        return _Journey(
            principal=principal,
            request=request,
            request_id=request_id,
            plan=plan,
            fits=fits,
            trail=trail,
            before=trail.attempts,
            attempts=trail.attempts,
            deadline=now + patience,
            impatient=patience < self._policy.request_timeout,
            started=now,
            want=self.want(
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

    def may(self, principal: Principal, leg: Leg, trail: Trail) -> bool:
        """Whether the key may use the leg's model and any of its accounts. What nobody serves the walk will tell of."""
        try:
            plan = self._catalog.plan(leg.model, self._broker.offers(), leg.offers)
        except ModelNotFound:
            return True
        if not (trail.granted or _may_use(principal, leg, plan.model)):
            return False
        if not (principal.providers or principal.labels or principal.without):
            return True
        return self._meets(plan.offers, self._selector(principal, leg.labels))

    def _meets(self, offers: frozenset[str], selector: Selector) -> bool:
        """Whether any account of these offers is the selector's, in service or not."""
        now = self._clock.monotonic()
        known = self._met.get((offers, selector))
        if known is None or known[0] <= now:
            if len(self._met) >= _SELECTORS:
                self._met.clear()
            meets = any(selector.matches(seat.account) for seat in self._broker.seats_in(offers))
            known = self._met[offers, selector] = now + _KNOWN, meets
        return known[1]

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

    def want(
        self,
        principal: Principal,
        plan: Plan,
        *,
        tokens: int,
        request_id: str = "",
        fingerprint: str = "",
        deadline: float = 0.0,
        labels: tuple[str, ...] = (),
    ) -> Want:
        """What a request of this caller asks of the pool. ``labels``: only accounts that carry these as well."""
        offers, prices = plan.offers, self._prices
        return Want(
            offers=offers,
            model=plan.model,
            key=plan.key,
            caller=principal.key_id,
            evidence=request_id,
            deadline=deadline,
            selector=self._selector(principal, labels),
            need=0 if prices is None else prices.at_most(offers, plan.key, tokens),
            expected=0 if prices is None else prices.expected(offers, plan.key, tokens),
            priority=principal.priority,
            weight=principal.weight,
            fingerprint=fingerprint,
        )

    def _selector(self, principal: Principal, labels: tuple[str, ...]) -> Selector:
        key = (principal.providers, (*principal.labels, *labels), principal.without)
        if key == ((), (), ()):
            return EVERY
        selector = self._selectors.get(key)
        if selector is None:
            if len(self._selectors) >= _SELECTORS:
                self._selectors.clear()
            selector = Selector(providers=key[0], labels=key[1], without=key[2])
            self._selectors[key] = selector
        return selector

    def _decide(self, journey: _Journey, status: int, code: str | None) -> None:
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

    async def _lease(self, journey: _Journey, waiting: Waits | None) -> Lease:
        want = self._leaning(journey)
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

    async def _pause(self, journey: _Journey) -> bool:
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

    def _leaning(self, journey: _Journey) -> Want | None:
        """The wish with the account that it leans on; None when a strict session has lost its account."""
        want, binding = journey.want, journey.binding
        if journey.tried:
            want = replace(want, tried=frozenset(journey.tried))
        if binding is not None:
            own = binding.account_id not in journey.tried and binding.offer in journey.plan.targets
            strict = self._policy.strict_sessions
            if strict and not own:
                return None
            if own and (strict or not self._worn_out(binding)):
                want = replace(want, affinity=binding.account_id, steadfast=strict)
                if strict:
                    want = replace(want, offers=frozenset({binding.offer}))
        elif journey.session is None and self._prefixes is not None and not journey.tried:
            journey.opening = opening_of(want.caller, journey.request)
            if journey.opening is not None:
                account_id = self._prefixes.account(journey.opening, self._clock.monotonic())
                if account_id is not None:
                    want = replace(want, affinity=account_id, patience=0.0)
        return want

    def _worn_out(self, binding: SessionBinding) -> bool:
        """Whether the session was on its account long enough to choose anew."""
        policy = self._policy
        if binding.turns >= policy.affinity_requests:
            return True
        since = binding.bound_at
        return since is not None and (self._clock.now() - since).total_seconds() > policy.affinity_seconds

    async def _attempt(self, journey: _Journey, lease: Lease) -> ChatStream | None:
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
            attempt, request, bound = self._prepare(journey, lease)
            sent = True
            try:
                stream = await self._begin(journey, attempt, ref, request, bound)
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

    async def _open(self, journey: _Journey, lease: Lease) -> AccountRef | None:
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

    def _prepare(self, journey: _Journey, lease: Lease) -> tuple[Attempt, ChatRequest, Mapping[str, object] | None]:
        """What is sent on this account: the whole history, or only what its conversation does not hold yet."""
        request, binding = journey.request, journey.binding
        how: str | None = None
        new: tuple[Message, ...] | None = None
        bound: Mapping[str, object] | None = None
        if journey.session is not None:
            if journey.session in self._sessions.busy:
                # Its conversation is answering right now: this turn gets one of its own that nobody remembers.
                how, request = "replayed", replace(request, session_id=None)
            elif binding is None:
                how = "new"
            elif binding.account_id != lease.account.id:
                how = "moved"
                own = self._broker.seats.get(binding.account_id)
                if own is not None and own.allowed and not (journey.tried or self._worn_out(binding)):
                    # Its account is merely busy: this turn is answered elsewhere, the binding stays.
                    how, request = "borrowed", replace(request, session_id=None)
                    lease.choice.how = "borrowed"
            else:
                if binding.state is not None and binding.model == journey.plan.key:
                    new = history.new_turns(request, binding.chain)
                if new is not None:
                    how, bound, request = "continued", binding.state, replace(request, messages=new)
                else:
                    how = "replayed"
        attempt = Attempt(
            number=journey.attempts,
            lease=lease,
            provider=lease.account.provider,
            target=journey.plan.targets[lease.account.offer],
            session=how,
            fit=journey.fits[lease.account.provider],
        )
        return attempt, request, bound

    async def _begin(
        self,
        journey: _Journey,
        attempt: Attempt,
        ref: AccountRef,
        request: ChatRequest,
        bound: Mapping[str, object] | None,
    ) -> ChatStream:
        """Call the upstream and wait for its first piece. Raises UpstreamFailure. Settled but when it returns."""
        session = journey.session if request.session_id is not None else None
        upstream = self._upstreams[attempt.provider]
        source = answered(
            attempt.fit, upstream, ref, attempt.target, request, bound, salt=journey.request_id, count=self._count
        )
        if journey.charge is not None:  # nothing is sent before the first event is asked for
            journey.charge.open(
                attempt.lease, journey.request_id, attempt.number, attempt.target, stream=request.stream
            )
        if session is not None:
            self._sessions.busy.add(session)
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
                if session is not None:
                    self._sessions.busy.discard(session)
                outcome, fate = _ended(error)
                self._settle(journey, attempt, answer, self._blamed(journey, outcome), fate)
            raise

        def settle(outcome: Outcome, fate: Fate | None) -> None:
            if attempt.lease.closed:
                return
            outcome = self._blamed(journey, outcome)
            if session is not None:
                self._sessions.busy.discard(session)
            try:
                self._settle(journey, attempt, answer, outcome, fate, ttft=begun - attempt.lease.taken)
                if session is not None:
                    self._remember(journey, attempt, request, answer, outcome)
                elif isinstance(outcome, Succeeded) and not journey.trail.goes_on:
                    self._remember_opening(journey, attempt, answer)
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

    def _blamed(self, journey: _Journey, outcome: Outcome) -> Outcome:
        """A caller that has less patience than the gateway left, when its time is up: no account was too slow."""
        late = isinstance(outcome, Transient) and outcome.timeout
        if late and journey.impatient and self._clock.monotonic() >= journey.deadline - _MOMENT:
            return Cancelled()
        return outcome

    async def _open_answer(
        self, journey: _Journey, attempt: Attempt, opening: Opening, deadline: float, began: Callable[[], None]
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

    def _after(self, journey: _Journey, attempt: Attempt, failure: UpstreamFailure) -> None:
        """Decide what follows a failure before the first piece. Raises GatewayError when nothing does."""
        outcome, fate = failure.outcome, failure.fate
        if attempt.session == "continued" and fate is Fate.NOT_SENT and isinstance(outcome, Rejected | AdapterDrift):
            # The upstream refuses to continue the conversation: the history goes into a new one.
            binding = journey.binding
            if binding is not None:
                self._sessions.drop(binding.id)
                journey.binding = replace(binding, state=None)
            return
        stop = journey.verdict is not None and self._broker.ends(journey.want, journey.verdict)
        stop = stop or self._clock.monotonic() >= journey.deadline
        number = attempt.number - journey.before
        step = next_step(outcome, fate, number, number if stop else self._policy.max_attempts)
        if isinstance(step, Tell):
            step.error.unsettled = fate is Fate.UNKNOWN
            raise self._timed(journey, step.error, outcome)
        if attempt.session == "continued" and fate is not Fate.NOT_SENT and journey.binding is not None:
            # Its conversation has the message without an answer: it is not gone on with.
            journey.binding = replace(journey.binding, chain=(), state=None, updated_at=self._clock.now())
            self._sessions.put(journey.binding)
        journey.last = failure
        journey.tried.add(attempt.lease.account.id)
        if isinstance(outcome, Transient) and not outcome.timeout:
            journey.momentary.add(attempt.lease.account.id)

    def _timed(self, journey: _Journey, error: GatewayError, outcome: Failure) -> GatewayError:
        """When to come back is told of the whole pool, not of the account that was tried last."""
        if isinstance(outcome, RateLimited | Depleted):
            error.retry_after = self._broker.comes_back(journey.want)
        return error

    def _remember(
        self, journey: _Journey, attempt: Attempt, sent: ChatRequest, answer: Answer, outcome: Outcome
    ) -> None:
        """Bind the session to where its newest turn was answered."""
        binding = journey.binding
        session = journey.session
        assert session is not None  # noqa: S101 - only called for sessions
        if isinstance(outcome, Succeeded) and not journey.trail.goes_on:
            held = binding.chain if attempt.session == "continued" and binding is not None else ()
            chain = (*held, *history.digests(sent.messages), history.answered(answer.text, answer.calls))
            state = answer.state or (binding.state if attempt.session == "continued" and binding is not None else None)
        elif binding is not None and attempt.session == "continued":
            # Nobody knows what the conversation holds now, or it holds what the caller never saw: the next turn starts
            # a new one on the same account.
            chain, state = (), None
        else:
            return
        now = self._clock.now()
        since: datetime | None = now
        turns = 1
        stayed = binding is not None and binding.account_id == attempt.lease.account.id
        if binding is not None and stayed and not self._worn_out(binding):
            since, turns = binding.bound_at, binding.turns + 1
        self._sessions.put(
            SessionBinding(
                bound_at=since,
                turns=turns,
                id=session,
                account_id=attempt.lease.account.id,
                offer=attempt.lease.account.offer,
                model=journey.plan.key,
                state=state,
                chain=chain,
                updated_at=now,
            )
        )

    def _settle(
        self,
        journey: _Journey,
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

    def _book(self, journey: _Journey, attempt: Attempt, answer: Answer) -> None:
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

    def _remember_opening(self, journey: _Journey, attempt: Attempt, answer: Answer) -> None:
        """A conversation without a session: where it began, or went on."""
        if self._prefixes is None or journey.session is not None:
            return
        caller, request = journey.want.caller, journey.request
        opening = journey.opening or opening_with(caller, request, answer.text, answer.calls)
        self._prefixes.remember(opening, attempt.lease.account.id, self._clock.monotonic())


_SELECTORS = 1024
_KNOWN = 5.0
"""Seconds."""
_MOMENT = 0.05


def _of(offers: frozenset[str], provider: str) -> frozenset[str]:
    return frozenset([offer for offer in offers if offer.partition(":")[0] == provider])


def _may_use(principal: Principal, leg: Leg, model: str) -> bool:
    """By the model's public name, the same with its provider before it, or the tier's name."""
    names = [model, *([leg.prefix + model] if leg.prefix else []), *([leg.tier] if leg.tier else [])]
    return any(may_use(principal, name) for name in names)


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
