"""A routing file in small, for tests of the rules."""

from __future__ import annotations

import tomllib
from typing import Any

from poe_gateway.routing.course import Asked, Course
from poe_gateway.routing.parse import parse
from poe_gateway.routing.plan import plan_course
from poe_gateway.routing.table import Table

LADDER = """
[backends.near]
provider = "ollama"
base_url = "http://localhost:11434"

[backends.far]
provider = "openrouter"
api_key_env = "OPENROUTER_KEY"
default_options = { temperature = 0.2 }

[backends.chats]
provider = "poe"
labels = ["team-a"]

[[tiers]]
name = "local:fast"
backend = "near"
model = "qwen2.5:1.5b"
max_context_tokens = 1000

[[tiers]]
name = "cloud:economy"
backend = "far"
model = "small"
max_context_tokens = 10_000

[[tiers]]
name = "cloud:standard"
backend = "chats"
model = "Medium"
think = true

[[tiers]]
name = "cloud:expert"
backend = "far"
model = "large"

[aliases]
"hint:fast" = "local:fast"
"hint:cheap" = "hint:fast"
"hint:expert" = "cloud:expert"
"smart" = "far:vendor/model:free"
"""
"""Four tiers at three backends."""


def table(text: str = "", base: str = LADDER) -> Table:
    """The table of the ladder and what a test adds to it."""
    return parse(tomllib.loads(base + text))


def course(routes: Table, model: str, profile: str | None = None, **more: Any) -> Course:
    """The course of a request; everything that a test leaves out is quiet."""
    asked = Asked(provider=more.pop("provider", None), expert=more.pop("expert", False))
    quiet: dict[str, Any] = {
        "knows": lambda name: False,
        "default_provider": None,
        "tokens": 10,
        "tool_results": False,
        "healthy": lambda backend: True,
    }
    return plan_course(routes, model, asked, routes.profiles[profile] if profile else None, **{**quiet, **more})


def places(found: Course) -> list[str]:
    """Its legs by tier, or by model where there is none."""
    return [leg.tier or leg.model for leg in found.legs]
