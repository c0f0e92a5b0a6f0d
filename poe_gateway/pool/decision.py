"""The record of one request: what could have served it, why the rest was passed over, and what came of it.

Compact on purpose: every request keeps one. Made by the walk, kept by a listener; words and numbers only, no text of a
caller and no secret.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class Choice(msgspec.Struct, kw_only=True):
    """How one slot was won, or why none was to be had."""

    strategy: str = ""
    candidates: dict[str, int] = {}
    """Accounts left after each filter, in order: ``all``, ``selected`` (by the key's selector), ``in_service``,
    ``open`` (with a free slot here), ``untried``."""
    passed_over: dict[str, int] = {}
    """Reason -> how many accounts."""
    sample: dict[str, str] = {}
    """Account id -> reason, of a few that were passed over."""
    scores: dict[str, float] = {}
    """Of the accounts compared last."""
    need: int = 0
    """Points that the request is believed to cost at most; 0: not known or free."""
    account_id: str | None = None
    how: str = ""
    """``chosen``, ``affinity``, ``borrowed``, ``prefix``, ``queued``, ``client_gone``, or the code of the refusal."""
    wait_seconds: float = 0.0
    position: int = 0
    """Place in the line at joining, from 1; 0: did not wait."""


class Try(msgspec.Struct, kw_only=True):
    """One attempt on one account."""

    number: int
    account_id: str
    outcome: str
    fate: str | None = None
    detail: str = ""
    charged_to: str = ""
    """Scope of the fault after attribution: account, account+model, egress, adapter, or request."""
    withheld: str = ""
    """Why the account's state was not changed, empty when it was or need not be."""
    seconds: float = 0.0
    ttft_seconds: float | None = None
    points: int | None = None


class Decision(msgspec.Struct, kw_only=True):
    """Everything about one request that its operator may ask for later."""

    request_id: str
    at: datetime
    """Arrival."""
    process: str = ""
    key_id: str = ""
    model: str = ""
    """As planned (public name)."""
    asked: str = ""
    """The model's name as the caller wrote it, where routing changed it."""
    profile: str = ""
    """Profiles that had a say: ``a -> b``."""
    tier: str = ""
    """Of the leg that answered, or else of the last one."""
    label: str = ""
    """What the classifier said."""
    escalations: int = 0
    """Legs that were left for the next one."""
    judged: str = ""
    """Why the answer was not good enough (``refusal``, ``short``, ``empty``), where nothing better came of the legs
    behind it."""
    offers: list[str] = []
    fingerprint: str = ""
    """Digest of the request's body as far as upstreams see it; the text is kept nowhere."""
    session: str = ""
    """``new``, ``continued``, ``replayed``, ``moved``, ``borrowed``; empty without a session."""
    tokens: int = 0
    """Estimated size of the prompt."""
    choices: list[Choice] = []
    """One for each attempt, and for the refusal."""
    tries: list[Try] = []
    status: int = 0
    error_code: str | None = None
    seconds: float = 0.0
