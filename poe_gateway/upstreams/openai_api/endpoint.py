"""Where an account's requests go and what they carry: the credential document, checked and normalised. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from poe_gateway import __version__
from poe_gateway.upstreams.base import CredentialError, CredentialField, check_fields

PRESETS: Mapping[str, str] = {
    "poe": "https://api.poe.com/v1",
    "openai": "https://api.openai.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
}

FIELDS = (
    CredentialField(name="api_key", required=True, description="the provider's key, sent as a bearer token"),
    CredentialField(
        name="base_url", secret=False, description="address of the API, with or without /v1", pattern=r"^https?://.+"
    ),
    CredentialField(name="preset", secret=False, description=f"instead of base_url: {', '.join(PRESETS)}"),
    CredentialField(name="organization", secret=False, description="sent as OpenAI-Organization"),
    CredentialField(name="http_referer", secret=False, description="sent as HTTP-Referer (OpenRouter's ranking)"),
    CredentialField(name="title", secret=False, description="sent as X-Title (OpenRouter's ranking)"),
    CredentialField(name="models", secret=False, kind=list, description="serve only these models of the provider"),
    CredentialField(
        name="books", secret=False, description="'poe': an address that tells its usage history as Poe's API does"
    ),
)

_HEADERS = {"organization": "OpenAI-Organization", "http_referer": "HTTP-Referer", "title": "X-Title"}
_VERSION = re.compile(r"^v\d+[a-z0-9]*$")


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One account's door. ``base`` has no trailing slash; ``headers`` hold the key."""

    base: str
    headers: dict[str, str]
    offer: str
    host: str
    preset: str | None = None
    models: frozenset[str] | None = None
    """The allow-list, or None when every model of the provider is served."""
    keeps_books: bool = False

    def __repr__(self) -> str:
        return f"Endpoint(offer={self.offer!r})"

    @property
    def chat_url(self) -> str:
        return f"{self.base}/chat/completions"

    @property
    def models_url(self) -> str:
        return f"{self.base}/models"

    @property
    def balance_url(self) -> str | None:
        """Where the points left can be read: beside the versioned part of Poe's API."""
        if self.preset != "poe":
            return None
        return f"{self.base.rpartition('/')[0]}/usage/current_balance"

    @property
    def books_url(self) -> str | None:
        """Where the history of points can be read: beside the balance of Poe, or of an address said to be like it."""
        if self.preset != "poe" and not self.keeps_books:
            return None
        return f"{self.base.rpartition('/')[0]}/usage/points_history"

    @property
    def check_url(self) -> str | None:
        """Where a key is verified, for a provider whose list of models needs none."""
        return f"{self.base}/key" if self.preset == "openrouter" else None


def read_endpoint(credentials: Mapping[str, Any], presets: Mapping[str, str] = PRESETS) -> Endpoint:
    """The endpoint that the credential document describes. Raises CredentialError naming the field."""
    clean = check_fields(FIELDS, credentials)
    preset, address = clean.get("preset"), clean.get("base_url")
    if (preset is None) == (address is None):
        raise CredentialError("base_url", "give either 'base_url' or 'preset'")
    if preset is not None and preset not in presets:
        raise CredentialError("preset", f"unknown preset; known: {', '.join(presets)}")
    base = normalise(presets[preset] if preset is not None else str(address))
    if preset is None:
        preset = next((name for name, known in presets.items() if normalise(known) == base), None)
    key = clean["api_key"]
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise CredentialError("api_key", "'api_key' must be printable ASCII without spaces")
    headers = {"Authorization": f"Bearer {key}", "User-Agent": f"poe-gateway/{__version__}"}
    headers |= {header: clean[name] for name, header in _HEADERS.items() if name in clean}
    if clean.get("books", "poe") != "poe":
        raise CredentialError("books", "'books' must be 'poe'")
    models = _names(clean["models"]) if clean.get("models") else None
    return Endpoint(
        base=base,
        headers=headers,
        offer=_offer(base, models),
        host=_host(base),
        preset=preset,
        models=models,
        keeps_books="books" in clean,
    )


def normalise(address: str) -> str:
    """``address`` as a base to which ``/chat/completions`` is added: ``/v1`` is supplied unless a version is there."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise CredentialError("base_url", "'base_url' is not an address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CredentialError("base_url", "'base_url' must be an http or https address with a host")
    if parts.username is not None or parts.password is not None:
        raise CredentialError("base_url", "'base_url' must not carry a user or password; use 'api_key'")
    if parts.query or parts.fragment or any(c.isspace() for c in address):
        raise CredentialError("base_url", "'base_url' must have no query, fragment or spaces")
    path = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    if not any(_VERSION.match(segment) for segment in path.split("/")):
        path += "/v1"
    return f"{parts.scheme}://{_netloc(parts)}{path}"


def _netloc(parts: SplitResult) -> str:
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    standard = {"http": 80, "https": 443}[parts.scheme]
    return host if parts.port in (None, standard) else f"{host}:{parts.port}"


def _host(base: str) -> str:
    return urlsplit(base).netloc


def _offer(base: str, models: frozenset[str] | None) -> str:
    """Accounts behind the same address with the same allow-list share an offer."""
    parts = urlsplit(base)
    offer = f"openai_api:{parts.netloc}"
    if (parts.scheme, parts.path) != ("https", "/v1"):
        offer += "/" + _digest(f"{parts.scheme}:{parts.path}")
    return offer if models is None else f"{offer}+{_digest(chr(10).join(sorted(models)))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _names(models: list[Any]) -> frozenset[str]:
    if not all(isinstance(name, str) and name.strip() for name in models):
        raise CredentialError("models", "'models' must be a list of model names")
    return frozenset(name.strip() for name in models)
