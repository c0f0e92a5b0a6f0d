"""``Idempotency-Key``: a hot route whose requests can be repeated without running again.

A request with a key runs apart from its caller (see ``runs``). Its answer is recorded, and the caller and all who
repeat the request meanwhile follow the recording, each at its own pace.

Whoever did not cause the run is told so: ``idempotent-replayed: true``, with an ``x-request-id`` of its own and the
run's one in ``x-gateway-original-request-id``. A repetition touches neither limits nor budgets nor the ledger: they
belong to the inner route. Requests without the header go straight there.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from poe_gateway.api.asgi import HotRoute, Receive, Scope, Send, address_of, header
from poe_gateway.api.callers import caller
from poe_gateway.api.errors import Headers, render, request_ids
from poe_gateway.api.runs import Message, Run, Runs
from poe_gateway.auth.keyring import KeyRing
from poe_gateway.auth.keys import Principal
from poe_gateway.chat.dialect import Shape
from poe_gateway.chat.forms import outline
from poe_gateway.clock import Clock
from poe_gateway.errors import Conflict, GatewayError, InvalidRequest
from poe_gateway.idempotency.book import Book
from poe_gateway.idempotency.recording import LIMIT, Follower
from poe_gateway.idempotency.terms import BadKey, canonical, decoded, parse_key
from poe_gateway.telemetry.events import RequestFinished
from poe_gateway.telemetry.hub import Telemetry

_HEADER = b"idempotency-key"
_AGAIN = 2.0
"""Seconds after which a caller should ask again for an answer that another process is still making."""


class _Told:
    """What is known of one caller's part, for telemetry."""

    def __init__(self) -> None:
        self.status = 499
        self.principal: Principal | None = None
        self.model: str | None = None
        self.error: GatewayError | None = None
        self.streamed = False
        self.replayed = False
        self.silent = False
        """The inner route tells of it."""


