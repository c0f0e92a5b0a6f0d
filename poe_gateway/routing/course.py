"""Where one request goes: its legs in order, and what is done between them. Values only."""

from __future__ import annotations

from typing import Any

import msgspec

from poe_gateway.routing.table import Mode, Profile


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller says about routing beside the model's name."""

    provider: str | None = None
    """``X-Provider``."""
    expert: bool = False
    """``X-Gateway-Expert: true`` (or ``X-LMG-Expert``)."""


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """One place where a request may be answered."""

    model: str
    """As the catalogue is asked."""
    prefix: str | None = None
    """Put before the answer's model, as the caller wrote it, with its colon: ``openai:``."""
    offers: tuple[str, ...] = ()
    """Beginnings of the offers that may serve; empty: all of them."""
    labels: tuple[str, ...] = ()
    """Accounts that carry all of these."""
    tier: str | None = None
    backend: str | None = None
    options: dict[str, Any] = {}
    """Parameters where the caller gives none."""
    max_context_tokens: int | None = None


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """The way of one request."""

    legs: tuple[Leg, ...]
    """At least one, but for ``reply`` and ``classify``."""
    mode: Mode | None = None
    """None: no profile has a say, the model's own name decides."""
    profile: Profile | None = None
    judged: bool = False
    """``escalate``: an answer that is not good enough leads on to the next leg, unless it is streamed."""
    system: tuple[str, ...] = ()
    """Texts to put before the conversation."""
    reply: str | None = None
    """``reply``: the answer, without any upstream."""
    classifier: Leg | None = None
    """``classify``: who is asked first; the legs are decided by what it says. After a cascade it may be asked again."""
    prompt: str = ""
    """``classify``: what the classifier is told to do."""
    label: str = ""
    """What the last classifier said, in one word."""
    profiles: tuple[str, ...] = ()
    """Names of the profiles that had a say, in order; the last one is ``profile``."""
    expert: bool = False
    """The caller's flag."""
    names: tuple[str, ...] = ()
    """Names of the table that lead here: a key that may use one of them may use all legs."""
    fallback: bool = False
    """The legs after the first are fallbacks of a chain, not steps of a ladder."""
