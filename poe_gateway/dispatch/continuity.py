"""Where a conversation goes on: the account that it leans on, what of it is sent there, what is remembered of it.

A conversation is known by its session, or without one by how it begins (``prefixes``).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
from msgspec.structs import replace

from poe_gateway.chat import history
from poe_gateway.chat.request import ChatRequest, Message
from poe_gateway.clock import Clock
from poe_gateway.dispatch.answer import Answer
from poe_gateway.dispatch.journey import Journey
from poe_gateway.dispatch.prefixes import PrefixBook, opening_of, opening_with
from poe_gateway.dispatch.sessions import SessionBinding, SessionBook
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.lease import Lease, Want
from poe_gateway.pool.outcome import Outcome, Succeeded


class SessionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How firmly a session stays where it is."""

    strict: bool = False
    """It is answered by its own account or not at all."""
    max_requests: int = 200
    max_seconds: float = 3600.0
    """After so many requests, or so long, it may choose anew."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent on one account."""

    how: str | None
    """``new``, ``continued``, ``replayed``, ``moved`` or ``borrowed``; None without a session."""
    request: ChatRequest
    """With the whole history, or what its conversation there does not hold yet."""
    bound: Mapping[str, object] | None = None
    """The upstream's conversation that it continues."""
    session: str | None = None
    """The session that remembers this turn."""


class Continuity:
    """Of one process. ``prefixes`` None: conversations without a session lean on nothing."""

    def __init__(
        self,
        *,
        broker: Broker,
        sessions: SessionBook,
        clock: Clock,
        policy: SessionPolicy,
        prefixes: PrefixBook | None = None,
    ) -> None:
        self._broker = broker
        self._sessions = sessions
        self._clock = clock
        self._policy = policy
        self._prefixes = prefixes

    async def find(self, journey: Journey) -> None:
        """Find out where the request's session lives."""
        session_id = journey.request.session_id
        if session_id is not None:
            journey.session = SessionBook.key(journey.principal.key_id, session_id)
            journey.binding = await self._sessions.find(journey.session)

    def leaning(self, journey: Journey) -> Want | None:
        """The wish with the account that it leans on; None when a strict session has lost its account."""
        want, binding = journey.want, journey.binding
        if journey.tried:
            want = replace(want, tried=frozenset(journey.tried))
        if binding is not None:
            own = binding.account_id not in journey.tried and binding.offer in journey.plan.targets
            strict = self._policy.strict
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

    def turn(self, journey: Journey, lease: Lease) -> Turn:
        """What is sent on the account of this slot."""
        request, binding, session = journey.request, journey.binding, journey.session
        if session is None:
            return Turn(how=None, request=request)
        if session in self._sessions.busy:
            # Its conversation is answering right now: this turn gets one of its own that nobody remembers.
            return Turn(how="replayed", request=replace(request, session_id=None))
        if binding is not None and binding.account_id != lease.account.id:
            own = self._broker.seats.get(binding.account_id)
            if own is not None and own.allowed and not (journey.tried or self._worn_out(binding)):
                # Its account is merely busy: this turn is answered elsewhere, the binding stays.
                lease.choice.how = "borrowed"
                return Turn(how="borrowed", request=replace(request, session_id=None))
        if binding is None:
            return Turn(how="new", request=request, session=session)
        if binding.account_id != lease.account.id:
            return Turn(how="moved", request=request, session=session)
        new: tuple[Message, ...] | None = None
        if binding.state is not None and binding.model == journey.plan.key:
            new = history.new_turns(request, binding.chain)
        if new is None:
            return Turn(how="replayed", request=request, session=session)
        sent = replace(request, messages=new)
        return Turn(how="continued", request=sent, bound=binding.state, session=session)

    def begin(self, turn: Turn) -> None:
        """The session's conversation answers from now on, until ``end``."""
        if turn.session is not None:
            self._sessions.busy.add(turn.session)

    def end(self, turn: Turn) -> None:
        """The turn is over. Once for every ``begin``."""
        if turn.session is not None:
            self._sessions.busy.discard(turn.session)

    def refused(self, journey: Journey) -> None:
        """The upstream does not go on with its conversation: the whole history goes into a new one."""
        if journey.binding is not None:
            self._sessions.drop(journey.binding.id)
            journey.binding = replace(journey.binding, state=None)

    def spoilt(self, journey: Journey) -> None:
        """The conversation has the message and no answer: it is not gone on with."""
        if journey.binding is not None:
            journey.binding = replace(journey.binding, chain=(), state=None, updated_at=self._clock.now())
            self._sessions.put(journey.binding)

    def answered(self, journey: Journey, lease: Lease, turn: Turn, answer: Answer, outcome: Outcome) -> None:
        """Remember where the newest turn was answered, so that the next one finds it."""
        shown = isinstance(outcome, Succeeded) and not journey.trail.goes_on
        if turn.session is not None:
            self._bind(journey, turn.session, lease, turn, answer, shown=shown)
        elif shown and journey.session is None and self._prefixes is not None:
            caller, request = journey.want.caller, journey.request
            opening = journey.opening or opening_with(caller, request, answer.text, answer.calls)
            self._prefixes.remember(opening, lease.account.id, self._clock.monotonic())

    def _bind(self, journey: Journey, session: str, lease: Lease, turn: Turn, answer: Answer, *, shown: bool) -> None:
        """``shown``: the caller gets this answer."""
        binding, continued = journey.binding, turn.how == "continued"
        if shown:
            held = binding.chain if continued and binding is not None else ()
            chain = (*held, *history.digests(turn.request.messages), history.answered(answer.text, answer.calls))
            state = answer.state or (binding.state if continued and binding is not None else None)
        elif binding is not None and continued:
            # Nobody knows what the conversation holds now, or it holds what the caller never saw: the next turn starts
            # a new one on the same account.
            chain, state = (), None
        else:
            return
        now = self._clock.now()
        since: datetime | None = now
        turns = 1
        stayed = binding is not None and binding.account_id == lease.account.id
        if binding is not None and stayed and not self._worn_out(binding):
            since, turns = binding.bound_at, binding.turns + 1
        self._sessions.put(
            SessionBinding(
                bound_at=since,
                turns=turns,
                id=session,
                account_id=lease.account.id,
                offer=lease.account.offer,
                model=journey.plan.key,
                state=state,
                chain=chain,
                updated_at=now,
            )
        )

    def _worn_out(self, binding: SessionBinding) -> bool:
        """Whether the session was on its account long enough to choose anew."""
        policy = self._policy
        if binding.turns >= policy.max_requests:
            return True
        since = binding.bound_at
        return since is not None and (self._clock.now() - since).total_seconds() > policy.max_seconds
