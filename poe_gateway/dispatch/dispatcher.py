"""The walk of one chat request: plan, slot, credentials, upstream, and back. The hub that asks every room in turn.

Nothing here decides: the catalogue plans, the broker chooses, ``failover`` says what follows a failure. Nothing here
waits for the database, but for a session's binding and for credentials that were not opened for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

import msgspec
from msgspec.structs import replace

from poe_gateway.auth.keys import Principal
from poe_gateway.chat import history
from poe_gateway.chat.events import Bound, ChatEvent, Finished, Measured
from poe_gateway.chat.request import ChatRequest, Message
from poe_gateway.clock import Clock
from poe_gateway.dispatch.failover import Tell, next_step
from poe_gateway.dispatch.sessions import SessionBinding, SessionBook
from poe_gateway.dispatch.stream import Answer, Attempt, ChatStream, capacity_lost
from poe_gateway.errors import GatewayError, SessionLost, Unavailable
from poe_gateway.pool import transitions
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.lease import Lease, Want
from poe_gateway.pool.outcome import AdapterDrift, Cancelled, Failure, Outcome, Rejected, Succeeded, Transient
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.routing.catalog import Catalog, Plan
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


class _Journey(msgspec.Struct, kw_only=True):
    """What one request has met so far."""

    principal: Principal
    request: ChatRequest
    request_id: str
    plan: Plan
    slot_deadline: float
    deadline: float
    session: str | None = None
    binding: SessionBinding | None = None
    attempts: int = 0
    tried: set[str] = set()
    last: UpstreamFailure | None = None


class Dispatcher:
    """Walks chat requests. One instance per process."""

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
    ) -> None:
        self._broker = broker
        self._keychain = keychain
        self._upstreams = upstreams
        self._catalog = catalog
        self._sessions = sessions
        self._telemetry = telemetry
        self._clock = clock
        self._policy = policy

    async def chat(self, principal: Principal, request: ChatRequest, request_id: str) -> ChatStream:
        """The stream of an answer whose first piece has arrived. Raises GatewayError."""
        plan = self._catalog.plan(request.model, self._broker.offers())
        now = self._clock.monotonic()
        patience = self._policy.request_timeout
        if request.timeout is not None:
            patience = min(patience, request.timeout)
        journey = _Journey(
            principal=principal,
            request=request,
            request_id=request_id,
            plan=plan,
            slot_deadline=now + min(self._policy.acquire_timeout, patience),
            deadline=now + patience,
        )
        if request.session_id is not None:
            journey.session = SessionBook.key(principal.key_id, request.session_id)
            journey.binding = await self._sessions.find(journey.session)
        while True:
            lease = await self._lease(journey)
            stream = await self._attempt(journey, lease)
            if stream is not None:
                return stream

    async def _lease(self, journey: _Journey) -> Lease:
        binding = journey.binding
        own = binding is not None and binding.account_id not in journey.tried and binding.offer in journey.plan.targets
        strict = self._policy.strict_sessions and binding is not None
        try:
            if strict and not own:
                raise SessionLost
            return await self._broker.lease(
                Want(
                    offers=frozenset(journey.plan.targets),
                    model=journey.plan.model,
                    caller=journey.principal.key_id,
                    evidence=journey.request_id,
                    deadline=journey.slot_deadline,
                    tried=frozenset(journey.tried),
                    affinity=binding.account_id if binding is not None and own else None,
                    steadfast=strict,
                )
            )
        except GatewayError:
            if journey.last is None:
                raise
            step = next_step(journey.last.outcome, journey.last.fate, 1, 1)
            assert isinstance(step, Tell)  # noqa: S101 - no attempt is left
            raise step.error from None

    async def _attempt(self, journey: _Journey, lease: Lease) -> ChatStream | None:
        """One attempt on one slot: a stream, or None when another account should be tried. Raises GatewayError."""
        journey.attempts += 1
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - requests are walked in tasks
        lease.on_revoked = task.cancel  # until the stream takes over
        kept = False
        try:
            if lease.revoked:
                raise capacity_lost()
            ref = await self._open(journey, lease)
            if ref is None:
                return None
            attempt, request, bound = self._prepare(journey, lease)
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
            raise capacity_lost() from None
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
        source = self._upstreams[attempt.provider].chat(ref, attempt.target, request, bound)
        if session is not None:
            self._sessions.busy.add(session)
        answer = Answer()
        head: list[ChatEvent] = []
        deadline = asyncio.get_running_loop().time() + max(0.05, journey.deadline - self._clock.monotonic())
        try:
            await self._first_piece(journey, attempt, source, answer, head, deadline)
        except BaseException as error:
            try:
                await source.aclose()
            finally:  # the caller may leave while the adapter cleans up
                if session is not None:
                    self._sessions.busy.discard(session)
                outcome, fate = _ended(error)
                self._settle(journey, attempt, answer, outcome, fate)
            raise
        started = self._clock.monotonic()

        def settle(outcome: Outcome, fate: Fate | None) -> None:
            if attempt.lease.closed:
                return
            if session is not None:
                self._sessions.busy.discard(session)
            self._settle(journey, attempt, answer, outcome, fate, ttft=started - attempt.lease.taken)
            if session is not None:
                self._remember(journey, attempt, request, answer, outcome)

        return ChatStream(
            request=journey.request,
            model=journey.plan.model,
            attempt=attempt,
            answer=answer,
            head=head,
            source=source,
            deadline=deadline,
            settle=settle,
        )

    async def _first_piece(
        self,
        journey: _Journey,
        attempt: Attempt,
        source: AsyncGenerator[ChatEvent, None],
        answer: Answer,
        head: list[ChatEvent],
        deadline: float,
    ) -> None:
        """Read up to the first piece of the answer. Raises UpstreamFailure for whatever goes wrong."""
        try:
            async with asyncio.timeout_at(deadline):
                async for event in source:
                    head.append(event)
                    answer.observe(event)
                    if isinstance(event, Finished) or not (isinstance(event, Measured | Bound) or answer.empty):
                        break
                else:
                    raise UpstreamFailure(Transient("the answer was cut off before it began"), Fate.ACCEPTED)
            if answer.finish == "stop" and answer.empty:
                raise UpstreamFailure(Transient("the answer was empty"), Fate.ACCEPTED)
        except TimeoutError:
            raise UpstreamFailure(Transient("no answer in time", timeout=True), Fate.UNKNOWN) from None
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
        step = next_step(outcome, fate, attempt.number, self._policy.max_attempts)
        if isinstance(step, Tell):
            raise step.error
        journey.last = failure
        journey.tried.add(attempt.lease.account.id)

    def _remember(
        self, journey: _Journey, attempt: Attempt, sent: ChatRequest, answer: Answer, outcome: Outcome
    ) -> None:
        """Bind the session to where its newest turn was answered."""
        binding = journey.binding
        session = journey.session
        assert session is not None  # noqa: S101 - only called for sessions
        if isinstance(outcome, Succeeded):
            held = binding.chain if attempt.session == "continued" and binding is not None else ()
            chain = (*held, *history.digests(sent.messages), history.answered(answer.text))
            state = answer.state or (binding.state if attempt.session == "continued" and binding is not None else None)
        elif binding is not None and attempt.session == "continued":
            # Nobody knows what the conversation holds now: the next turn starts a new one on the same account.
            chain, state = (), None
        else:
            return
        self._sessions.put(
            SessionBinding(
                id=session,
                account_id=attempt.lease.account.id,
                offer=attempt.lease.account.offer,
                model=journey.plan.key,
                state=state,
                chain=chain,
                updated_at=self._clock.now(),
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
        if lease.closed:
            return
        self._broker.settle(lease, outcome)
        self._telemetry.emit(
            AttemptFinished(
                request_id=journey.request_id,
                attempt=attempt.number,
                account_id=lease.account.id,
                provider=attempt.provider,
                model=attempt.target,
                outcome=type(outcome).__name__,
                fate=fate.value if fate is not None else None,
                ttft_seconds=ttft,
                seconds=self._clock.monotonic() - lease.taken,
                points=answer.points,
                detail=_detail(outcome),
            )
        )


def _ended(error: BaseException) -> tuple[Outcome, Fate]:
    """How an attempt ended that never began to answer. A failure that the caller's leaving overtook stays true."""
    for each in (error, error.__context__):
        if isinstance(each, UpstreamFailure):
            return each.outcome, each.fate
    return Cancelled(), Fate.UNKNOWN


def _detail(outcome: Outcome | Failure) -> str:
    return str(getattr(outcome, "detail", "") or getattr(outcome, "public", ""))
