"""Routes on the pool as a whole: numbers, balances, catalogues, providers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from poe_gateway.api.admin.audited import audited
from poe_gateway.api.admin.forms import RefreshAllForm, RefreshForm
from poe_gateway.api.admin.views import AccountView, shown
from poe_gateway.api.deps import AdminRoute, Rooms, errors
from poe_gateway.errors import InvalidRequest
from poe_gateway.upstreams.base import Upstream

_TOLD_FAILURES = 100


class SummaryView(BaseModel):
    """The pool in numbers, as of now."""

    total: int
    ready: int = Field(description="accounts that may serve")
    paused: int
    by_state: dict[str, int]
    by_provider: dict[str, dict[str, int]]
    by_cause: dict[str, int] = Field(description="why accounts are not active")
    points: dict[str, int] = Field(description="points left by provider, measured or estimated")
    estimated: int = Field(description="accounts whose points nobody measured")
    inflight: int = Field(description="requests that the answering process runs")
    waiting: int = Field(description="requests that wait in the answering process")


class RefreshAllView(BaseModel):
    """How the round went."""

    total: int
    refreshed: int
    skipped: int
    failed: int
    failures: dict[str, str] = Field(description="account id to error code; at most 100")


class ReloadView(BaseModel):
    """The catalogues after the reload."""

    models: dict[str, int] = Field(description="number of models by offer")
    errors: dict[str, str] = Field(description="error code by offer; its old catalogue stays in use")


class CredentialFieldView(BaseModel):
    """One field of the credentials."""

    name: str
    required: bool
    secret: bool
    type: str
    description: str


class ProviderView(BaseModel):
    """A provider that accounts may belong to."""

    provider: str
    capabilities: dict[str, bool]
    credentials: list[CredentialFieldView]


class ProviderList(BaseModel):
    """All providers."""

    data: list[ProviderView]


async def summary(rooms: Rooms) -> SummaryView:
    """Counts and points."""
    counts = rooms.desk.summary()
    return SummaryView(
        total=counts.total,
        ready=counts.ready,
        paused=counts.paused,
        by_state=counts.by_state,
        by_provider=counts.by_provider,
        by_cause=counts.by_cause,
        points=counts.points,
        estimated=counts.estimated,
        inflight=rooms.broker.whole.used,
        waiting=len(rooms.broker.line),
    )


async def refresh_points(form: RefreshForm, request: Request, rooms: Rooms) -> AccountView:
    """Measure one account's balance now, by `id` or by `email`. A challenged account is not contacted (409)."""
    if (form.id is None) == (form.email is None):
        raise InvalidRequest("Give either 'id' or 'email'.", param="email")
    account_id = form.id
    if account_id is None:
        account_id = (await rooms.desk.find(form.provider, form.email or "")).id
    account = await rooms.care.refresh(account_id)
    audited(request, "account.refresh", f"account:{account_id}", after={"points": account.balance.points})
    return shown(rooms.desk, account)


async def refresh_all(request: Request, rooms: Rooms, form: RefreshAllForm | None = None) -> RefreshAllView:
    """Measure the balances of all accounts in the given states, challenged ones excepted."""
    form = form or RefreshAllForm()
    chosen = rooms.care.measurable(form.statuses)
    tally = await rooms.care.refresh_many(chosen, concurrency=form.concurrency)
    figures = {"total": tally.total, "refreshed": tally.succeeded, "failed": len(tally.failures)}
    audited(request, "account.refresh_all", "accounts", after={"statuses": form.statuses, **figures})
    return RefreshAllView(
        total=tally.total,
        refreshed=tally.succeeded,
        skipped=tally.skipped,
        failed=len(tally.failures),
        failures=dict(list(tally.failures.items())[:_TOLD_FAILURES]),
    )


async def reload_models(request: Request, rooms: Rooms) -> ReloadView:
    """Read the catalogues of all offers again."""
    report = await rooms.care.catalogues.reload()
    audited(request, "models.reload", "models", after={"models": report.models, "errors": report.errors})
    return ReloadView(models=report.models, errors=report.errors)


async def providers(rooms: Rooms) -> ProviderList:
    """Providers and the credentials that their accounts need."""
    return ProviderList(data=[_provider(upstream) for _, upstream in sorted(rooms.upstreams.items())])


def _provider(upstream: Upstream) -> ProviderView:
    able = upstream.capabilities
    return ProviderView(
        provider=upstream.name,
        capabilities={name: bool(getattr(able, name)) for name in able.__struct_fields__},
        credentials=[
            CredentialFieldView(
                name=field.name,
                required=field.required,
                secret=field.secret,
                type=field.kind.__name__,
                description=field.description,
            )
            for field in upstream.credential_fields
        ],
    )


def router() -> APIRouter:
    """Routes under /admin."""
    routes = APIRouter(prefix="/admin", tags=["admin: pool"], route_class=AdminRoute)
    routes.add_api_route("/accounts/summary", summary, methods=["GET"])
    routes.add_api_route(
        "/accounts/refresh-points", refresh_points, methods=["POST"], responses=errors(400, 404, 409, 422, 502)
    )
    routes.add_api_route("/accounts/refresh-all", refresh_all, methods=["POST"], responses=errors(422))
    routes.add_api_route("/models/reload", reload_models, methods=["POST"])
    routes.add_api_route("/providers", providers, methods=["GET"])
    return routes
