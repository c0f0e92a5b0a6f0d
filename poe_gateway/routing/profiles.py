"""Reading ``[profiles.*]``. Pure. Which tiers and profiles they name is checked in ``references``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from msgspec import Meta

from poe_gateway.routing.fields import Section, join
from poe_gateway.routing.table import Mode, Profile, Rule

MODES: tuple[Mode, ...] = get_args(Mode)
REPLY = "This model is not set up yet."
"""What ``reply`` says where the profile says nothing."""

_KNOWN = (
    *("mode", "classifier", "max_auto_tier", "expert_requires_flag", "rate_limit_rpm", "requests_per_minute"),
    *("classifier_prompt", "classifier_think", "classifier_timeout", "classifier_timeout_ms", "classifier_context"),
    *("system_prompt", "class_prompts", "rules", "reply_message", "min_answer_chars", "thinking_messages"),
)
_Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]


def read_profile(name: str, section: Section, notes: list[str]) -> Profile:
    """One profile. Problems are told in the section."""
    section.known(_KNOWN)
    if "thinking_messages" in section:
        notes.append(f"{section.path}.thinking_messages: not used: nothing is put before what a model says")
    mode = _mode(section)
    classifier = section.text("classifier")
    if mode == "classify" and classifier is None:
        section.problem("classifier", "is missing: mode 'classify' asks this tier")
    prompts = _class_prompts(section, notes)
    if mode != "classify" and (prompts or "rules" in section):
        notes.append(f"{section.path}: class_prompts and rules hold where something was classified, mode is {mode!r}")
    return Profile(
        name=name,
        mode=mode,
        classifier=classifier,
        max_auto_tier=section.text("max_auto_tier"),
        expert_requires_flag=section.get("expert_requires_flag", bool) or False,
        requests_per_minute=_requests(section),
        classifier_prompt=section.prose("classifier_prompt"),
        classifier_think=section.get("classifier_think", bool),
        classifier_timeout=_patience(section),
        classifier_context=section.get("classifier_context", _Count),
        system_prompt=section.prose("system_prompt"),
        class_prompts=prompts,
        rules=_rules(section),
        reply_message=(section.prose("reply_message") or REPLY) if mode == "reply" else section.prose("reply_message"),
        min_answer_chars=_or(section.get("min_answer_chars", _Count), 20),
    )


def _mode(section: Section) -> Mode:
    text = section.text("mode")
    if text is None or text in MODES:
        return text or "dispatch"
    section.problem("mode", f"must be one of {', '.join(MODES)}")
    return "dispatch"


def _requests(section: Section) -> int | None:
    """0 is no limit."""
    if "rate_limit_rpm" in section and "requests_per_minute" in section:
        section.problem("rate_limit_rpm", "is the same as requests_per_minute: give one of them")
    return section.get("requests_per_minute", _Count) or section.get("rate_limit_rpm", _Count) or None


def _patience(section: Section) -> float:
    """Seconds, from seconds or milliseconds."""
    if "classifier_timeout" in section and "classifier_timeout_ms" in section:
        section.problem("classifier_timeout_ms", "there is classifier_timeout (seconds) too: give one of them")
    seconds = section.get("classifier_timeout", Annotated[float, Meta(gt=0, le=600)])
    milliseconds = section.get("classifier_timeout_ms", Annotated[int, Meta(gt=0, le=600_000)])
    return float(seconds) if seconds is not None else (milliseconds or 10_000) / 1000


def _class_prompts(section: Section, notes: list[str]) -> dict[str, str]:
    """Texts by label, in lower case."""
    if "class_prompts" not in section:
        return {}
    inner = Section(section.problems, f"{section.path}.class_prompts", section.raw("class_prompts"))
    found = {label.strip().lower(): inner.prose(label) for label in inner}
    notes.extend(
        f"{join(inner.path, label)}: is taken for a label; a key of the profile stands before [class_prompts]"
        for label in inner
        if label in _KNOWN
    )
    return {label: text for label, text in found.items() if text is not None}


def _rules(section: Section) -> tuple[Rule, ...]:
    entries = section.raw("rules") if "rules" in section else []
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        section.problem("rules", "must be a list of tables")
        return ()
    rules = [
        _rule(Section(section.problems, f"{section.path}.rules[{place}]", entry)) for place, entry in enumerate(entries)
    ]
    return tuple(sorted([rule for rule in rules if rule is not None], key=lambda rule: -rule.priority))


def _rule(section: Section) -> Rule | None:
    section.known(("when", "route_to", "profile", "priority"))
    if "when" not in section:
        section.problem("when", "is missing; {} holds always")
    when = section.get("when", dict[str, str]) or {}
    route_to, profile = section.text("route_to"), section.text("profile")
    priority = section.get("priority", Annotated[int, Meta(ge=-1_000_000, le=1_000_000)]) or 0
    if (route_to is None) == (profile is None):
        section.problem("", "must have either route_to (a tier, an alias or a profile) or profile")
        return None
    tags = {tag.strip().lower(): value.strip().lower() for tag, value in when.items()}
    return Rule(when=tags, route_to=route_to, profile=profile, priority=priority)


def _or(value: Any, default: int) -> int:
    return default if value is None else int(value)
