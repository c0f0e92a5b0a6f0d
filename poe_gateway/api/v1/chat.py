"""``POST /v1/chat/completions`` as one raw ASGI function.

Answers and refusals of a request that stood in line tell where it stood (``x-gateway-queue-position`` and, when it can
be foreseen, ``x-gateway-queue-expected-ms``, both as of joining) and how long (``x-gateway-wait-ms``).

A streaming request that stands in line for long is answered before its fate is known: 200, and comments with its place
until the answer begins. What depends on the choice of an account (``x-gateway-account``, ``-attempts``, ``-session``,
``-wait-ms``) cannot be sent any more then, and a refusal comes as an error event in the stream.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from msgspec.structs import replace

from poe_gateway.api.asgi import Receive, Scope, Send, address_of, header
from poe_gateway.api.callers import caller
from poe_gateway.api.errors import Headers, render, sse_error
from poe_gateway.api.limits import limit_headers
from poe_gateway.api.sse import KeepAlive
from poe_gateway.api.traffic import TrafficNotes
from poe_gateway.api.waiting import Waiting
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.keys import Principal
from poe_gateway.chat.appending import Appender
from poe_gateway.chat.events import Finished, TextDelta, TextReplaced, ToolCallDelta
from poe_gateway.chat.openai_chat import ChunkWriter, completion, merge_tool_calls, parse
from poe_gateway.chat.request import ChatRequest
from poe_gateway.clock import Clock, Ids
from poe_gateway.dispatch.dispatcher import Dispatcher
from poe_gateway.dispatch.stream import ChatStream
from poe_gateway.errors import (
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    Overloaded,
    PointsExhausted,
    RequestTooLarge,
    SessionLost,
)
from poe_gateway.telemetry.events import Notice, RequestFinished
from poe_gateway.telemetry.hub import Telemetry

ROUTE = "/v1/chat/completions"
_SSE: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_GRACE = 0.02
"""Seconds before a request is worth watching for its caller's going away."""


class _Gone(Exception):
    """The caller went away before the body was complete."""


class _Told(msgspec.Struct):
    """What is known of one request, for telemetry."""

    status: int = 499
    principal: Principal | None = None
    request: ChatRequest | None = None
    stream: ChatStream | None = None
    error: GatewayError | None = None
    first: float | None = None
    gone: bool = False


