"""Where an account's requests go and what they carry: the credential document, checked and normalised. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from poe_gateway import __version__
from poe_gateway.upstreams.address import offer, versioned
from poe_gateway.upstreams.base import CredentialError, CredentialField, check_fields
from poe_gateway.upstreams.door import ALLOWED, REFERENCES, Door, allowed_models, read_key

DEFAULT_URL = "https://api.anthropic.com"
DEFAULT_MAX_TOKENS = 8192
"""Anthropic's API wants a limit in every request; this one is set where neither caller nor account names one."""
_VERSION = "2023-06-01"
_BETA = re.compile(r"[A-Za-z0-9._\-]+(?:\s*,\s*[A-Za-z0-9._\-]+)*")
_MOST_TOKENS = 1_000_000
_TAIL = "/messages"

FIELDS = (
    CredentialField(name="api_key", description="the provider's key, sent as x-api-key"),
    *REFERENCES,
    CredentialField(
        name="base_url",
        secret=False,
        description=f"address of the API, with or without /v1; {DEFAULT_URL} when not given; ending in {_TAIL}, it is "
        "taken as it is",
        pattern=r"^https?://.+",
    ),
    CredentialField(name="beta", secret=False, description="sent as anthropic-beta: names with commas between"),
    ALLOWED,
    CredentialField(
        name="max_output",
        secret=False,
        kind=int,
        description=f"tokens of an answer at most where the caller names no limit; else {DEFAULT_MAX_TOKENS}",
    ),
)


class Endpoint(Door, frozen=True, kw_only=True):
    """One account's door."""

    max_tokens: int = DEFAULT_MAX_TOKENS

    @property
    def nearby(self) -> bool:
        """Somebody's own server, which may stand where callers must not reach."""
        return self.base != versioned(DEFAULT_URL, _TAIL)

    @property
    def messages_url(self) -> str:
        return self.base + _TAIL

    @property
    def models_url(self) -> str:
        return f"{self.base}/models"


def read_endpoint(credentials: Mapping[str, Any]) -> Endpoint:
    """The endpoint that the credential document describes. Raises CredentialError naming the field."""
    clean = check_fields(FIELDS, credentials)
    base = versioned(clean.get("base_url", DEFAULT_URL), _TAIL)
    models = allowed_models(clean)
    key, unresolved = read_key(clean)
    headers = {"anthropic-version": _VERSION, "User-Agent": f"poe-gateway/{__version__}"}
    if key:
        headers["x-api-key"] = key
    if (beta := clean.get("beta")) is not None:
        if _BETA.fullmatch(beta) is None:
            raise CredentialError("beta", "'beta' must be names with commas between")
        headers["anthropic-beta"] = beta
    return Endpoint(
        base=base,
        headers=headers,
        offer=offer("anthropic_api", base, models),
        key=key,
        unresolved=unresolved,
        models=models,
        max_tokens=_limit(clean.get("max_output", DEFAULT_MAX_TOKENS)),
    )


def _limit(value: int) -> int:
    if isinstance(value, bool) or not 1 <= value <= _MOST_TOKENS:
        raise CredentialError("max_output", f"'max_output' must be from 1 to {_MOST_TOKENS}")
    return value
