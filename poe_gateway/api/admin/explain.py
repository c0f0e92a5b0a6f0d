"""Routes that explain: the records of decisions, and the history of accounts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

import msgspec
from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, BaseModel, Field

from poe_gateway.api.deps import AdminRoute, Gateway, errors, gateway
from poe_gateway.errors import NotFound
from poe_gateway.explain.decisions import DecisionLog, Filter, Found
from poe_gateway.explain.entry_words import entry_in_words
from poe_gateway.explain.history import AccountEntry, HistoryLog
from poe_gateway.explain.words import in_words
from poe_gateway.pool.decision import Choice, Decision

_LINES = 200
"""Lines of an export that are sent at a time."""
NDJSON = "application/x-ndjson"


class Archive(Gateway, Protocol):
    """The rooms that these routes ask."""

    @property
    def decisions(self) -> DecisionLog: ...
    @property
    def history(self) -> HistoryLog: ...


Records = Annotated[Archive, Depends(gateway)]


def _moment(at: datetime) -> datetime:
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        raise ValueError("out of range") from None


Moment = Annotated[datetime, AfterValidator(_moment)]
"""ISO 8601; without an offset it is UTC."""
Name = Annotated[str | None, Query(max_length=200)]


class ChoiceView(BaseModel):
    """How one slot was won, or why none was to be had."""

    strategy: str
    candidates: dict[str, int] = Field(description="accounts left after each filter")
    passed_over: dict[str, int] = Field(description="reason to number of accounts")
    sample: dict[str, str] = Field(description="reasons of a few accounts")
    scores: dict[str, float] = Field(description="of the accounts that were compared last")
    need: int = Field(description="points that the request was believed to cost at most; 0: not known or free")
    account_id: str | None
    how: str = Field(description="chosen, affinity, borrowed, prefix, queued, client_gone, or the code of the refusal")
    wait_seconds: float
    position: int = Field(description="place in the line at joining, from 1; 0: did not wait")


class TryView(BaseModel):
    """One attempt on one account."""

    number: int
    account_id: str
    outcome: str
    fate: str | None = Field(description="of the message: not_sent, unknown or accepted")
    detail: str
    charged_to: str = Field(description="account, account+model, egress, adapter or request")
    withheld: str = Field(description="why the account's state was not changed")
    seconds: float
    ttft_seconds: float | None
    points: int | None


class DecisionView(BaseModel):
    """The record of one request."""

    request_id: str
    at: datetime
    process: str
    key_id: str
    model: str
    asked: str = Field(description="the model's name as the caller wrote it, where routing changed it")
    profile: str = Field(description="profiles that had a say")
    tier: str
    label: str = Field(description="what the classifier said")
    escalations: int = Field(description="legs that were left for the next one")
    judged: str = Field(
        description="why the answer was not good enough (refusal, short, empty), where no later leg had a better one"
    )
    offers: list[str]
    fingerprint: str = Field(description="digest of the body; the text is kept nowhere")
    session: str
    tokens: int
    choices: list[ChoiceView]
    tries: list[TryView]
    status: int
    error_code: str | None
    seconds: float


class ExplainedView(DecisionView):
    """The same, told in sentences."""

    text: str


class ExplanationView(BaseModel):
    """All records of one request id, newest first: a caller may send its own id more than once."""

    request_id: str
    complete: bool = Field(description="false: only what the answering process remembers")
    names: dict[str, str] = Field(description="what the keys and accounts in it are called now, by id")
    data: list[ExplainedView]


class DecisionList(BaseModel):
    """Records, newest first."""

    complete: bool = Field(description="false: only what the answering process remembers")
    lost: int = Field(description="records of the answering process that never came to the store")
    data: list[DecisionView]


class EntryView(BaseModel):
    """One thing that happened to an account."""

    at: datetime
    kind: str = Field(description="health, balance, failure, operator or alert")
    text: str
    process: str
    facts: dict[str, Any]


class HistoryPage(BaseModel):
    """What happened to one account, newest first."""

    account_id: str
    next_before: datetime | None = Field(description="`before` of the next page")
    data: list[EntryView]


async def explain(request_id: Annotated[str, Path(max_length=128)], rooms: Records) -> ExplanationView:
    """Why a request got what it got: accounts, reasons, scores, waits and attempts, and all of it in sentences.

    `request_id` is the `x-request-id` of the answer. Requests that other processes served are found within a second;
    requests that were refused before they were understood (bad bodies, unknown keys) leave no record.
    """
    found: Found = await rooms.decisions.find(request_id)
    if not found.decisions:
        raise NotFound("There is no record of this request, or not any more.", code="decision_not_found")
    data = [ExplainedView(**_fields(each), text=in_words(each)) for each in found.decisions]
    keys = {each.key_id for each in found.decisions}
    names = names_of(rooms, keys, [choice for each in found.decisions for choice in each.choices])
    return ExplanationView(request_id=request_id, complete=found.complete, names=names, data=data)


async def decisions(
    rooms: Records,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    model: Name = None,
    key: Annotated[str | None, Query(max_length=200, description="id of a service key")] = None,
    account: Annotated[str | None, Query(max_length=200, description="chosen or tried")] = None,
    outcome: Annotated[str | None, Query(max_length=200, description="of any attempt, as `RateLimited`")] = None,
    code: Annotated[str | None, Query(max_length=200, description="error code")] = None,
    since: Moment | None = None,
) -> DecisionList:
    """The newest records that fit all given filters."""
    where = Filter(model=model, key_id=key, account_id=account, outcome=outcome, error_code=code, since=since)
    found = await rooms.decisions.newest(limit, where)
    data = [DecisionView(**_fields(each)) for each in found.decisions]
    return DecisionList(complete=found.complete, lost=rooms.decisions.lost, data=data)


async def export(rooms: Records, since: Moment | None = None, until: Moment | None = None) -> StreamingResponse:
    """All records from `since` on and before `until` (default: now), oldest first, one JSON object a line.

    A transfer that breaks off is not whole.
    """
    records = rooms.decisions.export(since, until or rooms.clock.now())
    first = await anext(records, None)  # a database that is away is told before anything is sent
    return StreamingResponse(_lines(first, records), media_type=NDJSON)


async def _lines(first: Decision | None, records: AsyncGenerator[Decision, None]) -> AsyncGenerator[bytes, None]:
    lines = [] if first is None else [msgspec.json.encode(first)]
    async with aclosing(records):
        async for each in records:
            lines.append(msgspec.json.encode(each))
            if len(lines) >= _LINES:
                yield b"\n".join(lines) + b"\n"
                lines.clear()
    if lines:
        yield b"\n".join(lines) + b"\n"


async def history(
    account_id: Annotated[str, Path(max_length=64)],
    rooms: Records,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    before: Moment | None = None,
) -> HistoryPage:
    """What happened to an account and why, newest first; a deleted account's history stays for its time.

    Entries of the same moment come on one page, which may be longer than `limit` by them.
    """
    entries = await rooms.history.of(account_id, limit, before)
    if not entries and before is None:
        await rooms.desk.get(account_id)
    more = entries[-1].at if len(entries) >= limit else None
    return HistoryPage(account_id=account_id, next_before=more, data=[_entry(each) for each in entries])


def names_of(rooms: Gateway, key_ids: Collection[str], choices: Iterable[Choice]) -> dict[str, str]:
    """What these keys, and the accounts that the choices speak of, are called; those that are gone are left out."""
    keys = rooms.keyring.keys()
    names = {key.id: key.name for key in keys if key.id in key_ids}
    for choice in choices:
        for account_id in (choice.account_id, *choice.scores, *choice.sample):
            account = None if account_id is None else rooms.broker.account(account_id)
            if account is not None:
                names[account.id] = account.name
    return names


def shown_choice(choice: Choice) -> ChoiceView:
    """The view of a choice."""
    return ChoiceView(**msgspec.to_builtins(choice))


def _fields(decision: Decision) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(decision, builtin_types=(datetime,))
    return fields


def _entry(entry: AccountEntry) -> EntryView:
    facts: dict[str, Any] = msgspec.to_builtins(entry)
    kind = facts.pop("kind")
    del facts["account_id"], facts["at"], facts["process"]
    return EntryView(at=entry.at, kind=kind, text=entry_in_words(entry), process=entry.process, facts=facts)


def router() -> APIRouter:
    """Explanations under /admin."""
    routes = APIRouter(prefix="/admin", tags=["admin: explanation"], route_class=AdminRoute)
    routes.add_api_route("/explain/{request_id}", explain, methods=["GET"], responses=errors(404, 422))
    routes.add_api_route("/decisions", decisions, methods=["GET"], responses=errors(422))
    routes.add_api_route(
        "/decisions/export",
        export,
        methods=["GET"],
        response_class=StreamingResponse,
        responses={
            200: {
                "content": {
                    NDJSON: {"schema": DecisionView.model_json_schema(ref_template="#/components/schemas/{model}")}
                }
            },
            **errors(422),
        },
    )
    routes.add_api_route("/accounts/{account_id}/history", history, methods=["GET"], responses=errors(404, 422))
    return routes