class Idempotent:
    """The hot route around another one. One instance per process and inner route.

    ``name``: the route's template. ``streams`` ``reject``: a stream with a key is refused. ``patience``: seconds that a
    repetition waits for the beginning of an answer that others are making, where ``X-Timeout`` says nothing.
    ``limit``: bytes of an answer that can be repeated. ``shape``: how errors look in the route's dialect.
    ``streaming``: a body that does not say ``stream`` asks for one.
    """

    def __init__(
        self,
        route: HotRoute,
        *,
        book: Book,
        keyring: KeyRing,
        clock: Clock,
        max_body: int,
        streams: Literal["replay", "reject"],
        telemetry: Telemetry,
        name: str = "/v1/chat/completions",
        patience: float = 330.0,
        limit: int = LIMIT,
        shape: Shape = "openai",
        streaming: bool = False,
    ) -> None:
        self._route = route
        self._runs = Runs(route, book=book, telemetry=telemetry, name=name, limit=limit, shape=shape)
        self._book = book
        self._keyring = keyring
        self._clock = clock
        self._max_body = max_body
        self._streams = streams
        self._telemetry = telemetry
        self._name = name
        self._patience = patience
        self._shape = shape
        self._streaming = streaming

    async def __call__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        given = [value for name, value in scope["headers"] if name == _HEADER]
        if not given or scope["method"] != "POST":
            await self._route(scope, receive, send, request_id)
            return
        started, told = self._clock.monotonic(), _Told()
        try:
            await self._answer(given, scope, receive, send, request_id, told)
        except GatewayError as error:
            told.error = error
            status, headers, body = render(error, None, self._shape, request_id)
            told.status = status
            headers += request_ids(request_id, self._shape)
            if told.replayed:
                headers.append((b"idempotent-replayed", b"true"))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        finally:
            if not told.silent:
                self._tell(request_id, told, self._clock.monotonic() - started)

    async def _answer(
        self, given: list[bytes], scope: Scope, receive: Receive, send: Send, request_id: str, told: _Told
    ) -> None:
        principal = told.principal = await caller(
            self._keyring, header(scope, b"authorization"), header(scope, b"x-api-key"), address_of(scope)
        )
        key = _key(given)
        read = await _Body.read(scope, receive, self._max_body)
        raw = read.whole
        body = decoded(raw) if raw is not None else None
        if raw is not None and body is None:
            body = outline(raw, header(scope, b"content-type") or "")
        if raw is None or body is None:  # the route refuses it, and nothing is kept
            told.silent = True
            await self._route(scope, read.again, send, request_id)
            return
        model, streamed = body.get("model"), body.get("stream")
        told.model = model if isinstance(model, str) else None
        if streamed is None:
            streamed = self._streaming
        told.streamed = streamed is True
        if streamed and self._streams == "reject":
            raise InvalidRequest(
                "Idempotency is not supported with streaming", code="idempotency_not_supported", param="stream"
            )
        claim = self._book.claim_of(principal.key_id, key, self._name, canonical(body, raw), request_id)
        run, first = self._runs.of(claim, scope, raw)
        follower = run.recording.join()
        try:
            await self._follow(run, follower, send, request_id, told, first=first, patience=self._patient(scope))
        finally:
            told.silent = first and run.begun
            follower.close()

    async def drain(self, seconds: float = 10.0) -> None:
        """Let what runs come to its end, for at most so long; then it is broken off like any other request."""
        await self._runs.drain(seconds)

    async def _follow(
        self, run: Run, follower: Follower, send: Send, request_id: str, told: _Told, *, first: bool, patience: float
    ) -> None:
        recording = run.recording
        try:
            async with asyncio.timeout(patience):
                await recording.until(lambda: recording.status is not None or (first and run.begun))
        except TimeoutError:
            raise Conflict(
                "The first request with this Idempotency-Key is still running. Ask again for its answer.",
                code="idempotency_in_progress",
                retry_after=_AGAIN,
            ) from None
        await recording.until(lambda: recording.status is not None)
        told.replayed = not (first and run.begun) and (run.begun or recording.status is not None)
        if recording.status is None:
            raise recording.error or GatewayError()
        headers = recording.headers if not told.replayed else self._replayed(run, request_id)
        told.status = recording.status
        await send({"type": "http.response.start", "status": recording.status, "headers": headers})
        while True:
            piece, more = await follower.next()
            if not more and not recording.whole:
                return  # broken off: the server closes the connection
            await send({"type": "http.response.body", "body": piece, "more_body": more})
            if not more:
                return
            follower.taken()

    def _replayed(self, run: Run, request_id: str) -> Headers:
        """The answer's headers for somebody who did not cause it."""
        return [
            *(each for each in run.recording.headers if each[0] not in (b"x-request-id", b"request-id")),
            *request_ids(request_id, self._shape),
            (b"x-gateway-original-request-id", run.request_id.encode()),
            (b"idempotent-replayed", b"true"),
        ]

    def _patient(self, scope: Scope) -> float:
        """Seconds that a caller waits for others to begin their answer."""
        try:
            seconds = float(header(scope, b"x-timeout") or 0)
        except ValueError:
            return self._patience
        return seconds if 0 < seconds < 86_400 else self._patience

    def _tell(self, request_id: str, told: _Told, seconds: float) -> None:
        principal = told.principal
        self._telemetry.emit(
            RequestFinished(
                request_id=request_id,
                route=self._name,
                status=told.status,
                seconds=seconds,
                key_id=principal.key_id if principal is not None else None,
                key_name=principal.name if principal is not None else None,
                model=told.model,
                stream=told.streamed,
                error_code=told.error.code if told.error is not None else None,
                replayed=told.replayed,
            )
        )


class _Body:
    """A request's body as far as it was read; ``whole`` is None when it is too large, or its caller left."""

    def __init__(self, receive: Receive) -> None:
        self.whole: bytes | None = None
        self._read: list[Message] = []
        self._receive = receive

    @classmethod
    async def read(cls, scope: Scope, receive: Receive, limit: int) -> _Body:
        """Read up to ``limit`` bytes."""
        body = cls(receive)
        length = header(scope, b"content-length")
        if length is not None and length.isdigit() and int(length) > limit:
            return body
        raw = bytearray()
        while len(raw) <= limit:
            message = await receive()
            body._read.append(message)
            if message["type"] == "http.disconnect":
                return body
            raw += message.get("body", b"")
            if not message.get("more_body", False):
                body.whole = bytes(raw) if len(raw) <= limit else None
                return body
        return body

    async def again(self) -> Message:
        """What was read, message by message, and then what comes."""
        return self._read.pop(0) if self._read else await self._receive()


def _key(given: list[bytes]) -> str:
    if len(set(given)) > 1:
        raise InvalidRequest("'Idempotency-Key' was given twice.", param="Idempotency-Key")
    try:
        return parse_key(given[0].decode("latin-1"))
    except BadKey as error:
        raise InvalidRequest(str(error), param="Idempotency-Key") from None
