"""From a model's name to an answer: which legs a request takes, and what leads from one to the next.

The room ``routing`` decides (pure); here the legs are walked one after another by the dispatcher, as one request: one
charge, one record, one patience. What leads on to the next leg:

- a failure that is not the caller's, nor his own limit, nor of a message that the upstream may have;
- under ``escalate`` also an answer that is not good enough, as long as nothing of it was sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import partial

from msgspec.structs import replace

from poe_gateway.auth.keys import Principal, may_use
from poe_gateway.auth.public import is_public
from poe_gateway.chat import estimate
from poe_gateway.chat.request import ChatRequest, Message, TextPart
from poe_gateway.chat.tokens import prompt_tokens
from poe_gateway.clock import Clock
from poe_gateway.dispatch.canned import CannedStream
from poe_gateway.dispatch.dispatcher import Dispatcher
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


class Router:
    """Of one process. ``table``: the routing table that holds now."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
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

    def _course(self, table: Table, principal: Principal, request: ChatRequest, asked: Asked) -> Course:
        caller: dict[str, str | None] = {"key_id": None, "key_name": None, "org": None}
        if not is_public(principal.key_id):
            caller = {"key_id": principal.key_id, "key_name": principal.name, "org": principal.org}
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
        legs = tuple([leg for leg in course.legs if self._dispatcher.may(principal, leg, trail)])
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
        for number, leg in enumerate(course.legs, 1):
            if trail.attempts and self._is_late(trail):
                late = UpstreamTimeout()
                late.attempts = trail.attempts
                raise late
            last = number == len(course.legs)
            judged = course.judged and not request.stream and not last
            trail.goes_on, trail.onward = judged, _never if last else partial(self._leads_on, trail)
            try:
                stream = await self._dispatcher.chat(principal, _at(request, leg), request_id, waiting, leg, trail)
            except GatewayError as error:
                self._note(leg, well=not _upstreams_fault(error))
                if not trail.onward(error):
                    raise
                self._escalate(course, trail, leg, error.code or "failed")
                continue
            self._note(leg, well=True)
            reason = None
            if judged and not self._is_late(trail):
                answer = stream.answer
                reason = poor(
                    answer.text,
                    refused=bool(answer.refusals),
                    called_tools=bool(answer.tool_calls),
                    finish=answer.finish or "stop",
                    minimum=course.profile.min_answer_chars if course.profile is not None else 0,
                )
            trail.goes_on = reason is not None
            if reason is None:
                return _named(stream, leg, trail)
            await _read_out(stream)
            self._escalate(course, trail, leg, reason)
        raise ModelNotFound(f"The model '{request.model[:200]}' leads nowhere.", param="model")

    async def _classified(
        self, table: Table, course: Course, principal: Principal, request: ChatRequest, request_id: str, trail: Trail
    ) -> Course:
        """Ask the classifier. Whatever goes wrong with it, but for the caller's own limits, leads to a default."""
        leg, profile = course.classifier, course.profile
        assert leg is not None and profile is not None  # noqa: S101 - only called for such courses
        said: str | None = None
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
            self._note(leg, well=not _upstreams_fault(error))
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

    def _note(self, leg: Leg, *, well: bool) -> None:
        if leg.backend is not None:
            self.health.note(leg.backend, well, self._clock.monotonic())


def leads_on(error: GatewayError) -> bool:
    """Whether another model may have the request after this failure."""
    if error.unsettled or error.limited_by is not None:
        return False
    # The account that a session is bound to may be one of the next leg's.
    if isinstance(error, ModelNotFound | SessionLost) or error.code in ("context_length_exceeded", "model_not_found"):
        return True
    return _upstreams_fault(error) or error.status == 402


def _upstreams_fault(error: GatewayError) -> bool:
    return error.status in (500, 502, 503, 504) and error.limited_by is None


def _not_limited(error: GatewayError) -> bool:
    """Not a matter of the caller's own limits and rights."""
    return error.limited_by is None and error.status not in (401, 403)


def _never(error: GatewayError) -> bool:
    return False


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
    return bool(request.messages) and request.messages[-1].role == "tool"


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