class ChatCompletions:
    """The endpoint. One instance per process.

    ``notice_after``: seconds in line after which a stream is begun and told its place (0: never), then every
    ``notice_every`` seconds.
    """

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        keyring: KeyRing,
        telemetry: Telemetry,
        clock: Clock,
        ids: Ids,
        max_body: int,
        notice_after: float = 2.0,
        notice_every: float = 5.0,
        traffic: TrafficNotes | None = None,
    ) -> None:
        """``traffic`` None: no shape of a request is kept."""
        self._traffic = traffic
        self._dispatcher = dispatcher
        self._keyring = keyring
        self._telemetry = telemetry
        self._clock = clock
        self._ids = ids
        self._max_body = max_body
        self._notice_after = notice_after
        self._notice_every = notice_every

    async def __call__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        started = self._clock.monotonic()
        told = _Told()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - ASGI applications run in tasks
        watch = _Watch(receive, task, told)
        try:
            await self._answer(scope, receive, send, request_id, told, watch)
        except asyncio.CancelledError:
            if not told.gone:
                raise
            task.uncancel()  # our own watch cancelled us: the caller is gone, nobody is left to tell
        except _Gone:
            told.gone = True
        finally:
            watch.stop()
            self._tell(request_id, told, self._clock.monotonic() - started, started, address_of(scope))

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, told: _Told, watch: _Watch
    ) -> None:
        stream: ChatStream | None = None
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
                request = parse(await self._body(scope, receive))
                request = _with_timeout(request, header(scope, b"x-timeout"))
                told.request = request
                watch.start()
                line.begins = request.stream and self._notice_after > 0
                stream = told.stream = await self._dispatcher.chat(
                    told.principal, request, request_id, waiting=line.joined
                )
                untold = await line.stop()
                if untold is not None:
                    raise untold
                if not request.stream:
                    await self._whole(stream, send, request_id, told, line)
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
            await self._events(stream, send, request_id, told, line)
        finally:
            line.abandon()
            if stream is not None:
                await stream.aclose()

    def _line(self, send: Send, request_id: str, told: _Told) -> Waiting:
        async def begin() -> None:
            told.status = 200
            headers = [(b"x-request-id", request_id.encode()), *line.headers(), *_SSE]
            await send({"type": "http.response.start", "status": 200, "headers": headers})

        line = Waiting(begin, send, clock=self._clock, after=self._notice_after, every=self._notice_every)
        return line

    async def _body(self, scope: Scope, receive: Receive) -> bytes | bytearray:
        length = header(scope, b"content-length")
        if length is not None and length.isdigit() and int(length) > self._max_body:
            raise self._too_large()
        message = await receive()
        chunk: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if message["type"] == "http.disconnect":
                raise _Gone
            if len(chunk) > self._max_body:
                raise self._too_large()
            return chunk
        body = bytearray(chunk)
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            body += message.get("body", b"")
            if len(body) > self._max_body:
                raise self._too_large()
        return body

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"The body is larger than {self._max_body} bytes.", code="body_too_large")

    async def _whole(self, stream: ChatStream, send: Send, request_id: str, told: _Told, line: Waiting) -> None:
        async for _ in stream.events():
            if told.first is None:
                told.first = self._clock.monotonic()
        answer, usage = stream.answer, stream.usage()
        body = completion(
            completion_id=self._ids.new("chatcmpl", 24),
            created=int(self._clock.now().timestamp()),
            model=stream.model,
            text=answer.text,
            tool_calls=merge_tool_calls(answer.tool_calls),
            finish=answer.finish or "stop",
            usage=usage,
        )
        headers = [*_headers(stream, request_id, line), *line.headers()]
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", str(len(body)).encode()))
        headers.append((b"x-gateway-usage", b"estimated" if usage.estimated else b"upstream"))
        if usage.billed_cost is not None and usage.currency is not None:
            headers.append((b"x-gateway-cost", f"{usage.billed_cost} {usage.currency}".encode()))
        told.status = 200
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _events(self, stream: ChatStream, send: Send, request_id: str, told: _Told, line: Waiting) -> None:
        writer = ChunkWriter(
            completion_id=self._ids.new("chatcmpl", 24),
            created=int(self._clock.now().timestamp()),
            model=stream.model,
            include_usage=stream.request.include_usage,
        )
        told.status = 200
        told.first = self._clock.monotonic()
        if not line.begun:
            headers = [*_headers(stream, request_id, line), *line.headers(), *_SSE]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        opening = writer.first()
        text = Appender()
        with KeepAlive(send) as alive:
            try:
                async for event in stream.events():
                    if isinstance(event, TextDelta | TextReplaced):
                        chunk = opening + writer.text(text.piece(event))
                    elif isinstance(event, ToolCallDelta):
                        chunk = opening + writer.tool_calls(event.calls)
                    elif isinstance(event, Finished):
                        chunk = opening + writer.last(event.reason, stream.usage())
                    else:
                        continue
                    opening = b""
                    await alive.send(chunk)
            except GatewayError as error:
                told.error = error
                await alive.send(sse_error(error))
            except Exception as error:  # noqa: BLE001 - told in-band and to the operator
                self._notice(error, request_id)
                told.error = GatewayError()
                await alive.send(sse_error(told.error))
        await send({"type": "http.response.body", "body": b""})

    async def _refuse(self, error: GatewayError, send: Send, request_id: str, told: _Told, line: Waiting) -> None:
        untold = await line.stop()
        if untold is not None:
            self._notice(untold, request_id)
        if line.begun:
            await send({"type": "http.response.body", "body": sse_error(error), "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            return
        stream = told.stream
        metadata: dict[str, Any] = {}
        if told.request is not None and told.request.session_id is not None and told.request.session_explicit:
            metadata["session_id"] = told.request.session_id
        if stream is not None:
            metadata["account_id"] = stream.attempt.lease.account.id
        status, headers, body = render(error, metadata)
        told.status = status
        headers.append((b"x-request-id", request_id.encode()))
        named = {name for name, _ in headers}
        headers += [each for each in line.headers() if each[0] not in named]
        if stream is not None and stream.attempt.lease.queued:
            headers.append(_wait_header(stream.attempt.lease.waited))
        elif line.first is not None and isinstance(error, Overloaded | PointsExhausted | SessionLost):
            headers.append(_wait_header(line.seconds()))  # the pool's own refusals end the wait
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _notice(self, error: BaseException, request_id: str) -> None:
        self._telemetry.emit(
            Notice(
                level="error",
                message="a request failed in an unforeseen way",
                fields={"request_id": request_id, "error": type(error).__name__, "path": ROUTE},
            )
        )

    def _tell(self, request_id: str, told: _Told, seconds: float, started: float, address: str | None) -> None:
        stream, request, principal = told.stream, told.request, told.principal
        usage = stream.usage() if stream is not None else None
        bill = stream.charge.bill if stream is not None and stream.charge is not None else None
        if self._traffic is not None and principal is not None and request is not None:
            self._traffic.write(
                request_id,
                ROUTE,
                principal,
                request,
                stream,
                status=told.status,
                error_code=told.error.code if told.error is not None else None,
                address=address,
                tokens=usage.prompt_tokens + usage.completion_tokens if usage is not None else 0,
                seconds=seconds,
                attempts=_attempts(told),
            )
        self._telemetry.emit(
            RequestFinished(
                request_id=request_id,
                route=ROUTE,
                status=told.status,
                seconds=seconds,
                key_id=principal.key_id if principal is not None else None,
                key_name=principal.name if principal is not None else None,
                model=request.model if request is not None else None,
                provider=stream.attempt.provider if stream is not None else None,
                account_id=stream.attempt.lease.account.id if stream is not None else None,
                stream=request.stream if request is not None else False,
                error_code=told.error.code if told.error is not None else None,
                attempts=_attempts(told),
                wait_seconds=stream.attempt.lease.waited if stream is not None else 0.0,
                ttft_seconds=told.first - started if told.first is not None else None,
                prompt_tokens=usage.prompt_tokens if usage is not None else None,
                completion_tokens=usage.completion_tokens if usage is not None else None,
                usage_estimated=usage.estimated if usage is not None else False,
                points=usage.points if usage is not None else None,
                cached_tokens=usage.cached_tokens if usage is not None else None,
                org=principal.org if principal is not None else None,
                unit=bill.unit if bill is not None else None,
                raw_cost=bill.raw if bill is not None else None,
                billed_cost=bill.billed if bill is not None else None,
                limited_by=told.error.limited_by if told.error is not None else None,
                session=request is not None and request.session_id is not None,
                client_gone=told.gone,
            )
        )


def _attempts(told: _Told) -> int:
    if told.stream is not None:
        return told.stream.attempt.number
    return told.error.attempts if told.error is not None else 0


class _Watch:
    """Cancels the request's task when its caller goes away. Started late: most requests are answered before."""

    def __init__(self, receive: Receive, task: asyncio.Task[Any], told: _Told) -> None:
        self._receive = receive
        self._task = task
        self._told = told
        self._handle: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._handle = asyncio.get_running_loop().call_later(_GRACE, self._begin)

    def _begin(self) -> None:
        self._watching = asyncio.ensure_future(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._told.gone = True
        self._task.cancel()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self._watching is not None:
            self._watching.cancel()


def _headers(stream: ChatStream, request_id: str, line: Waiting) -> Headers:
    attempt = stream.attempt
    headers: Headers = [
        (b"x-request-id", request_id.encode()),
        (b"x-gateway-account", attempt.lease.account.id.encode()),
        (b"x-gateway-attempts", str(attempt.number).encode()),
    ]
    if attempt.session is not None:
        headers.append((b"x-gateway-session", attempt.session.encode()))
    if stream.charge is not None and stream.charge.asks:
        headers += limit_headers(stream.charge.standings())
    if attempt.lease.queued or line.first is not None:  # one that waited for its session's account may borrow another
        headers.append(_wait_header(attempt.lease.waited))
    return headers


def _wait_header(seconds: float) -> tuple[bytes, bytes]:
    return b"x-gateway-wait-ms", str(int(seconds * 1000)).encode()


def _with_timeout(request: ChatRequest, value: str | None) -> ChatRequest:
    if value is None:
        return request
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 86_400:
        raise InvalidRequest("'X-Timeout' must be a positive number of seconds.", param="X-Timeout")
    return replace(request, timeout=seconds)
