"""From a model's name to an answer: which legs a request takes, and what leads from one to the next.

The room ``routing`` decides (pure); here the legs are walked one after another by the dispatcher, as one request: one
charge, one record, one patience. What leads on to the next leg:

- a failure that is not the caller's, nor his own limit, nor of a message that the upstream may have;
- that the accounts of this leg cannot do what is asked: others may. What is told at the end is a failure of those
  that can, if there was one;
- under ``escalate`` also an answer that is not good enough, as long as nothing of it was sent. The newest of those is
  kept: when nothing better comes of the legs behind it, the caller gets it rather than their failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import partial

import msgspec
from msgspec.structs import replace

from poe_gateway.auth.keys import Principal, may_use
from poe_gateway.auth.public import is_public
from poe_gateway.chat import estimate
from poe_gateway.chat.request import ChatRequest, Message, TextPart
from poe_gateway.chat.tokens import prompt_tokens
from poe_gateway.clock import Clock
from poe_gateway.dispatch.canned import CannedStream
from poe_gateway.dispatch.dispatcher import Dispatcher
from poe_gateway.dispatch.planning import Planner
from poe_gateway.dispatch.stream import ChatStream
from poe_gateway.dispatch.trail import Trail
from poe_gateway.errors import GatewayError, ModelNotFound, SessionLost, UpstreamTimeout
from poe_gateway.limits.terms import Rates, Scope
from poe_gateway.pool.broker import Waits
from poe_gateway.routing.catalog import Catalog
from poe_gateway.routing.course import Asked, Course, Leg
from poe_gateway.routing.health import BackendHealth
from poe_gateway.routing.judging import poor
from poe_gateway.routing.plan import classified, classifier_request, plan_course, profile_of, usable_profiles
from poe_gateway.routing.table import EMPTY, Table
from poe_gateway.telemetry.events import Escalated
from poe_gateway.telemetry.hub import Telemetry

_PRINCIPALS = 4096
Stream = ChatStream | CannedStream
_PLAIN = Asked()
_CANNOT = frozenset({"unsupported_operation", "unsupported_content", "unsupported_parameter"})
"""Codes of what is beyond the accounts of one leg, told before anything was sent."""


class _Kept(msgspec.Struct, frozen=True):
    """An answer that was not good enough, whole and paid for. ``reason``: why, in one word."""

    stream: ChatStream
    leg: Leg
    reason: str


class Router:
    """Of one process. ``table``: the routing table that holds now."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        planner: Planner,
        catalog: Catalog,
        telemetry: Telemetry,
        clock: Clock,
        table: Callable[[], Table] = lambda: EMPTY,
        default_provider: str | None = None,
        count: Callable[[str], int] | None = None,
    ) -> None:
        """``count``: tokens of a text, for tiers that bound their context; None: they are estimated."""
        self._count = count
        self.health = BackendHealth()
        self._dispatcher = dispatcher
        self._planner = planner
        self._catalog = catalog
        self._telemetry = telemetry
        self._clock = clock
        self._table = table
        self._default_provider = default_provider
        self._principals: dict[tuple[str, int, str], tuple[Principal, Principal]] = {}
        """By profile, its limit and key: the caller as he was, and with the profile's limit."""

    async def chat(
        self,
        principal: Principal,
        request: ChatRequest,
        request_id: str,
        waiting: Waits | None = None,
        asked: Asked = _PLAIN,
    ) -> Stream:
        """The stream of an answer whose first piece has arrived. Raises GatewayError."""
        table = self._table()
        if request.operation == "load":
            return self._loaded(table, principal, request, asked)
        if table is EMPTY and self._default_provider is None and asked.provider is None and ":" not in request.model:
            return await self._dispatcher.chat(principal, request, request_id, waiting)
        trail = Trail(asked_for=request.model, deadline=self._clock.monotonic() + self._dispatcher.patience(request))
        status, code = 499, "client_gone"
        try:
            course = self._course(table, principal, request, asked)
            trail.profile = " -> ".join(course.profiles)
            trail.granted = any(may_use(principal, name) for name in course.names)
            principal = self._limited(principal, course)
            while course.classifier is not None:  # a cascade leads to another profile, which may ask again
                course = await self._classified(table, course, principal, request, request_id, trail)
            if course.reply is not None:
                self._dispatcher.close(trail, 200, None)
                status = 0
                return CannedStream(request, request.model, course.reply, trail.profile)
            if len(course.legs) > 1:
                course = self._permitted(course, principal, trail)
            stream = await self._legs(course, principal, _prepared(request, course), request_id, waiting, trail)
            status = 0
            return stream
        except GatewayError as error:
            status, code = error.status, error.code or ""
            raise
        except Exception:
            status, code = GatewayError.status, "internal_error"
            raise
        finally:
            if status:
                if trail.decision is None:
                    self._dispatcher.record(principal, request_id, Leg(model=request.model), trail)
                self._dispatcher.close(trail, status, code or None)

    def _loaded(self, table: Table, principal: Principal, request: ChatRequest, asked: Asked) -> CannedStream:
        """That the model is there for the caller: all that loading it can mean here."""
        course = self._course(table, principal, replace(request, operation="chat"), asked)
        granted = any(may_use(principal, name) for name in course.names)
        failure: GatewayError | None = None
        for leg in course.legs:
            try:
                self._planner.offered(principal, leg, granted=granted)
                break
            except GatewayError as error:
                failure = failure or error
        else:
            if failure is not None:
                raise failure
        return CannedStream(request, request.model, "", " -> ".join(course.profiles))

    def _course(self, table: Table, principal: Principal, request: ChatRequest, asked: Asked) -> Course:
        caller = routed_as(principal)
        profile = profile_of(table, **caller)
        self.health.terms(table.terms.health_window, table.terms.health_error_threshold)
        now = self._clock.monotonic()
        return plan_course(
            table,
            request.model,
            asked,
            profile,
            knows=self._catalog.knows,
            default_provider=self._default_provider,
            tokens=self._tokens(table, request),
            tool_results=_has_tool_results(request),
            healthy=lambda backend: self.health.healthy(backend, now),
            operation=request.operation,
            usable=usable_profiles(table, **caller),
        )

    def _tokens(self, table: Table, request: ChatRequest) -> int:
        """Of the prompt; counted only where a tier asks."""
        if self._count is None or all(tier.max_context_tokens is None for tier in table.tiers):
            return estimate.prompt_tokens(request)
        return prompt_tokens(request, self._count)

    def _limited(self, principal: Principal, course: Course) -> Principal:
        """The caller under the limits of the profile that is his: one count for all its callers."""
        profile = course.profile
        if profile is None or not profile.requests_per_minute:
            return principal
        key = (profile.name, profile.requests_per_minute, principal.key_id)
        known = self._principals.get(key)
        if known is None or known[0] is not principal:
            name = profile.name.replace("%", "%25").replace("|", "%7C")  # which divides the ids of buckets
            scope = Scope(kind="profile", id=name, rates=Rates(requests_minute=profile.requests_per_minute))
            known = principal, replace(principal, scopes=(*principal.scopes, scope))
            if len(self._principals) >= _PRINCIPALS:
                self._principals.clear()
            self._principals[key] = known
        return known[1]

    def _permitted(self, course: Course, principal: Principal, trail: Trail) -> Course:
        """The course without the legs that the key may not use; where it may use none the first one tells."""
        legs = tuple([leg for leg in course.legs if self._planner.may(principal, leg, granted=trail.granted)])
        return course if legs == course.legs else replace(course, legs=legs or course.legs[:1])

    async def _legs(
        self,
        course: Course,
        principal: Principal,
        request: ChatRequest,
        request_id: str,
        waiting: Waits | None,
        trail: Trail,
    ) -> ChatStream:
        kept: _Kept | None = None
        failed: GatewayError | None = None
        for number, leg in enumerate(course.legs, 1):
            if trail.attempts and self._is_late(trail):
                if kept is not None:
                    return self._fallen_back(kept, trail)
                late = UpstreamTimeout()
                late.attempts = trail.attempts
                raise late
            last = number == len(course.legs)
            judged = course.judged and not request.stream and not last
            follows = _never if last else partial(self._leads_on, trail)
            before = trail.attempts
            # With something to fall back on, what becomes of a failure is decided here.
            trail.goes_on, trail.onward = judged, follows if kept is None and failed is None else _always
            try:
                stream = await self._dispatcher.chat(principal, _at(request, leg), request_id, waiting, leg, trail)
            except GatewayError as error:
                self._note_failure(leg, error, asked=trail.attempts > before)
                if failed is None or not _is_not_there(error):
                    failed = error
                if follows(error):
                    self._escalate(course, trail, leg, error.code or "failed")
                    continue
                if kept is not None:
                    return self._fallen_back(kept, trail)
                failed.attempts = trail.attempts
                raise failed from None
            self._note(leg, well=True)
            reason = _why_poor(stream, course) if judged and not self._is_late(trail) else None
            trail.goes_on = reason is not None
            if reason is None:
                return _named(stream, leg, trail)
            await _read_out(stream)
            kept = _Kept(stream, leg, reason)
            self._escalate(course, trail, leg, reason)
        raise ModelNotFound(f"The model '{request.model[:200]}' leads nowhere.", param="model")

    def _fallen_back(self, kept: _Kept, trail: Trail) -> ChatStream:
        """The kept answer, which is over: it is read once more, and was settled when it was read first."""
        stream = _named(kept.stream, kept.leg, trail)
        stream.judged = kept.reason
        assert stream.attempt is not None and trail.decision is not None  # noqa: S101 - it was asked for and answered
        stream.attempt = replace(stream.attempt, number=trail.attempts)
        decision = trail.decision
        decision.model, decision.tier, decision.judged = stream.model, kept.leg.tier or "", kept.reason
        decision.escalations = trail.escalations
        self._dispatcher.close(trail, 200, None)
        return stream

    async def _classified(
        self, table: Table, course: Course, principal: Principal, request: ChatRequest, request_id: str, trail: Trail
    ) -> Course:
        """Ask the classifier. Whatever goes wrong with it, but for the caller's own limits, leads to a default."""
        leg, profile = course.classifier, course.profile
        assert leg is not None and profile is not None  # noqa: S101 - only called for such courses
        said: str | None = None
        before = trail.attempts
        trail.goes_on, trail.onward = True, _not_limited
        try:
            async with asyncio.timeout(profile.classifier_timeout):
                asking = classifier_request(course, request)
                stream = await self._dispatcher.chat(principal, _at(asking, leg), request_id, None, leg, trail)
                await _read_out(stream)
                said = stream.answer.text
        except TimeoutError:
            self._note(leg, well=False)
        except GatewayError as error:
            if not _not_limited(error):
                raise
            self._note_failure(leg, error, asked=trail.attempts > before)
        now = self._clock.monotonic()
        course = classified(
            table,
            course,
            said,
            tokens=self._tokens(table, request),
            tool_results=_has_tool_results(request),
            healthy=lambda backend: self.health.healthy(backend, now),
        )
        trail.profile, trail.label = " -> ".join(course.profiles), course.label or ""
        return course

    def _leads_on(self, trail: Trail, error: GatewayError) -> bool:
        return leads_on(error) and not self._is_late(trail)

    def _is_late(self, trail: Trail) -> bool:
        """Whether nobody waits any more for what another leg would say."""
        return trail.deadline is not None and self._clock.monotonic() >= trail.deadline

    def _escalate(self, course: Course, trail: Trail, leg: Leg, reason: str) -> None:
        trail.escalations += 1
        profile = course.profile.name if course.profile is not None else ""
        self._telemetry.emit(Escalated(profile=profile, tier=leg.tier or leg.model, reason=reason))

    def _note_failure(self, leg: Leg, error: GatewayError, *, asked: bool) -> None:
        """What never came to the backend says nothing of it, but that it has no account."""
        if asked or _upstreams_fault(error):
            self._note(leg, well=not _upstreams_fault(error))

    def _note(self, leg: Leg, *, well: bool) -> None:
        if leg.backend is not None:
            self.health.note(leg.backend, well, self._clock.monotonic())


