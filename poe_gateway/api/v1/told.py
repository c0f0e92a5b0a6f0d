"""What is known of one request when it is over, told to telemetry and to the auditor's records."""

from __future__ import annotations

import msgspec

from poe_gateway.api.traffic import TrafficNotes
from poe_gateway.auth.keys import Principal
from poe_gateway.chat.request import ChatRequest
from poe_gateway.dispatch.router import Stream
from poe_gateway.errors import GatewayError
from poe_gateway.telemetry.events import RequestFinished
from poe_gateway.telemetry.hub import Telemetry


class Told(msgspec.Struct):
    """Filled in as the request goes on. ``first``: monotonic second of the first piece."""

    status: int = 499
    principal: Principal | None = None
    request: ChatRequest | None = None
    stream: Stream | None = None
    error: GatewayError | None = None
    first: float | None = None
    gone: bool = False

    @property
    def attempts(self) -> int:
        if self.stream is not None:
            return self.stream.attempt.number if self.stream.attempt is not None else 0
        return self.error.attempts if self.error is not None else 0

    def tell(
        self,
        telemetry: Telemetry,
        traffic: TrafficNotes | None,
        *,
        request_id: str,
        route: str,
        seconds: float,
        started: float,
        address: str | None,
    ) -> None:
        """The request is over, however it ended."""
        stream, request, principal = self.stream, self.request, self.principal
        usage = stream.usage() if stream is not None else None
        attempt = stream.attempt if stream is not None else None
        bill = stream.charge.bill if stream is not None and stream.charge is not None else None
        if traffic is not None and principal is not None and request is not None:
            traffic.write(
                request_id,
                route,
                principal,
                request,
                stream,
                status=self.status,
                error_code=self.error.code if self.error is not None else None,
                address=address,
                tokens=usage.total_tokens if usage is not None else 0,
                seconds=seconds,
                attempts=self.attempts,
            )
        telemetry.emit(
            RequestFinished(
                request_id=request_id,
                route=route,
                status=self.status,
                seconds=seconds,
                key_id=principal.key_id if principal is not None else None,
                key_name=principal.name if principal is not None else None,
                model=request.model if request is not None else None,
                provider=attempt.provider if attempt is not None else None,
                account_id=attempt.lease.account.id if attempt is not None else None,
                stream=request.stream if request is not None else False,
                error_code=self.error.code if self.error is not None else None,
                attempts=self.attempts,
                wait_seconds=attempt.lease.waited if attempt is not None else 0.0,
                ttft_seconds=self.first - started if self.first is not None else None,
                prompt_tokens=usage.prompt_tokens if usage is not None else None,
                completion_tokens=usage.completion_tokens if usage is not None else None,
                usage_estimated=usage.estimated if usage is not None else False,
                points=usage.points if usage is not None else None,
                cached_tokens=usage.cached_tokens if usage is not None else None,
                org=principal.org if principal is not None else None,
                unit=bill.unit if bill is not None else None,
                raw_cost=bill.raw if bill is not None else None,
                billed_cost=bill.billed if bill is not None else None,
                limited_by=self.error.limited_by if self.error is not None else None,
                session=request is not None and request.session_id is not None,
                client_gone=self.gone,
            )
        )
