"""Where an account's requests go and what they carry: the credential document, checked and normalised. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from poe_gateway import __version__
from poe_gateway.upstreams.address import host, model_names, offer, versioned
from poe_gateway.upstreams.base import CredentialError, CredentialField, check_fields

DEFAULT_URL = "https://api.anthropic.com"
DEFAULT_MAX_TOKENS = 8192
"""Anthropic's API wants a limit in every request; this one is set where neither caller nor account names one."""
_VERSION = "2023-06-01"
_BETA = re.compile(r"[A-Za-z0-9._\-]+(?:\s*,\s*[A-Za-z0-9._\-]+)*")
_MOST_TOKENS = 1_000_000

FIELDS = (
    CredentialField(name="api_key", description="the provider's key, sent as x-api-key"),
    CredentialField(name="api_key_env", secret=False, description="instead of api_key: the variable that holds it"),
    CredentialField(name="api_key_file", secret=False, description="instead of api_key: the file that holds it"),
    CredentialField(
        name="base_url",
        secret=False,
        description=f"address of the API, with or without /v1; {DEFAULT_URL} when not given",
        pattern=r"^https?://.+",
    ),
    CredentialField(name="beta", secret=False, description="sent as anthropic-beta: names with commas between"),
    CredentialField(name="models", secret=False, kind=list, description="serve only these models of the provider"),
    CredentialField(
        name="max_output",
        secret=False,
        kind=int,
        description=f"tokens of an answer at most where the caller names no limit; else {DEFAULT_MAX_TOKENS}",
    ),
)
_REFERENCES = ("api_key_env", "api_key_file")


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One account's door. ``base`` has no trailing slash; ``headers`` hold the key."""

    base: str
    headers: dict[str, str]
    offer: str
    host: str
    key: str = ""
    """Empty while only a reference to it is here: good for describing, not for asking."""
    models: frozenset[str] | None = None
    """The allow-list, or None when every model of the provider is served."""
    max_tokens: int = DEFAULT_MAX_TOKENS

    def __repr__(self) -> str:
        return f"Endpoint(offer={self.offer!r})"

    @property
    def nearby(self) -> bool:
        """Somebody's own server, which may stand where callers must not reach."""
        return self.base != versioned(DEFAULT_URL, "/messages")

    @property
    def messages_url(self) -> str:
        return f"{self.base}/messages"

    @property
    def models_url(self) -> str:
        return f"{self.base}/models"


def read_endpoint(credentials: Mapping[str, Any]) -> Endpoint:
    """The endpoint that the credential document describes. Raises CredentialError naming the field."""
    clean = check_fields(FIELDS, credentials)
    base = versioned(clean.get("base_url", DEFAULT_URL), "/messages")
    models = model_names(clean["models"]) if clean.get("models") else None
    key = _key(clean)
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
        host=host(base),
        key=key,
        models=models,
        max_tokens=_limit(clean.get("max_output", DEFAULT_MAX_TOKENS)),
    )


def _key(clean: Mapping[str, Any]) -> str:
    """The key, empty where only a reference to it is here."""
    referred = [name for name in _REFERENCES if name in clean]
    if len(referred) > 1:
        raise CredentialError(referred[1], "give either 'api_key_env' or 'api_key_file'")
    key = str(clean.get("api_key", ""))
    if not key and not referred:
        raise CredentialError("api_key", "'api_key' is required")
    if not (key.isascii() and (key.isprintable() or not key)) or " " in key:
        raise CredentialError("api_key", "'api_key' must be printable ASCII without spaces")
    return key


def _limit(value: int) -> int:
    if isinstance(value, bool) or not 1 <= value <= _MOST_TOKENS:
        raise CredentialError("max_output", f"'max_output' must be from 1 to {_MOST_TOKENS}")
    return value
