"""The shape of each request, told to the auditor's records when the request is over."""

from __future__ import annotations

from collections.abc import Callable

from poe_gateway.auth.keys import Principal
from poe_gateway.chat.request import ChatRequest
from poe_gateway.clock import Clock
from poe_gateway.dispatch.router import Stream
from poe_gateway.metering.rows import Traffic
from poe_gateway.metering.spool import SpoolFailed
from poe_gateway.metering.traffic import TrafficShape


class TrafficNotes:
    """``note`` takes a record for good; ``seal`` seals texts of organisations that want theirs kept."""

    def __init__(
        self,
        *,
        shape: TrafficShape,
        note: Callable[[Traffic], None],
        seal: Callable[[str], str],
        clock: Clock,
        trouble: Callable[[str], None],
    ) -> None:
        self._shape = shape
        self._note = note
        self._seal = seal
        self._clock = clock
        self._trouble = trouble

    def write(
        self,
        request_id: str,
        route: str,
        principal: Principal,
        request: ChatRequest,
        stream: Stream | None,
        *,
        status: int,
        error_code: str | None,
        address: str | None,
        tokens: int,
        seconds: float,
        attempts: int,
    ) -> None:
        """One request is over. A disk that does not take it is told to the operator, not to the caller."""
        answer = stream.answer if stream is not None else None
        record = self._shape.record(
            request_id=request_id,
            at=self._clock.now(),
            org=principal.org,
            key_id=principal.key_id,
            route=route,
            model=request.model,
            status=status,
            turns=[(message.role, message.text, len(message.images)) for message in request.messages],
            answer=None if answer is None else answer.text,
            finish=None if answer is None else answer.finish,
            error_code=error_code,
            address=address,
            stream=request.stream,
            tokens=tokens,
            seconds=seconds,
            attempts=attempts,
            seal=self._seal if principal.keep_text else None,
        )
        try:
            self._note(record)
        except SpoolFailed:
            self._trouble("the shape of a request could not be written for the auditor")
