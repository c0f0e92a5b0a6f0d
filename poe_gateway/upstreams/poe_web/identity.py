"""What an account brings along: the credential schema, and the cookies and user agent of one account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poe_gateway.upstreams.base import CredentialError, CredentialField, Described, check_fields
from poe_gateway.upstreams.poe_web.protocol import ProtocolData

OFFER = "poe_web"

FIELDS = (
    CredentialField(name="poe_p_b", required=True, description="session cookie p-b"),
    CredentialField(name="poe_cf_clearance", description="cookie cf_clearance; belongs to the user_agent"),
    CredentialField(name="p_lat", description="cookie p-lat"),
    CredentialField(name="poe_cf_bm", description="cookie __cf_bm"),
    CredentialField(name="formkey", description="form key, when known; otherwise derived from the page"),
    CredentialField(name="user_agent", secret=False, description="user agent of the browser the cookies came from"),
    CredentialField(name="poe_revision", secret=False, description="site revision for this account only"),
)

_COOKIE_FIELDS = ("poe_p_b", "poe_cf_clearance", "p_lat", "poe_cf_bm")
_COOKIE_VALUE = frozenset(map(chr, range(0x21, 0x7F))) - frozenset('";,\\')
_LONGEST = 4096
_MOST_COOKIES = 32

_OPERATORS_OWN = frozenset({"p-b", "p-lat", "cf_clearance"})
"""Never replaced by a response: a logged-out visitor is handed a session cookie too, and it would bury ours."""


def describe(credentials: Mapping[str, Any]) -> Described:
    """Check the operator's document. Raises CredentialError naming the field, never the value."""
    clean = check_fields(FIELDS, credentials)
    for name in _COOKIE_FIELDS:
        value = clean.get(name, "")
        if len(value) > _LONGEST or not _COOKIE_VALUE.issuperset(value):
            raise CredentialError(name, f"'{name}' is not a cookie value; give only what stands after '='")
    for name in ("formkey", "user_agent", "poe_revision"):
        value = clean.get(name, "")
        if len(value) > 1024 or not value.isascii() or not value.isprintable():
            raise CredentialError(name, f"'{name}' cannot be sent as a header")
    details: dict[str, Any] = {}
    if "poe_cf_clearance" in clean and "user_agent" not in clean:
        details["warning"] = (
            "cf_clearance belongs to the user agent it was issued to; without user_agent the site will most"
            " likely answer with a challenge"
        )
    return Described(offer=OFFER, metered=True, renews_daily=True, details=details)


class Identity:
    """Cookies and user agent of one account. The only mutable part is what responses set, kept in memory."""

    def __init__(self, credentials: Mapping[str, Any], protocol: ProtocolData) -> None:
        self.user_agent: str = credentials.get("user_agent") or protocol.default_user_agent
        self.formkey: str | None = credentials.get("formkey") or None
        self.revision: str | None = credentials.get("poe_revision") or None
        self._cookies: dict[str, str] = {
            cookie: str(credentials[field]) for field, cookie in protocol.cookies.items() if credentials.get(field)
        }

    def __repr__(self) -> str:
        return f"Identity(cookies={sorted(self._cookies)})"

    @property
    def cookie_header(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self._cookies.items())

    def absorb(self, name: str, value: str, *, expired: bool) -> None:
        """Take over a cookie that the site itself has set."""
        if name in _OPERATORS_OWN or len(name) + len(value) > _LONGEST:
            return
        if not _COOKIE_VALUE.issuperset(value) or not _COOKIE_VALUE.issuperset(name) or "=" in name or not name:
            return
        if expired or not value:
            self._cookies.pop(name, None)
        elif name in self._cookies or len(self._cookies) < _MOST_COOKIES:
            self._cookies[name] = value
