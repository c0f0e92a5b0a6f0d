"""Words for providers, and which accounts they stand for. Pure.

An account's *offer* (see ``catalog``) begins with its adapter and, for HTTP providers, the host: ``poe_web``,
``openai_api:openrouter.ai/<digest>``. A word stands for an adapter and for beginnings of offers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from poe_gateway.routing.table import Backend, Table

ADAPTERS = ("openai_api", "anthropic_api", "poe_web", "mock")
_ADDRESS = frozenset({"models"})
_OPENAI = frozenset({"http_referer", "title", "organization", "region", "books"}) | _ADDRESS


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What one provider word means."""

    adapter: str
    offers: tuple[str, ...]
    """Beginnings of the offers of its accounts; none: only backends of the file can be meant."""
    preset: str | None = None
    """Of the adapter: its address where a backend has no ``base_url``, and what is special to it where every backend
    has one."""
    needs_key: bool = False
    """A backend of this word with an account of its own must refer to a key, at any address."""
    needs_address: bool = False
    """There is no usual address: a backend says its own."""
    own_account: bool = True
    """A backend may have an account of its own, made of the file."""
    fields: frozenset[str] = frozenset()
    """Further fields that a backend may have, as the adapter's credentials name them."""


def _dashscope(*hosts: str) -> Word:
    offers = tuple([f"openai_api:{host}" for host in hosts])
    return Word(adapter="openai_api", offers=offers, preset="dashscope", needs_key=True, fields=_OPENAI)


_HOSTS = ("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com")

WORDS: Mapping[str, Word] = {
    "openai": Word(adapter="openai_api", offers=("openai_api:api.openai.com",), preset="openai", fields=_OPENAI),
    "openrouter": Word(
        adapter="openai_api",
        offers=("openai_api:openrouter.ai",),
        preset="openrouter",
        needs_key=True,
        fields=_OPENAI,
    ),
    "anthropic": Word(
        adapter="anthropic_api",
        offers=("anthropic_api:api.anthropic.com",),
        needs_key=True,
        fields=frozenset({"beta"}) | _ADDRESS,
    ),
    "poe": Word(adapter="poe_web", offers=("poe_web",), own_account=False),
    "poe_api": Word(
        adapter="openai_api", offers=("openai_api:api.poe.com",), preset="poe", needs_key=True, fields=_OPENAI
    ),
    "dashscope": _dashscope(*_HOSTS),
    "qwen": _dashscope(*_HOSTS),
    "ollama": Word(
        adapter="openai_api",
        offers=("openai_api:localhost:11434", "openai_api:127.0.0.1:11434"),
        preset="ollama",
        needs_address=True,
        fields=_OPENAI,
    ),
    "vllm": Word(adapter="openai_api", offers=(), preset="vllm", needs_address=True, fields=_OPENAI),
    "openai_api": Word(adapter="openai_api", offers=("openai_api",), needs_address=True, fields=_OPENAI),
    "anthropic_api": Word(
        adapter="anthropic_api", offers=("anthropic_api",), needs_key=True, fields=frozenset({"beta"}) | _ADDRESS
    ),
    "poe_web": Word(adapter="poe_web", offers=("poe_web",), own_account=False),
    "mock": Word(adapter="mock", offers=("mock",), own_account=False),
}


def word_of(provider: str) -> Word | None:
    """What the word means, in any case; None: nothing."""
    return WORDS.get(provider.lower())


def account_fields(backend: Backend) -> dict[str, Any]:
    """The credential document of the account that the gateway keeps for a backend: addresses and references only."""
    word = WORDS[backend.provider]
    fields: dict[str, Any] = dict(backend.extra)
    if backend.base_url is not None:
        fields["base_url"] = backend.base_url
    if word.preset is not None and (backend.base_url is None or word.needs_address):
        fields["preset"] = word.preset
    if backend.api_key_env is not None:
        fields["api_key_env"] = backend.api_key_env
    if backend.api_key_file is not None:
        fields["api_key_file"] = backend.api_key_file
    return fields


def offers_of(backend: Backend) -> tuple[str, ...]:
    """Beginnings of the offers of a backend's accounts."""
    word = WORDS[backend.provider]
    return word.offers if backend.base_url is None else (f"{word.adapter}:{_host(backend.base_url)}",)


def serves(beginnings: Iterable[str], offer: str) -> bool:
    """Whether an offer has one of these beginnings: whole, not in the middle of a host's name. None: every offer."""
    empty = True
    for beginning in beginnings:
        empty = False
        if offer == beginning:
            return True
        # After a host comes a path's or a list's digest; after an adapter's name whatever the adapter tells apart.
        if offer.startswith(beginning) and offer[len(beginning)] in ("/+" if ":" in beginning else ":/+"):
            return True
    return empty


def picked(offer: str) -> bool:
    """Whether the owner of an offer's accounts has said which models they serve."""
    return "+" in offer


def known_provider(table: Table, word: str) -> bool:
    """Whether ``word:model`` or ``X-Provider: word`` leads to a provider."""
    return accounts_of(table, word) is not None


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """Which accounts a provider's name stands for."""

    backend: str | None = None
    offers: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    options: dict[str, Any] = {}


def accounts_of(table: Table, word: str) -> Accounts | None:
    """The accounts of a backend of the file, else those of a provider word, in any case; None: it is neither."""
    backend = table.backends.get(word)
    if backend is None:
        backend = next((each for name, each in table.backends.items() if name.lower() == word.lower()), None)
    if backend is not None:
        return Accounts(
            backend=backend.name, offers=offers_of(backend), labels=backend.choosing, options=backend.default_options
        )
    known = word_of(word)
    return Accounts(offers=known.offers) if known is not None and known.offers else None


def _host(address: str) -> str:
    """Host and unusual port as offers have them. ``address`` was checked when the file was read."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}[parts.scheme]
    return host if parts.port in (None, usual) else f"{host}:{parts.port}"
