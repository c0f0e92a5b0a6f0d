"""Routes on accounts."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field

from poe_gateway.accounts.terms import MAX_LABELS, PRIORITY, Terms
from poe_gateway.accounts.visits import AccountNotFound
from poe_gateway.api.admin.audited import audited, differing
from poe_gateway.api.admin.forms import POE, BulkForm, Label, PoeAccountForm, Status, TermsForm, TestForm, UpsertForm
from poe_gateway.api.admin.views import AccountPage, AccountView, UpsertView, shown, shown_after_upsert
from poe_gateway.api.deps import AdminRoute, Rooms, errors
from poe_gateway.pool.account import Account
from poe_gateway.pool.store import StoreUnavailable

AccountId = Annotated[str, Path(max_length=64)]


class Deleted(BaseModel):
    """The account is gone."""

    id: str
    deleted: bool = True


class BulkView(BaseModel):
    """What was changed, or would be."""

    dry_run: bool
    matched: int = Field(description="accounts that are meant")
    changed: int = Field(description="those of them that are (would be) otherwise than before")
    ids: list[str] = Field(description="of the changed ones, at most 100")


class TestView(BaseModel):
    """How the test went."""

    __test__ = False

    ok: bool
    step: str
    outcome: str
    message: str
    detail: str
    seconds: float
    account: AccountView


async def upsert(form: UpsertForm, request: Request, rooms: Rooms) -> UpsertView:
    """Store an account, or fresh credentials for it.

    Idempotent by provider and name (e-mail, in any case). The credentials are replaced as a whole, the account is
    active again; a pause stays, and so do priority, weight, labels and ceilings that are left out. No answer ever
    holds a credential.
    """
    if isinstance(form, PoeAccountForm):
        provider, name, credentials = POE, form.email, form.credentials()
    else:
        provider, name, credentials = form.provider, form.name, form.credentials
    before = await _stored(rooms, provider, name)
    account, created = await rooms.desk.upsert(provider, name, credentials, terms=form.terms())
    told = differing(before, _told(account), handed_in=sorted(credentials))
    audited(
        request,
        "account.upsert",
        f"account:{account.id}",
        before=told["before"] if before else None,
        after=told["after"],
    )
    return shown_after_upsert(rooms.desk, account, created=created)


async def _stored(rooms: Rooms, provider: str, name: str) -> dict[str, Any]:
    """What an operator sets of the account that is about to be changed; empty: it is new."""
    if not name.isprintable():
        return {}  # such a name is refused
    try:
        return _told(await rooms.desk.find(provider, name.strip()))
    except AccountNotFound:
        return {}


def _told(account: Account) -> dict[str, Any]:
    """What an operator sets, for the audit chain."""
    terms = {name: getattr(account, name) for name in Terms.__struct_fields__}
    return {"provider": account.provider, "name": account.name, "intent": account.intent, **terms}


def _health(account: Account) -> dict[str, Any]:
    return {"state": account.health.state, "cause": account.health.cause}


async def page(
    rooms: Rooms,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    page_size: Annotated[int, Query(ge=1, le=200)] = 20,
    status: Annotated[list[Status] | None, Query(description="any of these, as of now; may be repeated")] = None,
    provider: Annotated[str | None, Query(max_length=64)] = None,
    min_balance: Annotated[int | None, Query(ge=-(2**53), le=2**53)] = None,
    max_balance: Annotated[int | None, Query(ge=-(2**53), le=2**53)] = None,
    q: Annotated[str | None, Query(max_length=200, description="part of the name, in any case")] = None,
    label: Annotated[
        list[Label] | None, Query(max_length=MAX_LABELS, description="carries all of these; may be repeated")
    ] = None,
    priority: Annotated[int | None, Query(ge=PRIORITY[0], le=PRIORITY[1])] = None,
) -> AccountPage:
    """Accounts, oldest first. Nothing is decrypted for it."""
    accounts, total = await rooms.desk.page(
        page=page,
        page_size=page_size,
        status=status or (),
        provider=provider,
        min_balance=min_balance,
        max_balance=max_balance,
        text=q,
        labels=label or (),
        priority=priority,
    )
    data = [shown(rooms.desk, account) for account in accounts]
    return AccountPage(page=page, page_size=page_size, total=total, data=data)


async def one(account_id: AccountId, rooms: Rooms) -> AccountView:
    """One account."""
    return shown(rooms.desk, await rooms.desk.get(account_id))


async def patch(account_id: AccountId, form: TermsForm, request: Request, rooms: Rooms) -> AccountView:
    """Change priority, weight, labels or ceilings and nothing else. What is left out stays; null is the default.

    In force in every process within seconds; requests that run are not touched.
    """
    before = await rooms.desk.get(account_id)
    account = await rooms.desk.set_terms(account_id, form.terms())
    audited(request, "account.change", f"account:{account_id}", **differing(_told(before), _told(account)))
    return shown(rooms.desk, account)


async def patch_many(form: BulkForm, request: Request, rooms: Rooms) -> BulkView:
    """The same for all accounts that fit a filter. With `dry_run` nothing changes and the answer tells what would.

    May be repeated: after a failure in the middle, what was changed stays changed.
    """
    asked = {"filter": form.filter.model_dump(), "set": form.set.model_dump(exclude_unset=True)}
    try:
        done = await rooms.desk.set_terms_of(form.filter.chosen(), form.set.terms(), dry_run=form.dry_run)
    except StoreUnavailable:
        if not form.dry_run:  # some may be changed by now
            audited(request, "account.change_many", "accounts", after={**asked, "finished": False})
        raise
    if not form.dry_run:
        figures = {"matched": done.matched, "changed": done.changed, "ids": done.ids}
        audited(request, "account.change_many", "accounts", after={**asked, **figures})
    return BulkView(dry_run=form.dry_run, matched=done.matched, changed=done.changed, ids=list(done.ids))


async def delete(account_id: AccountId, request: Request, rooms: Rooms) -> Deleted:
    """Remove the account with its credentials and sessions. Running answers come to their end."""
    before = await rooms.desk.get(account_id)
    await rooms.desk.delete(account_id)
    audited(request, "account.delete", f"account:{account_id}", before=_told(before))
    return Deleted(id=account_id)


async def pause(account_id: AccountId, request: Request, rooms: Rooms) -> AccountView:
    """No new requests on this account until it is resumed."""
    before = await rooms.desk.get(account_id)
    account = await rooms.desk.pause(account_id)
    audited(request, "account.pause", f"account:{account_id}", **differing(_told(before), _told(account)))
    return shown(rooms.desk, account)


async def resume(account_id: AccountId, request: Request, rooms: Rooms) -> AccountView:
    """End a pause. The account's health is what it is."""
    before = await rooms.desk.get(account_id)
    account = await rooms.desk.resume(account_id)
    audited(request, "account.resume", f"account:{account_id}", **differing(_told(before), _told(account)))
    return shown(rooms.desk, account)


