"""What ``gateway.toml`` says, as frozen values: backends, tiers, aliases, profiles, clients, fallbacks. Pure.

No secret is in here: keys are named by the variable or the file that holds them, or lie in the vault.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Mode = Literal["dispatch", "escalate", "classify", "reply"]


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers: an address with a key of its own, or accounts of the pool.

    With ``base_url`` or a key reference the gateway keeps one account for it by itself (label ``backend:<name>``).
    Otherwise it is those accounts of the vault that ``labels`` choose among the provider's.
    """

    name: str
    provider: str
    """Adapter (``openai_api``, ``anthropic_api``, ``poe_web``, ``mock``), or a word that stands for one: ``openai``,
    ``openrouter``, ``anthropic``, ``ollama``, ``vllm``, ``poe``, ``poe_api``, ``dashscope``, ``qwen`` …"""
    base_url: str | None = None
    api_key_env: str | None = None
    api_key_file: str | None = None
    labels: tuple[str, ...] = ()
    max_inflight: int | None = None
    default_options: dict[str, Any] = {}
    """Parameters that hold where the caller gives none (temperature …)."""
    extra: dict[str, Any] = {}
    """Other public fields of the adapter's credential document (``http_referer``, ``title``, ``region`` …)."""

    @property
    def keeps_account(self) -> bool:
        """The gateway makes its account from the file."""
        return self.base_url is not None or self.api_key_env is not None or self.api_key_file is not None

    @property
    def label(self) -> str:
        """What the account that the gateway keeps for it is called: its name, and its label."""
        return f"backend:{self.name.lower()}"

    @property
    def choosing(self) -> tuple[str, ...]:
        """Labels that all its accounts carry."""
        return (self.label,) if self.keeps_account else self.labels


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the ladder; the order in the table is from the cheapest to the best."""

    name: str
    backend: str
    model: str
    think: bool | None = None
    """Whether the model is told to reason first, or told not to; None: nothing is said."""
    max_context_tokens: int | None = None

    def fits(self, tokens: int) -> bool:
        """Whether a prompt of about that many tokens goes in, with a tenth to spare."""
        return self.max_context_tokens is None or self.max_context_tokens * 10 >= tokens * 11


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """In ``classify``: tags that must hold (``class`` is the label), and where to go then: a tier, or another profile.

    ``route_to`` is the tier's own name, whatever alias the file has. Tags are compared without regard to case.
    """

    when: dict[str, str]
    route_to: str | None = None
    profile: str | None = None
    priority: int = 0


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """How the requests of some clients are routed."""

    name: str
    mode: Mode = "dispatch"
    classifier: str | None = None
    """Tier that classifies; in ``dispatch``, where unknown models go."""
    max_auto_tier: str | None = None
    """The highest tier that is taken by itself; None: the last one."""
    expert_requires_flag: bool = False
    """A tier above ``max_auto_tier`` that a caller names needs the flag."""
    requests_per_minute: int | None = None
    classifier_prompt: str | None = None
    classifier_think: bool | None = None
    classifier_timeout: float = 10.0
    """Seconds."""
    classifier_context: int | None = None
    """Newest turns that the classifier sees; None: all. 0: nothing is classified, its tier answers."""
    system_prompt: str | None = None
    class_prompts: dict[str, str] = {}
    rules: tuple[Rule, ...] = ()
    """Highest priority first."""
    reply_message: str | None = None
    min_answer_chars: int = 20
    """In ``escalate``: a shorter answer is not good enough."""


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """Whose requests follow which profile.

    Exactly one of the last four is given: the key of a variable or a file, a key of the key store by id or name, or
    all keys of an organisation.
    """

    name: str
    profile: str
    profiles: tuple[str, ...] = ()
    """Other profiles that may be named in place of a model; ``*``: all."""
    key_env: str | None = None
    key_file: str | None = None
    key: str | None = None
    org: str | None = None

    @property
    def key_name(self) -> str:
        """Name in the key store of the key that a variable or a file holds."""
        return f"client:{self.name}"


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """``[gateway]``, as far as it concerns routing. What is None follows the settings."""

    health_window: int = 10
    """Newest requests of a backend that its health is told by; 0: none is ever unhealthy."""
    health_error_threshold: float = 0.7
    public_profile: str | None = None
    """Of requests that come without a key, where they are let in."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ``fallbacks``: model, tier or alias -> what follows when it cannot be had, in order.

    ``aliases``: name -> a tier or ``provider:model``; an alias of an alias is already followed.
    """

    terms: Terms = Terms()
    backends: dict[str, Backend] = {}
    tiers: tuple[Tier, ...] = ()
    aliases: dict[str, str] = {}
    profiles: dict[str, Profile] = {}
    clients: tuple[Client, ...] = ()
    fallbacks: dict[str, tuple[str, ...]] = {}
    notes: tuple[str, ...] = ()
    """What the operator should know although it is no mistake: keys that are set elsewhere, names that hide others."""
    digest: str = ""
    """Of what was read; the same on every process that serves the same."""

    def tier(self, name: str) -> Tier | None:
        """By its name."""
        return next((tier for tier in self.tiers if tier.name == name), None)


EMPTY = Table()
"""Without a file: plain names and ``provider:model`` only."""
