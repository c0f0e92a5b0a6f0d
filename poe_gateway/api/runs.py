"""Runs: requests that have an ``Idempotency-Key``, answered apart from their callers' connections.

A run lets the inner route answer into a recording, or waits for the answer that another process is making. It goes on
when all of its callers have left: they have said that they will ask again. A success is kept; a failure frees the key.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, Literal

from poe_gateway.api.asgi import HotRoute, Scope
from poe_gateway.api.errors import Headers, stream_error
from poe_gateway.chat.dialect import Shape
from poe_gateway.errors import GatewayError, Unavailable
from poe_gateway.idempotency.book import Answer, Book, Claim
from poe_gateway.idempotency.recording import Recording
from poe_gateway.telemetry.events import Notice
from poe_gateway.telemetry.hub import Telemetry

_FIRST_LOOK, _LAST_LOOK = 0.05, 0.25
"""Seconds between two looks whether a run of another process has ended."""
_SOON = 1.0
"""Seconds that a refusal waits for its key to be free, when the database is slow."""
_OF_ITS_MOMENT = (b"x-ratelimit-", b"x-request-id", b"request-id")
"""Headers that say nothing about the answer itself and are not kept with it."""

Message = MutableMapping[str, Any]


class Run:
    """One request that has a key, from its first caller's words to its recorded answer."""

    def __init__(self, claim: Claim, scope: Scope, body: bytes, limit: int, shape: Shape) -> None:
        self.shape = shape
        self.claim = claim
        self.scope = scope
        self.body = body
        self.recording = Recording(limit)
        self.request_id = claim.request_id
        """Of the run; of the earlier one when the answer comes from the store."""
        self.begun = False
        """The inner route was called."""
        self._asked = False
        self._refusal: tuple[int, Headers, list[bytes]] | None = None

    async def receive(self) -> Message:
        """The body, and then nothing any more: the run has no caller who could leave."""
        if self._asked:
            await asyncio.Event().wait()
        self._asked = True
        return {"type": "http.request", "body": self.body, "more_body": False}

    async def record(self, message: Message) -> None:
        """What the inner route sends. A refusal is held back until ``refuse``."""
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message.get("headers", ()))
            if 200 <= status < 300:
                self.recording.begin(status, headers)
            else:
                self._refusal = status, headers, []
            return
        if self._refusal is not None:
            self._refusal[2].append(message.get("body", b""))
            return
        await self.recording.add(message.get("body", b""))
        if not message.get("more_body", False):
            self.recording.end()

    def refuse(self) -> None:
        """Let the route's refusal out, if there is one."""
        if self._refusal is not None and not self.recording.ended:
            self.recording.fill(*self._refusal)

    def fail(self, error: GatewayError) -> None:
        """There is no (more) answer; nothing happens when it has ended already."""
        self.recording.fail(error, stream_error(error, self.shape))

    def answer(self) -> Answer:
        """The whole answer, as it is kept."""
        recording = self.recording
        return Answer(
            request_id=self.request_id,
            status=recording.status or 0,
            headers=tuple(each for each in recording.headers if not each[0].startswith(_OF_ITS_MOMENT)),
            pieces=recording.pieces(),
        )


class Runs:
    """The runs of one inner route in this process. ``name``: the route's template; ``limit``: bytes of an answer that
    can be repeated; ``shape``: how errors look in the route's dialect."""

    def __init__(
        self, route: HotRoute, *, book: Book, telemetry: Telemetry, name: str, limit: int, shape: Shape
    ) -> None:
        self._route = route
        self._book = book
        self._telemetry = telemetry
        self._name = name
        self._limit = limit
        self._shape = shape
        self._runs: dict[tuple[str, str], Run] = {}
        """By the claim's id and digest: whether another digest is wrong is for the store to say."""
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, claim: Claim, scope: Scope, body: bytes) -> tuple[Run, bool]:
        """The run that answers the request, and whether it was begun by this call."""
        run = self._runs.get((claim.id, claim.digest))
        if run is not None and run.recording.joinable:
            return run, False
        return self._start(Run(claim, scope, body, self._limit, self._shape)), True

    def _start(self, run: Run) -> Run:
        self._runs[run.claim.id, run.claim.digest] = run
        task = asyncio.create_task(self._until_answered(run), name="idempotent run")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return run

    async def _until_answered(self, run: Run) -> None:
        """Run the request, or have its answer from whoever runs it."""
        try:
            if await self._ours(run):
                async with self._book.held(run.claim):
                    await self._walk(run)
        except GatewayError as error:
            run.fail(error)
        except Exception as error:  # noqa: BLE001 - the last resort: told to the callers and to the operator
            self._unforeseen(run, error)
        finally:
            run.fail(_draining())  # unless it has ended: the task was cancelled
            place = run.claim.id, run.claim.digest
            if self._runs.get(place) is run:
                del self._runs[place]

    async def _ours(self, run: Run) -> bool:
        """Whether the request is ours to run; otherwise the recording holds its answer, or nobody waits any more."""
        pause = _FIRST_LOOK
        while True:
            found = await self._book.claim(run.claim)
            if found == "ours":
                return True
            if isinstance(found, Answer):
                run.request_id = found.request_id
                run.recording.fill(found.status, list(found.headers), found.pieces)
                return False
            if run.recording.deserted:
                return False
            await asyncio.sleep(pause)
            pause = min(_LAST_LOOK, pause * 1.5)

    async def _walk(self, run: Run) -> None:
        """Let the inner route answer into the recording; keep a success, free the key after a failure."""
        recording = run.recording
        run.begun = True
        recording.tell()
        try:
            await self._route(run.scope, run.receive, run.record, run.claim.request_id)
        except asyncio.CancelledError:
            run.fail(_draining())
            await self._book.free(run.claim)
            raise
        except Exception as error:  # noqa: BLE001 - the last resort: told to the callers and to the operator
            self._unforeseen(run, error)
        if not recording.good:
            await self._refuse(run)
        elif recording.overflown:
            self._notice("warning", "an answer is too large to be repeated; its Idempotency-Key is free again", run)
            await self._book.free(run.claim)
        elif not await self._book.keep(run.claim, run.answer()):
            self._notice("error", "an answer could not be kept; a repetition with its Idempotency-Key runs again", run)

    async def _refuse(self, run: Run) -> None:
        """Free the key, then tell: whoever is refused may ask better at once, under the same key."""
        freeing = asyncio.create_task(self._book.free(run.claim))
        await asyncio.wait({freeing}, timeout=_SOON)
        run.refuse()
        run.fail(GatewayError())  # unless it has ended
        await freeing

    async def drain(self, seconds: float = 10.0) -> None:
        """Let what runs come to its end, for at most so long; then it is broken off like any other request."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(set(self._tasks), timeout=3.0)

    def _unforeseen(self, run: Run, error: Exception) -> None:
        self._notice("error", "a request failed in an unforeseen way", run, error=type(error).__name__)
        run.fail(GatewayError())

    def _notice(self, level: Literal["warning", "error"], message: str, run: Run, **fields: str) -> None:
        told = {"request_id": run.claim.request_id, "path": self._name, **fields}
        self._telemetry.emit(Notice(level=level, message=message, fields=told))


def _draining() -> Unavailable:
    return Unavailable("The gateway is shutting down.", code="draining", retry_after=1)
