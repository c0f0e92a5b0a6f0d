"""How keys and organisations are shown to the operator: never with a key's text or hash."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from poe_gateway.auth.keys import ServiceKey
from poe_gateway.auth.orgs import Org
from poe_gateway.limits.terms import Budget, BudgetPeriod, Rates
from poe_gateway.money import shown


class LimitsView(BaseModel):
    """Rates; null: the default applies, 0 or less: unlimited."""

    requests_minute: int | None
    requests_hour: int | None
    requests_day: int | None
    tokens_minute: int | None
    tokens_hour: int | None
    tokens_day: int | None
    parallel: int | None


class BudgetView(BaseModel):
    """One budget."""

    unit: str
    period: BudgetPeriod
    amount: str = Field(description="a decimal number")


class KeyView(BaseModel):
    """One service key, without its text."""

    id: str
    name: str
    org: str = Field(description="id of its organisation")
    enabled: bool
    bootstrap: bool = Field(description="came from SERVICE_API_KEYS_BOOTSTRAP")
    created_at: datetime
    expires_at: datetime | None = Field(description="from then on it does not work")
    revoked_at: datetime | None
    last_rotated_at: datetime | None
    previous_until: datetime | None = Field(description="until then the text before the last rotation works")
    priority: int = Field(description="requests of a higher priority wait less")
    weight: int = Field(description="turns in the queue against other keys of the priority")
    providers: list[str] = Field(description="only accounts of these providers; empty for all")
    labels: list[str] = Field(description="only accounts that carry all of these")
    without: list[str] = Field(description="only accounts that carry none of these")
    models: list[str] = Field(description="globs of model names that it may use; empty for all")
    addresses: list[str] = Field(description="networks that it may be used from; empty for all")
    limits: LimitsView
    budgets: list[BudgetView]
    note: str


class NewKeyView(KeyView):
    """A key with its new text, which is kept nowhere."""

    key: str


class KeyList(BaseModel):
    """Keys, oldest first."""

    data: list[KeyView]


class OrgView(BaseModel):
    """One organisation."""

    id: str
    name: str
    enabled: bool
    limits: LimitsView
    budgets: list[BudgetView]
    keep_text: bool = Field(description="its requests' text is kept, sealed, for the auditor")
    note: str
    created_at: datetime | None = Field(description="null for the default organisation until it is changed")
    keys: int = Field(description="keys that are not revoked")


class OrgList(BaseModel):
    """Organisations: the default one, then oldest first."""

    data: list[OrgView]


def shown_key(key: ServiceKey) -> KeyView:
    """The view of a key."""
    return KeyView(
        id=key.id,
        name=key.name,
        org=key.org,
        enabled=key.enabled and key.revoked_at is None,
        bootstrap=key.bootstrap,
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_rotated_at=key.last_rotated_at,
        previous_until=key.previous_until,
        priority=key.priority,
        weight=key.weight,
        providers=list(key.providers),
        labels=list(key.labels),
        without=list(key.without),
        models=list(key.models),
        addresses=list(key.addresses),
        limits=_limits(key.rates),
        budgets=_budgets(key.budgets),
        note=key.note,
    )


def shown_org(org: Org, keys: int) -> OrgView:
    """The view of an organisation that has so many keys."""
    return OrgView(
        id=org.id,
        name=org.name,
        enabled=org.enabled,
        limits=_limits(org.rates),
        budgets=_budgets(org.budgets),
        keep_text=org.keep_text,
        note=org.note,
        created_at=org.created_at,
        keys=keys,
    )


def changed(before: BaseModel, after: BaseModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """What two views of one thing have otherwise, for the audit chain."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    names = [name for name in new if old.get(name) != new[name]]
    return {name: old.get(name) for name in names}, {name: new[name] for name in names}


def _limits(rates: Rates) -> LimitsView:
    return LimitsView(**{name: getattr(rates, name) for name in rates.__struct_fields__})


def _budgets(budgets: tuple[Budget, ...]) -> list[BudgetView]:
    return [BudgetView(unit=each.unit, period=each.period, amount=shown(each.amount, each.unit)) for each in budgets]
