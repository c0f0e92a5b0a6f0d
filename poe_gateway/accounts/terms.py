"""On what terms the pool uses an account: what the operator sets beside the credentials. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import asdict, fields, replace

from poe_gateway import money
from poe_gateway.errors import InvalidRequest
from poe_gateway.pool.account import Account

PRIORITY = (-1_000, 1_000)
WEIGHT = (1, 1_000)
KEEP_PERCENT = (0, 100)
MAX_INFLIGHT = (1, 10_000)
LABEL = r"[a-z0-9][a-z0-9._:/=-]{0,62}"
"""Form of a label in lower case."""
MAX_LABELS = 16
NOTE = r"[^\x00-\x1f\x7f]{1,100}"
"""Form of a vendor or batch."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """New terms of an account; a field that is UNSET stays as it is.

    Raises InvalidRequest naming the field when a value is out of bounds. Labels come from ``labels_of``.
    """

    priority: int | UnsetType = UNSET
    weight: int | UnsetType = UNSET
    labels: tuple[str, ...] | UnsetType = UNSET
    keep_percent: int | UnsetType = UNSET
    max_inflight: int | UnsetType | None = UNSET
    """None: the pool's default."""
    vendor: str | UnsetType | None = UNSET
    batch: str | UnsetType | None = UNSET
    purchase_price: int | UnsetType | None = UNSET
    """In 10**-8 of ``currency``."""
    currency: str | UnsetType = UNSET
    purchased_at: datetime | UnsetType | None = UNSET
    expires_at: datetime | UnsetType | None = UNSET
    """An account beyond it is reported, not switched off."""

    def __post_init__(self) -> None:
        bounds = {"priority": PRIORITY, "weight": WEIGHT, "keep_percent": KEEP_PERCENT, "max_inflight": MAX_INFLIGHT}
        for field, (low, high) in bounds.items():
            value = getattr(self, field)
            if isinstance(value, int) and not low <= value <= high:
                raise InvalidRequest(f"{field} must be from {low} to {high}.", param=field)
        if self.labels is not UNSET and self.labels != labels_of(self.labels):
            raise InvalidRequest("Labels must be sorted, in lower case, each once.", param="labels")
        for field in ("vendor", "batch"):
            value = getattr(self, field)
            if isinstance(value, str) and (not re.fullmatch(NOTE, value) or value != value.strip()):
                raise InvalidRequest(f"{field} must be 1 to 100 printable characters.", param=field)
        if isinstance(self.purchase_price, int) and not 0 <= self.purchase_price <= money.LARGEST:
            raise InvalidRequest("purchase_price must be 0 or more.", param="purchase_price")
        if isinstance(self.currency, str) and (self.currency == money.POINTS or not money.is_unit(self.currency)):
            raise InvalidRequest("currency must be three capital letters.", param="currency")
        for field in ("purchased_at", "expires_at"):
            value = getattr(self, field)
            if isinstance(value, datetime) and value.tzinfo is None:
                raise InvalidRequest(f"{field} must say its time zone.", param=field)

    def on(self, account: Account) -> Account:
        """The account under these terms."""
        given = {name: value for name, value in asdict(self).items() if value is not UNSET}
        return replace(account, **given) if given else account

    def in_words(self) -> str:
        """The new terms, for the history."""
        given = [(name, value) for name, value in asdict(self).items() if value is not UNSET]
        return ", ".join(f"{name}: {_in_words(name, value)}" for name, value in given)


def _in_words(name: str, value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="minutes")
    return money.shown(value, "USD") if name == "purchase_price" and value is not None else str(value)


AS_THEY_ARE = Terms()
"""Nothing changes."""
DEFAULTS = {each.name: each.default for each in fields(Account) if each.name in Terms.__struct_fields__}
"""The terms of a new account."""


def labels_of(words: Iterable[str]) -> tuple[str, ...]:
    """Labels as they are kept: in lower case, sorted, each once. Raises InvalidRequest."""
    labels = sorted({word.strip().lower() for word in words})
    for label in labels:
        if not re.fullmatch(LABEL, label):
            raise InvalidRequest(
                "A label has 1 to 63 characters: letters, digits and . _ : / = - with a letter or digit in front.",
                param="labels",
            )
    if len(labels) > MAX_LABELS:
        raise InvalidRequest(f"An account has at most {MAX_LABELS} labels.", param="labels")
    return tuple(labels)
