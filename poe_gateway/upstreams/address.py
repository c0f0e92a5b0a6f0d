"""Addresses of providers' APIs as operators write them, and the offers that they stand for. Pure."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import SplitResult, urlsplit

from poe_gateway.upstreams.base import CredentialError

_VERSION = re.compile(r"v\d+[a-z0-9]*")
_STANDARD = {"http": 80, "https": 443}


def versioned(address: str, tail: str) -> str:
    """``address`` as a base to which ``tail`` (``/messages``) is added.

    ``/v1`` is supplied unless a version is there, or the tail itself: who gives the whole address means that one.
    Raises CredentialError.
    """
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise CredentialError("base_url", "'base_url' is not an address") from None
    if parts.scheme not in _STANDARD or not parts.hostname:
        raise CredentialError("base_url", "'base_url' must be an http or https address with a host")
    if parts.username is not None or parts.password is not None:
        raise CredentialError("base_url", "'base_url' must not carry a user or password; use 'api_key'")
    if parts.query or parts.fragment or any(c.isspace() for c in address):
        raise CredentialError("base_url", "'base_url' must have no query, fragment or spaces")
    given = parts.path.rstrip("/")
    path = given.removesuffix(tail).rstrip("/")
    if path == given and not any(_VERSION.fullmatch(segment) for segment in path.split("/")):
        path += "/v1"
    return f"{parts.scheme}://{_netloc(parts)}{path}"


def host(base: str) -> str:
    """Host and port of a base."""
    return urlsplit(base).netloc


def offer(provider: str, base: str, models: frozenset[str] | None) -> str:
    """``provider:host[:port]``, with digests of an unusual path and of an allow-list.

    Accounts behind the same address with the same allow-list share an offer.
    """
    parts = urlsplit(base)
    name = f"{provider}:{parts.netloc}"
    if (parts.scheme, parts.path) != ("https", "/v1"):
        name += "/" + _digest(f"{parts.scheme}:{parts.path}")
    return name if models is None else f"{name}+{_digest(chr(10).join(sorted(models)))}"


def _netloc(parts: SplitResult) -> str:
    name = parts.hostname or ""
    name = f"[{name}]" if ":" in name else name
    return name if parts.port in (None, _STANDARD[parts.scheme]) else f"{name}:{parts.port}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
