"""What the credentials of a mock account say, as frozen values: its models, purse, pace and rehearsed faults. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import msgspec

from poe_gateway.pool.outcome import (
    AdapterDrift,
    Challenged,
    Depleted,
    Failure,
    NetworkFault,
    RateLimited,
    Rejected,
    Transient,
    Unauthorized,
)
from poe_gateway.upstreams.base import CredentialError, CredentialField, Fate, check_fields

BUILT_IN = ("mock-1", "mock-2", "mock-echo", "mock-slow")
"""Model names that every mock account serves."""

Operation = Literal["chat", "balance", "models", "prewarm", "probe"]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]


class FaultKind(StrEnum):
    """What can be rehearsed. The last three take effect while the answer is given, the others before it."""

    RATE_LIMITED = "rate_limited"
    DEPLETED = "depleted"
    UNAUTHORIZED = "unauthorized"
    CHALLENGED = "challenged"
    TRANSIENT = "transient"
    TIMEOUT = "timeout"
    NETWORK = "network"
    DRIFT = "drift"
    REJECTED = "rejected"
    TRUNCATED = "truncated"
    """Half of the answer, then a break."""
    EMPTY = "empty"
    """Accepted, and not one word comes back."""
    SLOW_START = "slow_start"
    """A whole answer, ``seconds`` late."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the rehearsal plan: the calls of operation ``on`` that fail.

    The first ``after`` calls go well, the next ``times`` fail (None: all of them).
    """

    kind: FaultKind
    times: Count | None = 1
    after: Count = 0
    on: Operation = "chat"
    retry_after: Seconds | None = None
    """Told with ``rate_limited``; None = the upstream does not say."""
    seconds: Seconds = 1.0
    """Delay of ``slow_start``, and how long ``timeout`` takes to show."""
    fate: Fate | None = None
    """What became of the message; None = the usual fate of that kind."""

    def hits(self, operation: Operation, nth: int) -> bool:
        """True when call number ``nth`` (from 1) of ``operation`` shall fail."""
        if operation != self.on or nth <= self.after:
            return False
        return self.times is None or nth <= self.after + self.times


class Scripted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An answer that was written beforehand.

    ``model``: a pattern of names (``*`` and ``?``); ``when``: what the newest user turn must contain. Empty text is
    no answer, so there must be some.
    """

    say: Annotated[str, msgspec.Meta(min_length=1, max_length=100_000)]
    model: str = "*"
    when: str = ""

    def fits(self, model: str, said: str) -> bool:
        return self.when in said and fnmatchcase(model, self.model)


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mock account's credential document, checked."""

    models: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=200)], ...] = ()
    points: Count | None = None
    price: Count = 1
    cost: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,12})?$")] | None = None
    """Dollars per message, told as the upstream's own figure."""
    chunk_delay_ms: Count = 0
    max_concurrent: Annotated[int, msgspec.Meta(ge=1)] | None = None
    slow_pieces: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 20
    slow_pause_ms: Count = 250
    faults: tuple[Fault, ...] = ()
    answers: tuple[Scripted, ...] = ()

    @property
    def offer(self) -> str:
        """Catalogue key: accounts with the same extra names share one offer."""
        names = sorted(set(self.models) - set(BUILT_IN))
        if not names:
            return "mock"
        return "mock:" + hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]

    def due(self, operation: Operation, nth: int) -> Fault | None:
        """The first fault planned for call number ``nth`` (from 1) of ``operation``."""
        return next((fault for fault in self.faults if fault.hits(operation, nth)), None)

    def says(self, model: str, said: str) -> str | None:
        """The first answer that was written for this model and text."""
        return next((scripted.say for scripted in self.answers if scripted.fits(model, said)), None)


FIELDS = (
    CredentialField(name="models", secret=False, kind=list, description="more model names, served like mock-1"),
    CredentialField(name="points", secret=False, kind=int, description="starting balance; makes the account metered"),
    CredentialField(name="price", secret=False, kind=int, description="points per message (1)"),
    CredentialField(name="cost", secret=False, description="dollars per message, decimal text, told with each answer"),
    CredentialField(name="chunk_delay_ms", secret=False, kind=int, description="pause between pieces, milliseconds"),
    CredentialField(name="max_concurrent", secret=False, kind=int, description="calls at once that are still served"),
    CredentialField(name="slow_pieces", secret=False, kind=int, description="pieces of a mock-slow answer (20)"),
    CredentialField(name="slow_pause_ms", secret=False, kind=int, description="pause of mock-slow, milliseconds (250)"),
    CredentialField(name="faults", secret=False, kind=list, description="rehearsal plan: list of {kind, times, …}"),
    CredentialField(name="answers", secret=False, kind=list, description="written answers: list of {say, model, when}"),
)


def read_plan(credentials: Mapping[str, Any]) -> Plan:
    """The checked plan. Raises CredentialError naming the field."""
    clean = check_fields(FIELDS, credentials)
    for name, value in clean.items():
        try:
            msgspec.convert({name: value}, Plan)
        except msgspec.ValidationError as error:
            raise CredentialError(name, f"'{name}': {error}") from None
    return msgspec.convert(clean, Plan)


def read_request_fault(text: str) -> Fault:
    """``kind`` or ``kind:seconds`` as given in a request's metadata. Raises ValueError."""
    kind, _, seconds = text.partition(":")
    fault: dict[str, Any] = {"kind": kind.strip(), "times": None}
    if seconds:
        fault |= {"retry_after": float(seconds), "seconds": float(seconds)}
    return msgspec.convert(fault, Fault)


def failure(fault: Fault, model: str) -> tuple[Failure, Fate] | None:
    """The typed failure of a fault and the message's fate; None for ``slow_start``, which does not fail."""
    outcome: Failure
    fate = Fate.NOT_SENT
    detail = f"rehearsed {fault.kind}"
    match fault.kind:
        case FaultKind.RATE_LIMITED:
            outcome = RateLimited(retry_after=fault.retry_after, detail=detail)
        case FaultKind.DEPLETED:
            outcome = Depleted(detail=detail)
        case FaultKind.UNAUTHORIZED:
            outcome = Unauthorized(detail=detail)
        case FaultKind.CHALLENGED:
            outcome = Challenged(detail=detail)
        case FaultKind.TRANSIENT:
            outcome = Transient(detail=detail)
        case FaultKind.TIMEOUT:
            outcome, fate = Transient(detail=detail, timeout=True), Fate.UNKNOWN
        case FaultKind.NETWORK:
            outcome = NetworkFault(detail=detail)
        case FaultKind.DRIFT:
            outcome = AdapterDrift(detail=detail)
        case FaultKind.REJECTED:
            outcome = Rejected(public=f"The mock upstream refused '{model}' as rehearsed.", code="mock_rejected")
        case FaultKind.TRUNCATED | FaultKind.EMPTY:
            outcome, fate = Transient(detail=detail), Fate.ACCEPTED
        case FaultKind.SLOW_START:
            return None
    return outcome, fault.fate or fate
