"""Headers of the hot routes, for the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poe_gateway.chat.dialect import Shape

ASKED: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Idempotency-Key": (
        "Requests with the same key and body run once; repetitions get the same answer.",
        {"type": "string", "minLength": 1, "maxLength": 255},
    ),
    "X-Timeout": (
        "Seconds the caller is ready to wait.",
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 86_400},
    ),
    "X-Request-ID": (
        "Id of the request; without it, or with one of another form, an id is made.",
        {"type": "string", "pattern": r"^[A-Za-z0-9._:\-]{1,128}$"},
    ),
    "X-Provider": (
        "The backend or provider that is to answer, where the model's name does not say it.",
        {"type": "string"},
    ),
    "X-Gateway-Expert": (
        "`true`, `yes`, `on` or `1` allows tiers that must be asked for expressly. `X-LMG-Expert` means the same.",
        {"type": "string", "examples": ["true"]},
    ),
    "X-Gateway-Drop-Params": (
        "`true`, `yes`, `on` or `1`: parameters that the upstream does not follow are dropped, and named in "
        "`x-gateway-dropped`; otherwise such a request is refused.",
        {"type": "string", "examples": ["true"]},
    ),
}
"""Of requests: what they mean, and their schemas."""

_EVERYWHERE = {
    "x-request-id": "Id of the request, the caller's own if it sent a valid one.",
    "x-gateway-wait-ms": "Time in the queue; only if it waited.",
    "x-gateway-queue-position": "Place in the queue at joining, from 1; only if it waited.",
    "x-gateway-queue-expected-ms": "Wait expected at joining; only if it waited and the pace is known.",
    "idempotent-replayed": "true: this request did not run, the answer is that of an earlier one with the same key.",
    "x-gateway-original-request-id": "Id of the request that ran; only with idempotent-replayed.",
}
_ATTEMPTS = "x-gateway-attempts"
_ANSWERED = {
    "x-gateway-account": "Opaque id of the account that answered.",
    _ATTEMPTS: "Accounts tried, the last one included; of refusals only where any was.",
    "x-gateway-session": "new, continued, replayed, moved or borrowed; only with a session.",
    "x-gateway-emulated": "What the gateway did in the upstream's stead: of tools, response_format, stop, max_tokens.",
    "x-gateway-dropped": "Parameters without effect; only with X-Gateway-Drop-Params.",
    "x-gateway-tier": "The tier that answered; this and the next five only if the request was routed.",
    "x-gateway-model": "The model that answered.",
    "x-gateway-profile": "The profile, or profiles, that chose.",
    "x-gateway-class": "What the classifier said; only if one was asked.",
    "x-gateway-escalations": "Tiers that failed or did not answer well enough before.",
    "x-gateway-judged": "refusal, short or empty: it was not good enough, and the tiers above had nothing better.",
    "x-gateway-usage": "Who counted the tokens: upstream, tokenizer or estimate; only without streaming.",
    "x-gateway-cost": "Billed cost and its currency, as `0.0165 USD`; only without streaming and with a known price.",
}
_RATES = {
    f"x-ratelimit-{figure}-{counted}": text.format(counted)
    for counted in ("requests", "tokens")
    for figure, text in (
        ("limit", "Most {} in the period that is nearest to its end; only where the key has such a limit."),
        ("remaining", "What is left of these {}."),
        ("reset", "Until these {} are unused again if nothing more comes, as `350ms`, `12s` or `6m0s`."),
    )
}
_OF_SHAPE: Mapping[Shape, Mapping[str, str]] = {
    "openai": {},
    "anthropic": {"request-id": "As x-request-id."},
    "ollama": {},
}
_REFUSED = {
    "retry-after": "Seconds; only where waiting helps.",
    "x-should-retry": "false where it does not, or not within a minute.",
    "allow": "POST.",
    "www-authenticate": "Bearer.",
}
_REFUSALS: Mapping[int, tuple[str, ...]] = {
    401: ("www-authenticate",),
    402: ("retry-after",),
    405: ("allow",),
    409: ("retry-after", "x-should-retry"),
    429: ("retry-after", "x-should-retry", *_RATES),
    502: ("x-should-retry",),
    503: ("retry-after", "x-should-retry"),
}
"""By status, what comes beside that which is everywhere."""
_TRIED = frozenset({400, 402, 404, 409, 413, 429, 500, 502, 503, 504})
"""Refusals that an account may have been tried before."""
TOLD: Mapping[str, str] = {**_EVERYWHERE, **_ANSWERED, **_RATES, **_OF_SHAPE["anthropic"], **_REFUSED}
"""All headers of answers with their meanings."""


def asked() -> list[dict[str, Any]]:
    """The parameters of an operation."""
    return [
        {"name": name, "in": "header", "required": False, "description": text, "schema": schema}
        for name, (text, schema) in ASKED.items()
    ]


def documented() -> dict[str, Any]:
    """Every header of answers, as a component."""
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in TOLD.items()}


def answered(shape: Shape) -> dict[str, Any]:
    """References to the headers of a successful answer."""
    return _references(*_EVERYWHERE, *_OF_SHAPE[shape], *_ANSWERED, *_RATES)


def refused(status: int, shape: Shape) -> dict[str, Any]:
    """References to the headers of a refusal."""
    tried = (_ATTEMPTS,) if status in _TRIED else ()
    return _references(*_EVERYWHERE, *_OF_SHAPE[shape], *tried, *_REFUSALS.get(status, ()))


def _references(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
