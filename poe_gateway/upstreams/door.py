"""An account's door at a provider that is asked by key: where requests go, what they carry, which models are served.

A credential document holds the key itself or says where it is: by a variable or a file that others have read when the
document comes here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from poe_gateway.pool.outcome import Rejected, Unauthorized
from poe_gateway.upstreams.address import host
from poe_gateway.upstreams.base import AccountRef, CredentialError, CredentialField, Model, UpstreamFailure

REFERENCES = (
    CredentialField(name="api_key_env", secret=False, description="instead of api_key: the variable that holds it"),
    CredentialField(name="api_key_file", secret=False, description="instead of api_key: the file that holds it"),
)
ALLOWED = CredentialField(name="models", secret=False, kind=list, description="serve only these models of the provider")


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """One account's door. ``base`` has no trailing slash; ``headers`` hold the key, ``key`` is empty where none is."""

    base: str
    headers: dict[str, str]
    offer: str
    key: str = ""
    unresolved: bool = False
    """Only a reference to the key is here: good for describing, not for asking."""
    models: frozenset[str] | None = None
    """The allow-list, or None when every model of the provider is served."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(offer={self.offer!r})"

    @property
    def host(self) -> str:
        return host(self.base)

    def admit(self, model: str) -> None:
        """Raises UpstreamFailure for a model that the allow-list leaves out."""
        if self.models is not None and model not in self.models:
            public = f"The model '{model}' is not served by this account."
            raise UpstreamFailure(Rejected(public=public, status=404, code="model_not_found", model=model))


D = TypeVar("D", bound=Door)


class Doors(Generic[D]):
    """The doors of the accounts in use, each read once for every version of its credentials."""

    def __init__(self, read: Callable[[Mapping[str, Any]], D]) -> None:
        """``read`` makes a door of a credential document; it raises CredentialError."""
        self._read = read
        self._known: dict[str, tuple[tuple[int, object], D]] = {}

    def of(self, account: AccountRef) -> D:
        """Raises UpstreamFailure."""
        version = (account.credential_rev, account.credentials.get("api_key"))  # a reference may lead to a new key
        known = self._known.get(account.id)
        if known is not None and known[0] == version:
            return known[1]
        try:
            door = self._read(account.credentials)
        except CredentialError as error:  # checked when they came in, but a key that was referred to
            raise UpstreamFailure(Unauthorized(detail=f"the credentials are not usable: {error.field}")) from None
        self._known[account.id] = (version, door)
        return door

    def forget(self, account_id: str) -> None:
        """Drop an account's door, which holds the key."""
        self._known.pop(account_id, None)

    def clear(self) -> None:
        self._known.clear()


def read_key(clean: Mapping[str, Any], *, keyless: bool = False) -> tuple[str, bool]:
    """The key, empty where it is not here, and whether only a reference to one is. Raises CredentialError."""
    referred = [field.name for field in REFERENCES if field.name in clean]
    if len(referred) > 1:
        raise CredentialError(referred[1], "give either 'api_key_env' or 'api_key_file'")
    key = str(clean.get("api_key", ""))
    if not key and not referred and not keyless:
        raise CredentialError("api_key", "'api_key' is required")
    if key and (not (key.isascii() and key.isprintable()) or " " in key):
        raise CredentialError("api_key", "'api_key' must be printable ASCII without spaces")
    return key, bool(referred) and not key


def allowed_models(clean: Mapping[str, Any]) -> frozenset[str] | None:
    """The allow-list. Raises CredentialError."""
    models = clean.get("models")
    if not models:
        return None
    if not all(isinstance(name, str) and name.strip() for name in models):
        raise CredentialError("models", "'models' must be a list of model names")
    return frozenset(name.strip() for name in models)


def listed_by_hand(names: frozenset[str]) -> list[Model]:
    """An allow-list as a catalogue, for providers that have no list of models."""
    return [Model(id=name, upstream=name, owned_by="unknown") for name in sorted(names)]
