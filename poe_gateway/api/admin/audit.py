"""Routes for the auditor: the chain of the operators' changes, and the shape of requests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, Field

from poe_gateway.api.admin.audited import audited
from poe_gateway.api.admin.explain import Moment, Name
from poe_gateway.api.deps import AdminRoute, Gateway, errors, gateway
from poe_gateway.errors import InvalidRequest, NotFound
from poe_gateway.metering.changes import AuditTrail, ChangeFilter
from poe_gateway.metering.rows import Traffic
from poe_gateway.metering.traffic import TrafficFilter, TrafficRecords

Hash = Annotated[str | None, Query(pattern="^[0-9a-f]{64}$", description="hash of that entry, as noted")]
Limit = Annotated[int, Query(ge=1, le=500)]
Number = Annotated[int, Path(ge=1, le=2**53)]
_PLACE = "~"
"""Between moment and id of a place in the list of requests."""


class AuditRooms(Gateway, Protocol):
    """The rooms that these routes ask."""

    @property
    def audit(self) -> AuditTrail: ...
    @property
    def traffic(self) -> TrafficRecords: ...


Rooms = Annotated[AuditRooms, Depends(gateway)]


class EntryView(BaseModel):
    """One change: who changed what, from what to what."""

    n: int = Field(description="number in the chain, from 1")
    at: datetime
    actor: str
    address: str | None
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None
    source: str = Field(description="the record's place in the log of the process that wrote it")
    prev: str = Field(description="hash of the entry before it")
    hash: str


class EntryList(BaseModel):
    """Changes, newest first."""

    next_before: int | None = Field(description="`before` of the next page")
    data: list[EntryView]


class ReportView(BaseModel):
    """What the verification of the chain found."""

    ok: bool
    checked: int = Field(description="entries found good")
    first: int | None = Field(description="the oldest entry that is left")
    last: int = Field(description="the newest entry found good; 0: none")
    hash: str = Field(description="its hash; noted elsewhere, it proves later that nothing was taken away")
    bad: int | None = Field(description="the first entry that is not as it was written")
    wrong: Literal["changed", "missing", "reordered", "cut off", "foreign key"] | None
    detail: str


class TurnView(BaseModel):
    """Shape of one turn, or of the oldest turns of a very long conversation (`earlier`: how many)."""

    role: str | None = None
    length: int = Field(description="characters")
    images: int = 0
    digest: str | None = Field(None, description="keyed; equal texts have equal digests")
    earlier: int | None = None


class AnswerView(BaseModel):
    """Shape of the answer."""

    length: int = Field(description="characters")
    finish: str | None
    digest: str


class TrafficView(BaseModel):
    """The redacted shape of one request."""

    request_id: str
    at: datetime
    org: str
    key_id: str
    route: str
    model: str | None
    status: int
    error_code: str | None
    address: str | None
    stream: bool
    messages: list[TurnView]
    answer: AnswerView | None
    tokens: int
    seconds: float
    attempts: int
    replayed: bool
    kept: bool = Field(description="prompt and answer are there, sealed")


class TrafficList(BaseModel):
    """Requests, newest first."""

    next_after: str | None = Field(description="`after` of the next page")
    refused: int = Field(description="records that the store would not take from the answering process")
    data: list[TrafficView]


class OpenedView(TrafficView):
    """The same, with its text where that was asked for, is kept, and can be opened."""

    text: dict[str, Any] | None = None


class OpenedList(BaseModel):
    """All records of one request id, newest first: a caller may send its own id more than once."""

    request_id: str
    data: list[OpenedView]


async def entries(
    rooms: Rooms,
    limit: Limit = 50,
    before: Annotated[int | None, Query(ge=1, le=2**53, description="only entries with a smaller number")] = None,
    target: Annotated[str | None, Query(max_length=400, description="as `key:key_…`")] = None,
    actor: Name = None,
    action: Annotated[str | None, Query(max_length=200, description="as `key.create`")] = None,
    since: Annotated[Moment | None, Query(alias="from")] = None,
    until: Annotated[Moment | None, Query(alias="to", description="before then")] = None,
) -> EntryList:
    """What operators changed, newest first. What is shown is not verified: that is `/admin/audit/verify`."""
    where = ChangeFilter(target=target, actor=actor, action=action, since=since, until=until)
    found = await rooms.audit.entries(where, limit, before)
    more = found[-1].n if len(found) == limit else None
    return EntryList(next_before=more, data=[EntryView(**msgspec.structs.asdict(each)) for each in found])


async def verify(
    rooms: Rooms,
    n: Annotated[int | None, Query(ge=1, le=2**53, description="number of an entry that was noted elsewhere")] = None,
    hash: Hash = None,
) -> ReportView:
    """Walk the whole chain and tell the first entry that was changed, taken away, moved or added.

    With `n` and `hash` also that this entry is still the one that was noted: against those who hold the keys, too.
    """
    if (n is None) != (hash is None):
        raise InvalidRequest("Give 'n' and 'hash' together.", param="n" if n is None else "hash")
    report = await rooms.audit.verify(None if n is None or hash is None else (n, hash))
    return ReportView(**msgspec.structs.asdict(report))


async def entry(n: Number, rooms: Rooms) -> EntryView:
    """One change."""
    found = await rooms.audit.entry(n)
    if found is None:
        raise NotFound("There is no entry of this number, or not any more.", code="audit_entry_not_found")
    return EntryView(**msgspec.structs.asdict(found))


async def traffic(
    rooms: Rooms,
    limit: Limit = 50,
    key: Annotated[str | None, Query(max_length=64, description="id of a service key")] = None,
    org: Annotated[str | None, Query(max_length=64, description="id of an organisation")] = None,
    request: Annotated[str | None, Query(max_length=128, description="id of a request")] = None,
    since: Annotated[Moment | None, Query(alias="from")] = None,
    until: Annotated[Moment | None, Query(alias="to", description="before then")] = None,
    after: Annotated[str | None, Query(max_length=200, description="`next_after` of the page before")] = None,
) -> TrafficList:
    """The shape of requests, newest first: roles, lengths and keyed digests, no text."""
    where = TrafficFilter(request_id=request, key_id=key, org=org, since=since, until=until)
    found, more = await rooms.traffic.newest(where, limit, None if after is None else _place(after))
    place = None if more is None else f"{more[0].isoformat()}{_PLACE}{more[1]}"
    data = [TrafficView(**_shape(each)) for each in found]
    return TrafficList(next_after=place, refused=rooms.traffic.refused, data=data)


async def request_traffic(
    request_id: Annotated[str, Path(max_length=128)],
    request: Request,
    rooms: Rooms,
    text: Annotated[bool, Query(description="open the kept text; that is written down as a change is")] = False,
) -> OpenedList:
    """The records of one request. Its text is shown with `text=true` only, where the organisation has it kept."""
    found = await rooms.traffic.of(request_id)
    if not found:
        raise NotFound("There is no record of this request, or not any more.", code="traffic_not_found")
    if text:
        # First the note, then the text: who reads cannot do so unseen.
        audited(request, "traffic.read", f"request:{request_id}", after={"orgs": _orgs(found)})
    return OpenedList(
        request_id=request_id,
        data=[
            OpenedView(**_shape(each), text=rooms.traffic.open(each.sealed) if text and each.sealed else None)
            for each in found
        ],
    )


def _orgs(records: Sequence[Traffic]) -> list[str]:
    return sorted({each.org for each in records})


def _shape(record: Traffic) -> dict[str, Any]:
    fields = msgspec.structs.asdict(record)
    sealed = fields.pop("sealed")
    return {**fields, "answer": record.answer or None, "kept": sealed is not None}


def _place(text: str) -> tuple[datetime, str]:
    moment, _, record = text.partition(_PLACE)
    try:
        at = datetime.fromisoformat(moment)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or not record:
        raise InvalidRequest("'after' is not a place that a page told.", param="after")
    return at, record


def router() -> APIRouter:
    """Under /admin. ``/audit/verify`` comes before ``/audit/{n}``."""
    routes = APIRouter(prefix="/admin", tags=["admin: audit"], route_class=AdminRoute)
    routes.add_api_route("/audit", entries, methods=["GET"], responses=errors(422))
    routes.add_api_route("/audit/verify", verify, methods=["GET"], responses=errors(400, 422))
    routes.add_api_route("/audit/{n}", entry, methods=["GET"], responses=errors(404, 422))
    routes.add_api_route("/traffic", traffic, methods=["GET"], responses=errors(400, 422))
    routes.add_api_route("/traffic/{request_id}", request_traffic, methods=["GET"], responses=errors(404, 422))
    return routes
