"""Where an account's requests go and what they carry: the credential document, checked and normalised. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poe_gateway import __version__
from poe_gateway.upstreams.address import offer, versioned
from poe_gateway.upstreams.base import CredentialError, CredentialField, check_fields
from poe_gateway.upstreams.door import ALLOWED, REFERENCES, Door, allowed_models, read_key
from poe_gateway.upstreams.openai_api.presets import PRESETS, Preset

FIELDS = (
    CredentialField(
        name="api_key", description="the provider's key, sent as a bearer token; an own server may need none"
    ),
    *REFERENCES,
    CredentialField(
        name="base_url",
        secret=False,
        description="address of the API, with or without /v1; ending in /chat/completions, it is taken as it is",
        pattern=r"^https?://.+",
    ),
    CredentialField(name="preset", secret=False, description=f"a provider known by name: {', '.join(PRESETS)}"),
    CredentialField(name="region", secret=False, description="of the preset dashscope: intl (usual), us, cn"),
    CredentialField(name="organization", secret=False, description="sent as OpenAI-Organization"),
    CredentialField(name="http_referer", secret=False, description="sent as HTTP-Referer (OpenRouter's ranking)"),
    CredentialField(name="title", secret=False, description="sent as X-Title (OpenRouter's ranking)"),
    ALLOWED,
    CredentialField(
        name="books", secret=False, description="'poe': an address that tells its usage history as Poe's API does"
    ),
)

_HEADERS = {"organization": "OpenAI-Organization", "http_referer": "HTTP-Referer", "title": "X-Title"}
_TAIL = "/chat/completions"
"""What people copy along with a base address."""


class Endpoint(Door, frozen=True, kw_only=True):
    """One account's door."""

    preset: str | None = None
    known: Preset = Preset()
    keeps_books: bool = False

    @property
    def nearby(self) -> bool:
        """Somebody's own server, which may stand where callers must not reach."""
        return self.preset is None or self.known.own_address

    @property
    def chat_url(self) -> str:
        return f"{self.base}/chat/completions"

    @property
    def embeddings_url(self) -> str:
        return f"{self.base}/embeddings"

    @property
    def generations_url(self) -> str:
        return f"{self.base}/images/generations"

    @property
    def edits_url(self) -> str:
        return f"{self.base}/images/edits"

    @property
    def models_url(self) -> str:
        return f"{self.base}/models" + (f"?{self.known.every_model}" if self.known.every_model else "")

    @property
    def points_url(self) -> str | None:
        """Where the points left can be read: beside the versioned part of Poe's API."""
        return f"{self._root}/usage/current_balance" if self.known.balance == "points" else None

    @property
    def books_url(self) -> str | None:
        """Where the history of points can be read: beside the balance of Poe, or of an address said to be like it."""
        if self.known.balance != "points" and not self.keeps_books:
            return None
        return f"{self._root}/usage/points_history"

    @property
    def key_url(self) -> str | None:
        """OpenRouter's word on the key (good or not, its limit): its list of models is public."""
        return f"{self.base}/key" if self.known.balance == "money" else None

    @property
    def credits_url(self) -> str:
        """OpenRouter's word on what was paid in and used."""
        return f"{self.base}/credits"

    @property
    def _root(self) -> str:
        return self.base.rpartition("/")[0]


def read_endpoint(credentials: Mapping[str, Any], presets: Mapping[str, Preset] = PRESETS) -> Endpoint:
    """The endpoint that the credential document describes. Raises CredentialError naming the field."""
    clean = check_fields(FIELDS, credentials)
    base, preset = _address(clean, presets)
    known = presets[preset] if preset is not None else Preset(keyless=True)
    key, unresolved = read_key(clean, keyless=known.keyless)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    headers["User-Agent"] = f"poe-gateway/{__version__}"
    headers |= {header: _header(clean, name) for name, header in _HEADERS.items() if name in clean}
    if clean.get("books", "poe") != "poe":
        raise CredentialError("books", "'books' must be 'poe'")
    models = allowed_models(clean)
    return Endpoint(
        base=base,
        headers=headers,
        offer=offer("openai_api", base, models),
        key=key,
        unresolved=unresolved,
        preset=preset,
        known=known,
        models=models,
        keeps_books="books" in clean,
    )


def _address(clean: Mapping[str, Any], presets: Mapping[str, Preset]) -> tuple[str, str | None]:
    """Base address and the preset that it is of, if any."""
    preset, address, region = clean.get("preset"), clean.get("base_url"), clean.get("region")
    known = presets.get(preset) if preset is not None else None
    if preset is not None and known is None:
        raise CredentialError("preset", f"unknown preset; known: {', '.join(presets)}")
    if region is not None and (known is None or region not in known.addresses):
        regions = ", ".join(filter(None, known.addresses)) if known is not None else ""
        raise CredentialError("region", f"unknown region; known: {regions}" if regions else "no regions are known here")
    if address is not None:
        if known is not None and not known.own_address:
            raise CredentialError("base_url", "give either 'base_url' or 'preset'")
        base = versioned(str(address), _TAIL)
        return base, preset or _preset_of(base, presets)
    if known is None:
        raise CredentialError("base_url", "give either 'base_url' or 'preset'")
    if not known.addresses:
        raise CredentialError("base_url", f"'base_url' is required with the preset '{preset}'")
    return versioned(known.addresses[region or ""], _TAIL), preset


def _preset_of(base: str, presets: Mapping[str, Preset]) -> str | None:
    def leads_here(known: Preset) -> bool:
        return any(versioned(address, _TAIL) == base for address in known.addresses.values())

    return next((name for name, known in presets.items() if leads_here(known)), None)


def _header(clean: Mapping[str, Any], name: str) -> str:
    value = str(clean[name])
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise CredentialError(name, f"'{name}' is not valid text") from None
    return value