def routed_as(principal: Principal) -> dict[str, str | None]:
    """Who he is to the routing table, as ``profile_of`` and ``usable_profiles`` take it."""
    if is_public(principal.key_id):
        return {"key_id": None, "key_name": None, "org": None}
    return {"key_id": principal.key_id, "key_name": principal.name, "org": principal.org}


def leads_on(error: GatewayError) -> bool:
    """Whether another model may have the request after this failure."""
    if error.unsettled or error.limited_by is not None:
        return False
    # The account that a session is bound to may be one of the next leg's.
    if _is_not_there(error) or isinstance(error, SessionLost) or error.code == "context_length_exceeded":
        return True
    return _upstreams_fault(error) or error.status == 402


def _is_not_there(error: GatewayError) -> bool:
    """Whether the leg does not have what is asked: no news to a caller whose own choice failed before."""
    return isinstance(error, ModelNotFound) or error.code == "model_not_found" or error.code in _CANNOT


def _upstreams_fault(error: GatewayError) -> bool:
    return error.status in (500, 502, 503, 504) and error.limited_by is None


def _not_limited(error: GatewayError) -> bool:
    """Not a matter of the caller's own limits and rights."""
    return error.limited_by is None and error.status not in (401, 403)


def _why_poor(stream: ChatStream, course: Course) -> str | None:
    """Why a whole answer is not good enough, in one word; None: it is."""
    answer = stream.answer
    return poor(
        answer.text,
        refused=bool(answer.refusals),
        called_tools=bool(answer.tool_calls),
        finish=answer.finish or "stop",
        minimum=course.profile.min_answer_chars if course.profile is not None else 0,
    )