async def clear_cooldown(account_id: AccountId, request: Request, rooms: Rooms) -> AccountView:
    """Vouch for the account: rests, model blocks, invalidity and even a challenge end."""
    before = await rooms.desk.get(account_id)
    account = await rooms.desk.clear_cooldown(account_id)
    audited(request, "account.clear_cooldown", f"account:{account_id}", **differing(_health(before), _health(account)))
    return shown(rooms.desk, account)


async def test(account_id: AccountId, request: Request, rooms: Rooms, form: TestForm | None = None) -> TestView:
    """One real, cheap round trip that says what failed. A challenged account is contacted only with `force`."""
    force = form is not None and form.force
    report = await rooms.desk.test(account_id, force=force)
    audited(request, "account.test", f"account:{account_id}", after={"force": force, "ok": report.ok})
    return TestView(
        ok=report.ok,
        step=report.step,
        outcome=report.outcome,
        message=report.message,
        detail=report.detail,
        seconds=round(report.seconds, 3),
        account=shown(rooms.desk, report.account),
    )


def router() -> APIRouter:
    """Routes under /admin/accounts; those with a fixed last part are ``pool``'s and come first."""
    routes = APIRouter(prefix="/admin/accounts", tags=["admin: accounts"], route_class=AdminRoute)
    routes.add_api_route("/upsert", upsert, methods=["POST"], responses=errors(400, 422))
    routes.add_api_route("", page, methods=["GET"], responses=errors(422))
    routes.add_api_route("/{account_id}", one, methods=["GET"], responses=errors(404))
    routes.add_api_route("/patch", patch_many, methods=["POST"], responses=errors(422))
    routes.add_api_route("/{account_id}", patch, methods=["PATCH"], responses=errors(404, 422))
    routes.add_api_route("/{account_id}", delete, methods=["DELETE"], responses=errors(404))
    routes.add_api_route("/{account_id}/pause", pause, methods=["POST"], responses=errors(404))
    routes.add_api_route("/{account_id}/resume", resume, methods=["POST"], responses=errors(404))
    routes.add_api_route("/{account_id}/clear-cooldown", clear_cooldown, methods=["POST"], responses=errors(404))
    routes.add_api_route("/{account_id}/test", test, methods=["POST"], responses=errors(404, 409))
    return routes
