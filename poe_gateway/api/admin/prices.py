"""Routes on price rules, and the question what something would cost."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, Field

from poe_gateway.api.admin.audited import audited
from poe_gateway.api.admin.price_forms import PriceForm, QuestionForm, documented, exactly
from poe_gateway.api.deps import AdminRoute, Gateway, Rooms, errors
from poe_gateway.errors import Conflict, InvalidRequest, NotFound
from poe_gateway.metering.pricelist import PriceConflict, rule_id
from poe_gateway.metering.pricing import PriceRule, Usage, figure, price, reason
from poe_gateway.money import shown

RuleId = Annotated[str, Path(max_length=64)]
OrgFilter = Annotated[str | None, Query(max_length=100, description="only rules of this organisation, by id or name")]


class PriceView(BaseModel):
    """One version of a rule. Prices are decimal numbers as text."""

    id: str
    version: int
    org: str | None
    provider: str | None
    model: str | None
    currency: str
    input: str | None = Field(description="per million tokens, as are output and cached")
    output: str | None
    cached: str | None
    request: str | None
    point: str | None
    markup_percent: str
    valid_from: datetime
    retired_at: datetime | None
    created_at: datetime
    note: str


class PriceListView(BaseModel):
    """Rules, the most specific first."""

    data: list[PriceView]


class CostView(BaseModel):
    """What it costs, as decimal numbers in text."""

    raw: str | None
    billed: str | None
    currency: str
    source: Literal["upstream", "rule"]
    rule: str | None = Field(description="id and version of the rule that was applied")


class Candidate(BaseModel):
    """A rule that matches. The first one wins."""

    why: str
    rule: PriceView


class AnswerView(BaseModel):
    """What it would cost, and by which rule."""

    cost: CostView | None = Field(description="null: nobody knows")
    why: str
    candidates: list[Candidate]


async def prices(rooms: Rooms, org: OrgFilter = None) -> PriceListView:
    """The rules in force, and versions to come."""
    await rooms.pricelist.refresh()
    only = None if org is None else await _org(rooms, org)
    return PriceListView(data=[_shown(each) for each in rooms.pricelist.rules() if only in (None, each.org)])


async def get(price_id: RuleId, rooms: Rooms) -> PriceListView:
    """All versions of one rule, the newest first."""
    await rooms.pricelist.refresh()
    versions = rooms.pricelist.versions(price_id)
    if not versions:
        raise _unknown()
    return PriceListView(data=[_shown(each) for each in reversed(versions)])


async def create(request: Request, form: Annotated[PriceForm, Depends(exactly(PriceForm))], rooms: Rooms) -> PriceView:
    """Make a rule, or a new version of the one with this organisation, provider and model. It ends the others."""
    await rooms.pricelist.refresh()
    if form.provider is not None:
        _check_provider(rooms, form.provider)
    draft = form.draft(None if form.org is None else await _org(rooms, form.org))
    earlier = rooms.pricelist.versions(rule_id(draft.org, draft.provider, draft.model))
    try:
        rule = await rooms.pricelist.put(draft)
    except PriceConflict:
        raise _busy() from None
    view = _shown(rule)
    audited(
        request,
        "price.update" if earlier else "price.create",
        f"price:{rule.id}",
        before=_shown(earlier[-1]).model_dump(mode="json") if earlier else None,
        after=view.model_dump(mode="json"),
    )
    return view


async def retire(request: Request, price_id: RuleId, rooms: Rooms) -> PriceView:
    """End a rule now. Its versions stay readable, for the ledger names them."""
    await rooms.pricelist.refresh()
    present = rooms.pricelist.versions(price_id)
    try:
        rule = await rooms.pricelist.retire(price_id)
    except PriceConflict:
        raise _busy() from None
    if rule is None:
        raise _unknown()
    view = _shown(rule)
    if rule.retired_at != present[-1].retired_at:
        before = _shown(present[-1]).model_dump(mode="json")
        audited(request, "price.retire", f"price:{rule.id}", before=before, after=view.model_dump(mode="json"))
    return view


async def test(form: Annotated[QuestionForm, Depends(exactly(QuestionForm))], rooms: Rooms) -> AnswerView:
    """What would this usage cost, under which rule, and why that one? Nothing is changed."""
    await rooms.pricelist.refresh()
    _check_provider(rooms, form.provider)
    org = None if form.org is None else await _org(rooms, form.org)
    candidates = rooms.pricelist.ranked(org, form.provider, form.model, form.at or rooms.clock.now())
    rule = candidates[0] if candidates else None
    usage = Usage(
        prompt_tokens=form.prompt_tokens,
        completion_tokens=form.completion_tokens,
        cached_tokens=form.cached_tokens,
        points=form.points,
        told=None if form.raw_cost is None else (f"{form.raw_cost:f}", form.raw_currency),
    )
    cost = price(rule, usage)
    return AnswerView(
        cost=None
        if cost is None
        else CostView(
            raw=None if cost.raw is None else shown(cost.raw, cost.unit),
            billed=None if cost.billed is None else shown(cost.billed, cost.unit),
            currency=cost.unit,
            source=cost.source,
            rule=cost.rule,
        ),
        why=_why(rule, len(candidates), told=figure(usage.told) is not None, known=cost is not None),
        candidates=[Candidate(why=reason(each), rule=_shown(each)) for each in candidates],
    )


def _why(rule: PriceRule | None, of: int, *, told: bool, known: bool) -> str:
    source = "The upstream's own figure counts" if told else "The prices of the rule count"
    if rule is None:
        return f"{source}; no rule matches, so there is no markup." if told else "No rule matches."
    if not known:
        return f"{rule.name} wins, but has no price for this usage."
    least = f" as the most specific of {of}" if of > 1 else ", the only one that matches"
    return f"{source}. {rule.name} applies{least}: it is {reason(rule)}. Markup: {rule.markup_percent:f} %."


async def _org(rooms: Gateway, named: str) -> str:
    await rooms.keyring.refresh()
    org = rooms.keyring.org(named)
    if org is None:
        raise InvalidRequest("There is no such organisation.", param="org", code="unknown_org")
    return org.id


def _check_provider(rooms: Gateway, provider: str) -> None:
    if provider not in rooms.upstreams:
        known = ", ".join(sorted(rooms.upstreams))
        raise InvalidRequest(f"Unknown provider; known: {known}.", param="provider", code="unknown_provider")


def _shown(rule: PriceRule) -> PriceView:
    return PriceView(
        id=rule.id,
        version=rule.version,
        org=rule.org,
        provider=rule.provider,
        model=rule.model,
        currency=rule.currency,
        input=_text(rule.input),
        output=_text(rule.output),
        cached=_text(rule.cached),
        request=_text(rule.request),
        point=_text(rule.point),
        markup_percent=_text(rule.markup_percent) or "0",
        valid_from=rule.valid_from,
        retired_at=rule.retired_at,
        created_at=rule.created_at,
        note=rule.note,
    )


def _text(value: Decimal | None) -> str | None:
    """Without idle zeros and exponents."""
    if value is None:
        return None
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _unknown() -> NotFound:
    return NotFound("There is no such price rule.", code="price_not_found")


def _busy() -> Conflict:
    return Conflict("Others change this rule at the same moment.", code="price_conflict")


def router() -> APIRouter:
    """Routes under /admin/prices."""
    routes = APIRouter(prefix="/admin/prices", tags=["admin: prices"], route_class=AdminRoute)
    routes.add_api_route("", prices, methods=["GET"], responses=errors(400))
    routes.add_api_route(
        *("", create),
        methods=["POST"],
        status_code=201,
        responses=errors(400, 409, 422),
        openapi_extra=documented(PriceForm),
    )
    routes.add_api_route(
        "/test", test, methods=["POST"], responses=errors(400, 422), openapi_extra=documented(QuestionForm)
    )
    routes.add_api_route("/{price_id}", get, methods=["GET"], responses=errors(404))
    routes.add_api_route("/{price_id}", retire, methods=["DELETE"], responses=errors(404, 409))
    return routes
