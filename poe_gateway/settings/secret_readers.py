"""How keys and addresses with passwords are read. What is told about a bad one never holds any of its text."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

from pydantic import SecretStr

from poe_gateway.settings.readers import Bad
from poe_gateway.vault import BadKey, Vault

ADMIN_KEY_MINIMUM = 24
SERVICE_KEY_MINIMUM = 12

_SAMPLES = frozenset(
    {
        "adm_7qm2",
        "admin",
        "changeme",
        "cw_0x689rpi-jtrr7oe8h_eqskimvjaplesbxpwf4e4=",  # the Fernet specification's example
        "password",
        "secret",
        "sk-1234",
        "svc_app_a",
        "svc_app_b",
        "test",
        "youradminkey",
        "yourapikey",
        "yoursecretkey",
    }
)
_FEWEST_DISTINCT = 8  # a random key of 24 characters has far more different ones; "aaaa…" and "12341234…" have fewer


def mongo_uri(text: str) -> SecretStr:
    """A connection string, which may hold a password."""
    if not re.fullmatch(r"mongodb(\+srv)?://[^\s/]+(/\S*)?", text):
        raise Bad("must start with mongodb:// or mongodb+srv:// and name a host; leave it out for the embedded MongoDB")
    return SecretStr(text)


def _refuse_sample(text: str) -> None:
    """Raises Bad for placeholders, for samples that documents have published, and for a few characters repeated."""
    word = text.lower()
    if re.fullmatch(r"<.*>|.*(\.\.\.|…)", word) or re.sub(r"[.…]+$", "", word) in _SAMPLES:
        raise Bad("is still a placeholder or a sample from documents; make one of your own")
    if re.sub(r"[^a-z0-9]", "", word) in _SAMPLES or "changeme" in re.sub(r"[-_ ]", "", word):
        raise Bad("is still a placeholder or a sample from documents; make one of your own")


def _api_key(text: str, minimum: int) -> SecretStr:
    _refuse_sample(text)
    if len(text) < minimum:
        raise Bad(f"is too short: at least {minimum} characters are needed")
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise Bad("may hold only visible ASCII characters, no spaces: it travels in an HTTP header")
    if len(set(text)) < min(_FEWEST_DISTINCT, minimum // 2):
        raise Bad("repeats a few characters; make a random one")
    return SecretStr(text)


def admin_key(text: str) -> SecretStr:
    """The operator's key."""
    return _api_key(text, ADMIN_KEY_MINIMUM)


def _numbered(text: str, read: Callable[[str], SecretStr]) -> tuple[SecretStr, ...]:
    """A comma list. A bad entry is named by its place, since it may not be shown."""
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    values: dict[str, SecretStr] = {}
    for place, entry in enumerate(entries, 1):
        try:
            values.setdefault(entry, read(entry))
        except Bad as bad:
            raise Bad(f"{bad}" if len(entries) == 1 else f"(entry {place} of {len(entries)}) {bad}") from None
    return tuple(values.values())


def service_keys(text: str) -> tuple[SecretStr, ...]:
    """Keys of callers, in order, without repetitions."""
    return _numbered(text, lambda entry: _api_key(entry, SERVICE_KEY_MINIMUM))


def _fernet_key(text: str) -> SecretStr:
    _refuse_sample(text)
    try:
        Vault((text,))
    except BadKey:
        raise Bad(
            "is not a Fernet key: 32 random bytes in URL-safe base64 (make one: poe-gateway vault new-key)"
        ) from None
    if len(set(base64.urlsafe_b64decode(text))) < _FEWEST_DISTINCT:
        raise Bad("repeats a few bytes; make a random one: poe-gateway vault new-key")
    return SecretStr(text)


def fernet_keys(text: str) -> tuple[SecretStr, ...]:
    """Keys of the vault, newest first; at least one."""
    keys = _numbered(text, _fernet_key)
    if not keys:
        raise Bad("holds no key")
    return keys


def upstream_key(text: str) -> SecretStr:
    """A provider's key."""
    if not re.fullmatch(r"[\x21-\x7e]{1,4096}", text):
        raise Bad("must be printable ASCII without spaces")
    return SecretStr(text)