def _never(error: GatewayError) -> bool:
    return False


def _always(error: GatewayError) -> bool:
    return True


def _at(request: ChatRequest, leg: Leg) -> ChatRequest:
    """The request as this leg gets it."""
    missing: Mapping[str, object] = {key: each for key, each in leg.options.items() if key not in request.parameters}
    if not missing:
        return request
    return replace(request, parameters={**request.parameters, **missing}, defaults=tuple(missing))


def _prepared(request: ChatRequest, course: Course) -> ChatRequest:
    if not course.system:
        return request
    texts = tuple([Message("system", (TextPart(text),)) for text in course.system])
    return replace(request, messages=texts + request.messages)


def _has_tool_results(request: ChatRequest) -> bool:
    """Whether this turn hands in what tools have answered, be it with words of the user behind it."""
    roles = (message.role for message in reversed(request.messages))
    return next((role for role in roles if role in ("tool", "assistant")), None) == "tool"


def _named(stream: ChatStream, leg: Leg, trail: Trail) -> ChatStream:
    """The stream with what the caller is told about its way."""
    if leg.prefix:
        stream.model = f"{leg.prefix}{stream.model}"
    stream.tier, stream.profile, stream.label = leg.tier, trail.profile, trail.label
    stream.escalations = trail.escalations
    return stream


async def _read_out(stream: ChatStream) -> None:
    """To its end, so that it is settled."""
    try:
        async with aclosing(stream.events()) as events:
            async for _ in events:
                pass
    finally:
        await stream.aclose()
