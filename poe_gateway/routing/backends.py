"""Reading ``[backends.*]``: an address, a reference to its key, or a choice among the pool's accounts. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from msgspec import Meta

from poe_gateway.routing.fields import LITERAL, Section, near, secret_name
from poe_gateway.routing.table import Backend
from poe_gateway.routing.words import WORDS, Word, offers_of, word_of

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
OWN_SECRETS = frozenset({"FERNET_KEY", "ADMIN_API_KEY", "MONGODB_URI", "SERVICE_API_KEYS_BOOTSTRAP"})
"""Variables of the gateway itself, which no upstream may ever be sent."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")
_LABEL = re.compile(r"[a-z0-9][a-z0-9._:/=-]{0,62}")
_KNOWN = frozenset(
    {"provider", "base_url", "api_key_env", "api_key_file", "api_key_secret", "labels", "max_inflight"}
    | {"default_options", "timeout_ms"}
)
_TEXTS = ("http_referer", "title", "organization", "region", "books", "beta")
_ACCOUNT = ("base_url", "api_key_env", "api_key_file", "api_key_secret")
_DEEPEST = 8
_MODELFILE = frozenset(
    {"num_ctx", "num_predict", "num_keep", "num_batch", "num_gpu", "num_thread", "top_k", "min_p", "typical_p"}
    | {"repeat_last_n", "repeat_penalty", "mirostat", "mirostat_eta", "mirostat_tau"}
)
"""Options of Ollama that its address for OpenAI's clients, which is the one that is called, does not look at."""


def read_backend(name: str, section: Section, notes: list[str]) -> Backend | None:
    """One backend; None when there is too little to make one of. Problems are told in the section."""
    if not _NAME.fullmatch(name):
        section.problem("", "a backend's name has 1 to 48 letters, digits and . _ - with a letter or digit in front")
    provider = (section.text("provider") or "openai").lower().replace("open_router", "openrouter")
    word = word_of(provider)
    if word is None:
        shown = near(provider, WORDS)
        section.problem("provider", f"unknown provider{shown or ', known: ' + ', '.join(WORDS)}")
        section.known(_KNOWN | set(_TEXTS) | {"models"})
        return None
    section.known(_KNOWN | word.fields)
    base_url = _base_url(section)
    variable, file = _key(section)
    if section.get("timeout_ms", Annotated[int, Meta(ge=0)]) is not None:
        notes.append(f"{section.path}.timeout_ms: set by REQUEST_TIMEOUT_SECONDS, not here")
    backend = Backend(
        name=name,
        provider=provider,
        base_url=base_url,
        api_key_env=variable,
        api_key_file=file,
        labels=_labels(section),
        max_inflight=section.get("max_inflight", Annotated[int, Meta(ge=1, le=10_000)]),
        default_options=_options(section),
        extra=_extra(section, word),
    )
    if provider == "ollama":
        notes.extend(
            f"{section.path}.default_options.{key}: has no effect: Ollama takes it from the model's Modelfile"
            + (", or from OLLAMA_CONTEXT_LENGTH" if key == "num_ctx" else "")
            for key in backend.default_options
            if key in _MODELFILE
        )
    _fits(section, word, backend)
    return backend


def _fits(section: Section, word: Word, backend: Backend) -> None:
    """Whether address, key and labels go together."""
    given = [key for key in _ACCOUNT if key in section]
    if not word.own_account and given:
        section.problem(given[0], f"accounts of {backend.provider!r} lie in the vault: choose them by labels instead")
        return
    keyed = any(key in section for key in _ACCOUNT[1:])
    if word.needs_address and "base_url" not in section and (keyed or backend.provider in ("ollama", "vllm")):
        section.problem("base_url", "is missing")
    if "base_url" in section and not keyed and _wants_key(word, backend):
        section.problem("api_key_env", "is missing: say which variable holds the key, or api_key_file which file")
    if given and backend.labels:
        section.problem("labels", "choose among the pool's accounts; a backend with an address or a key has its own")
    if not given and backend.max_inflight is not None:
        section.problem("max_inflight", "is a term of the account that the gateway makes of base_url and key")
    extra = next(iter(backend.extra), None)
    if not given and extra is not None:
        section.problem(extra, "is a term of the account that the gateway makes of base_url and key")


