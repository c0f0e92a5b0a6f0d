"""The hot endpoint: one raw ASGI function for every dialect in which something is asked of an upstream.

Answers and refusals of a request that stood in line tell where it stood (``x-gateway-queue-position`` and, when it can
be foreseen, ``x-gateway-queue-expected-ms``, both as of joining) and how long (``x-gateway-wait-ms``).

A streaming request that stands in line for long is answered before its fate is known: 200, and comments with its place
until the answer begins. What depends on the choice of an account (``x-gateway-account``, ``-attempts``, ``-session``,
``-wait-ms``) and on its way (``-tier``, ``-emulated`` …) cannot be sent any more then, and a refusal comes as an error
event in the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from msgspec.structs import replace

from poe_gateway.api.asgi import Receive, Scope, Send, address_of, check_encoding, header
from poe_gateway.api.callers import caller
from poe_gateway.api.errors import Headers, render, request_ids
from poe_gateway.api.limits import limit_headers
from poe_gateway.api.sse import KeepAlive
from poe_gateway.api.traffic import TrafficNotes
from poe_gateway.api.v1.told import Told
from poe_gateway.api.v1.watch import Gone, Watch
from poe_gateway.api.waiting import Waiting
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.keys import Principal
from poe_gateway.chat.dialect import Dialect, Head, Reply
from poe_gateway.chat.events import Finished
from poe_gateway.chat.request import ChatRequest
from poe_gateway.clock import Clock, Ids
from poe_gateway.dispatch.router import Router, Stream
from poe_gateway.errors import (
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    Overloaded,
    PointsExhausted,
    RequestTooLarge,
    SessionLost,
)
from poe_gateway.routing.course import Asked
from poe_gateway.telemetry.events import Notice
from poe_gateway.telemetry.hub import Telemetry

_NO_CACHE: Headers = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
_PLAIN = Asked()
_YES = frozenset({"1", "true", "yes", "on"})


class Shelf(Protocol):
    """Where a dialect keeps its answers, so that later requests can go on from them."""

    async def recall(self, principal: Principal, request: ChatRequest) -> ChatRequest:
        """The request with what it goes on from. Raises GatewayError."""

    async def keep(self, principal: Principal, reply: Reply) -> bool:
        """Keep an answer, if it is to be kept; whether it is now."""


class Endpoint:
    """One dialect's endpoint. One instance per process and dialect.

    ``notice_after``: seconds in line after which a stream is begun and told its place (0: never), then every
    ``notice_every`` seconds.
    """

    def __init__(
        self,
        dialect: Dialect,
        *,
        router: Router,
        keyring: KeyRing,
        telemetry: Telemetry,
        clock: Clock,
        ids: Ids,
        max_body: int,
        notice_after: float = 2.0,
        notice_every: float = 5.0,
        traffic: TrafficNotes | None = None,
        shelf: Shelf | None = None,
        completed: Callable[[Reply], Awaitable[Reply]] | None = None,
        parse: Callable[[bytes | bytearray, str], ChatRequest] | None = None,
    ) -> None:
        """``traffic`` None: no shape of a request is kept. ``completed`` fetches what a whole answer lacks. ``parse``:
        of the body and its content type, where the dialect's own ``parse`` does not do."""
        self._dialect = dialect
        self._traffic = traffic
        self._shelf = shelf
        self._completed = completed
        self._parse = parse
        self._router = router
        self._keyring = keyring
        self._telemetry = telemetry
        self._clock = clock
        self._ids = ids
        self._max_body = max_body
        self._events_are_sse = dialect.stream_type.startswith(b"text/event-stream")
        self._notice_after = notice_after if self._events_are_sse else 0.0
        self._notice_every = notice_every
        self._stream_headers: Headers = [(b"content-type", dialect.stream_type), *_NO_CACHE]

    async def __call__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        started = self._clock.monotonic()
        told = Told()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - ASGI applications run in tasks

        def gone() -> None:
            told.gone = True

        watch = Watch(receive, task, gone)
        try:
            await self._answer(scope, receive, send, request_id, told, watch)
        except asyncio.CancelledError:
            if not told.gone:
                raise
            task.uncancel()  # our own watch cancelled us: the caller is gone, nobody is left to tell
        except Gone:
            told.gone = True
        finally:
            watch.stop()
            told.tell(
                self._telemetry,
                self._traffic,
                request_id=request_id,
                route=self._dialect.route,
                seconds=self._clock.monotonic() - started,
                started=started,
                address=address_of(scope),
            )

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, told: Told, watch: Watch
    ) -> None:
        stream: Stream | None = None
        started = self._clock.monotonic()
        line = self._line(send, request_id, told)
        try:
            try:
                if scope["method"] != "POST":
                    raise MethodNotAllowed("Use POST for this address.", headers={"Allow": "POST"})
                told.principal = await caller(
                    self._keyring,
                    header(scope, b"authorization"),
                    header(scope, b"x-api-key"),
                    address_of(scope),
                )
                raw = await self._body(scope, receive)
                if self._parse is not None:
                    request = self._parse(raw, header(scope, b"content-type") or "")
                else:
                    request = self._dialect.parse(raw)
                told.request = request = _with_headers(request, scope)
                if self._shelf is not None:
                    told.request = request = await self._shelf.recall(told.principal, request)
                watch.start()
                line.begins = request.stream and self._notice_after > 0
                stream = told.stream = await self._router.chat(
                    told.principal, request, request_id, line.joined, _asked(scope)
                )
                untold = await line.stop()
                if untold is not None:
                    raise untold
                if not request.stream:
                    await self._whole(stream, send, request_id, told, line, started)
                    return
            except GatewayError as error:
                told.error = error
                await self._refuse(error, send, request_id, told, line)
                return
            except Exception as error:  # noqa: BLE001 - the last resort: told to the caller and to the operator
                self._notice(error, request_id)
                told.error = GatewayError()
                await self._refuse(told.error, send, request_id, told, line)
                return
            await self._events(stream, send, request_id, told, line, started)
        finally:
            line.abandon()
            if stream is not None:
                await stream.aclose()

    def _line(self, send: Send, request_id: str, told: Told) -> Waiting:
        async def begin() -> None:
            told.status = 200
            headers = [*self._ids_of(request_id), *line.headers(), *self._stream_headers]
            await send({"type": "http.response.start", "status": 200, "headers": headers})

        line = Waiting(begin, send, clock=self._clock, after=self._notice_after, every=self._notice_every)
        return line

    async def _body(self, scope: Scope, receive: Receive) -> bytes | bytearray:
        check_encoding(header(scope, b"content-encoding"))
        length = header(scope, b"content-length")
        if length is not None and length.isdigit() and int(length) > self._max_body:
            raise self._too_large()
        message = await receive()
        chunk: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if message["type"] == "http.disconnect":
                raise Gone
            if len(chunk) > self._max_body:
                raise self._too_large()
            return chunk
        body = bytearray(chunk)
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            body += message.get("body", b"")
            if len(body) > self._max_body:
                raise self._too_large()
        return body

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"The body is larger than {self._max_body} bytes.", code="body_too_large")

    def _ids_of(self, request_id: str) -> Headers:
        return request_ids(request_id, self._dialect.shape)

    def _head(self, stream: Stream) -> Head:
        return Head(
            id=self._ids.new(self._dialect.prefix, 24),
            created=int(self._clock.now().timestamp()),
            model=stream.model,
            request=stream.request,
        )

    async def _reply(self, stream: Stream, head: Head, told: Told, started: float) -> Reply:
        """The whole answer, kept if it is to be."""
        answer = stream.answer
        reply = Reply(
            head=head,
            finish=answer.finish or "stop",
            usage=stream.usage(),
            text=answer.text,
            refusal=answer.refusal,
            reasoning=answer.reasoning,
            signature=answer.signature,
            tool_calls=answer.calls,
            logprobs=None if answer.logprobs is None else tuple(answer.logprobs),
            images=tuple(answer.images),
            vectors=tuple([vector for _, vector in sorted(answer.vectors.items())]),
            stop_sequence=answer.stop_sequence,
            seconds=self._clock.monotonic() - started,
        )
        if self._shelf is not None and told.principal is not None:
            reply = replace(reply, kept=await self._shelf.keep(told.principal, reply))
        return reply

    async def _whole(
        self, stream: Stream, send: Send, request_id: str, told: Told, line: Waiting, started: float
    ) -> None:
        async for _ in stream.events():
            if told.first is None:
                told.first = self._clock.monotonic()
        reply = await self._reply(stream, self._head(stream), told, started)
        if self._completed is not None:
            reply = await self._completed(reply)
        body, usage = self._dialect.whole(reply), reply.usage
        headers = [*self._ids_of(request_id), *_headers(stream, line), *line.headers()]
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", str(len(body)).encode()))
        headers.append((b"x-gateway-usage", usage.counted.encode()))
        if usage.billed_cost is not None and usage.currency is not None:
            headers.append((b"x-gateway-cost", f"{usage.billed_cost} {usage.currency}".encode()))
        told.status = 200
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _events(
        self, stream: Stream, send: Send, request_id: str, told: Told, line: Waiting, started: float
    ) -> None:
        head = self._head(stream)
        writer = self._dialect.writer(head)
        told.status = 200
        told.first = self._clock.monotonic()
        if not line.begun:
            headers = [*self._ids_of(request_id), *_headers(stream, line), *line.headers(), *self._stream_headers]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        opening = writer.begin()
        with KeepAlive(send, **({} if self._events_are_sse else {"idle": _NEVER})) as alive:
            try:
                async for event in stream.events():
                    if isinstance(event, Finished):
                        chunk = writer.end(event, await self._reply(stream, head, told, started))
                    else:
                        chunk = writer.event(event)
                    if chunk := opening + chunk:
                        opening = b""
                        await alive.send(chunk)
            except GatewayError as error:
                told.error = error
                await alive.send(opening + writer.broken(error))
            except Exception as error:  # noqa: BLE001 - told in-band and to the operator
                self._notice(error, request_id)
                told.error = GatewayError()
                await alive.send(opening + writer.broken(told.error))
        await send({"type": "http.response.body", "body": b""})

    async def _refuse(self, error: GatewayError, send: Send, request_id: str, told: Told, line: Waiting) -> None:
        untold = await line.stop()
        if untold is not None:
            self._notice(untold, request_id)
        if line.begun:
            assert told.request is not None  # noqa: S101 - nobody waits before the request is read
            head = Head(id=request_id, created=0, model=told.request.model, request=told.request)
            broken = self._dialect.writer(head).broken(error)
            await send({"type": "http.response.body", "body": broken, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            return
        stream = told.stream
        metadata: dict[str, Any] = {}
        if told.request is not None and told.request.session_id is not None and told.request.session_explicit:
            metadata["session_id"] = told.request.session_id
        attempt = stream.attempt if stream is not None else None
        if attempt is not None:
            metadata["account_id"] = attempt.lease.account.id
        status, headers, body = render(error, metadata, self._dialect.shape, request_id)
        told.status = status
        headers += self._ids_of(request_id)
        named = {name for name, _ in headers}
        headers += [each for each in line.headers() if each[0] not in named]
        if error.attempts:
            headers.append((b"x-gateway-attempts", str(error.attempts).encode()))
        if attempt is not None and attempt.lease.queued:
            headers.append(_wait_header(attempt.lease.waited))
        elif line.first is not None and isinstance(error, Overloaded | PointsExhausted | SessionLost):
            headers.append(_wait_header(line.seconds()))  # the pool's own refusals end the wait
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _notice(self, error: BaseException, request_id: str) -> None:
        self._telemetry.emit(
            Notice(
                level="error",
                message="a request failed in an unforeseen way",
                fields={"request_id": request_id, "error": type(error).__name__, "path": self._dialect.route},
            )
        )


_LONGEST_PATIENCE = 86_400.0
"""Seconds; the gateway's own limit is shorter."""
_NEVER = 1e9
"""Seconds: no comments may stand in such a stream."""


def _headers(stream: Stream, line: Waiting) -> Headers:
    headers: Headers = []
    attempt = stream.attempt
    if attempt is not None:
        headers.append((b"x-gateway-account", attempt.lease.account.id.encode()))
        headers.append((b"x-gateway-attempts", str(attempt.number).encode()))
        if attempt.session is not None:
            headers.append((b"x-gateway-session", attempt.session.encode()))
        if attempt.fit.emulated:
            headers.append((b"x-gateway-emulated", ", ".join(attempt.fit.emulated).encode()))
        if attempt.fit.dropped:
            headers.append((b"x-gateway-dropped", ", ".join(attempt.fit.dropped).encode()))
    if stream.tier or stream.profile:
        headers += _way(stream)
    if stream.charge is not None and stream.charge.asks:
        headers += limit_headers(stream.charge.standings())
    if attempt is not None and (attempt.lease.queued or line.first is not None):
        # One that waited for its session's account may borrow another.
        headers.append(_wait_header(attempt.lease.waited))
    return headers


def _way(stream: Stream) -> Headers:
    """How it was routed."""
    told = (
        (b"x-gateway-tier", stream.tier or ""),
        (b"x-gateway-model", stream.model),
        (b"x-gateway-profile", stream.profile),
        (b"x-gateway-class", stream.label),
        (b"x-gateway-escalations", str(stream.escalations)),
        (b"x-gateway-judged", stream.judged),
    )
    return [(name, _word(text)) for name, text in told if text]


def _word(text: str) -> bytes:
    """As a header's value: a name may be the caller's own, with whatever is in it."""
    if not text.isprintable():
        text = "".join([c if c.isprintable() else "?" for c in text])
    return text.encode("latin-1", "replace")


def _wait_header(seconds: float) -> tuple[bytes, bytes]:
    return b"x-gateway-wait-ms", str(int(seconds * 1000)).encode()


def _asked(scope: Scope) -> Asked:
    """What the headers say about routing."""
    provider = header(scope, b"x-provider")
    expert = header(scope, b"x-gateway-expert") or header(scope, b"x-lmg-expert")
    if provider is None and expert is None:
        return _PLAIN
    return Asked(provider=(provider or "").strip() or None, expert=(expert or "").strip().lower() in _YES)


def _with_headers(request: ChatRequest, scope: Scope) -> ChatRequest:
    """The request with what its headers say: patience, and whether parameters may be dropped."""
    timeout, drop = header(scope, b"x-timeout"), header(scope, b"x-gateway-drop-params")
    if drop is not None and drop.strip().lower() in _YES:
        request = replace(request, lenient=True)
    if timeout is None:
        return request
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = -1.0
    if not seconds > 0:  # NaN is refused as well
        raise InvalidRequest("'X-Timeout' must be a positive number of seconds.", param="X-Timeout")
    return replace(request, timeout=min(seconds, _LONGEST_PATIENCE))