def _wants_key(word: Word, backend: Backend) -> bool:
    """Servers of one's own may do without; the providers themselves do not."""
    if backend.base_url is None:
        return False
    return word.needs_key or offers_of(backend) == word.offers


def _base_url(section: Section) -> str | None:
    """An http(s) address. A bad one is not repeated: it may hold a password."""
    text = section.text("base_url", longest=2_000)
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        port_is_sound = parts.port is None or 0 < parts.port <= 65_535
    except ValueError:
        section.problem("base_url", "is not an address")
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_sound:
        section.problem("base_url", "must be an http or https address with a host")
    elif parts.username is not None or parts.password is not None:
        section.problem("base_url", f"must not carry a user or password: {LITERAL}")
    elif parts.query or parts.fragment or any(c.isspace() for c in text):
        section.problem("base_url", "must have no query, fragment or blanks")
    else:
        return text.rstrip("/")
    return None


def _key(section: Section) -> tuple[str | None, str | None]:
    """Variable and file of the key; at most one of them. ``api_key_secret`` wins over the two short forms."""
    variable, file = section.text("api_key_env"), section.text("api_key_file", longest=4_096)
    place = "api_key_env"
    if "api_key_secret" in section:
        variable, file = _secret(section)
        place = "api_key_secret"
    elif variable is not None and file is not None:
        section.problem("api_key_file", "there is api_key_env too: a key comes from one of them")
    if variable is not None and not ENV_NAME.fullmatch(variable):
        section.problem(place, "must be the name of a variable, not a key")
        return None, None
    if variable in OWN_SECRETS:
        section.problem(place, f"{variable} is a secret of the gateway itself and goes to nobody")
    return variable, file


def _secret(section: Section) -> tuple[str | None, str | None]:
    inner = Section(section.problems, f"{section.path}.api_key_secret", section.raw("api_key_secret"))
    inner.known(("source", "name", "var", "path"))
    source = inner.text("source")
    if source == "env":
        variable = inner.text("name") or inner.text("var")
        if variable is None:
            inner.problem("name", "is missing")
        return variable, None
    if source == "file":
        file = inner.text("path", longest=4_096)
        if file is None:
            inner.problem("path", "is missing")
        return None, file
    inner.problem("source", "must be 'env' or 'file'")
    return None, None


def _labels(section: Section) -> tuple[str, ...]:
    labels = tuple(sorted({label.lower() for label in section.texts("labels")}))
    for label in labels:
        if not _LABEL.fullmatch(label):
            section.problem(
                "labels", "a label has 1 to 63 letters, digits and . _ : / = - and begins with a letter or digit"
            )
    return labels


def _extra(section: Section, word: Word) -> dict[str, Any]:
    extra: dict[str, Any] = {key: section.text(key, longest=500) for key in _TEXTS if key in word.fields}
    if "models" in word.fields:
        extra["models"] = list(section.texts("models"))
    return {key: value for key, value in extra.items() if value}


def _options(section: Section) -> dict[str, Any]:
    """Values that can be sent as JSON, and none that looks like a key."""
    if "default_options" not in section:
        return {}
    inner = Section(section.problems, f"{section.path}.default_options", section.raw("default_options"))
    options: dict[str, Any] = {}
    for key in inner:
        if secret_name(key):
            inner.problem(key, LITERAL)
        elif not _sendable(inner.raw(key), _DEEPEST):
            inner.problem(key, "cannot be sent as JSON: texts, numbers, true, false, lists and tables can")
        else:
            options[key] = inner.raw(key)
    return options


def _sendable(value: Any, depth: int) -> bool:
    if isinstance(value, bool | str):
        return True
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return depth > 0 and all(_sendable(each, depth - 1) for each in value)
    if isinstance(value, Mapping):
        return depth > 0 and all(not secret_name(key) and _sendable(each, depth - 1) for key, each in value.items())
    return False
