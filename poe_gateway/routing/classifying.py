"""``classify``: what the classifier is asked, and what its answer means. Pure.

An answer is a label in one word (``fast``), or tags (``class=command domain=home``): ``class`` is the label then, and
``tier``, where it is said, the tier that the label would choose. ``-think`` behind either tells the tier's model to
reason first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from poe_gateway.chat.request import ChatRequest, Message, TextPart
from poe_gateway.routing.course import Course
from poe_gateway.routing.ladder import Circumstances, reach
from poe_gateway.routing.modes import at_tier, entered, system_texts
from poe_gateway.routing.table import Profile, Rule, Table, Tier

_LONGEST_INPUT = 24_000
"""Characters of the conversation that a classifier sees at most; of a longer one the beginning and the end."""
_CHARS_PER_TOKEN = 3
"""Fewer than usual, so that the input fits."""
_LONGEST_ANSWER = 2_000
_LONGEST_LABEL = 64

_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"([A-Za-z_][\w-]{0,63})\s*=\s*[\"'*`]*([^\s,;\"'*`=]{1,64})")
_WORD = re.compile(r"\w(?:[\w:./-]*\w)?")
_THINK = "-think"
_FIRST, _MIDDLE, _LAST = range(3)
_RANKS: Mapping[str, int] = {
    "simple": _FIRST,
    "instant": _FIRST,
    "moderate": _MIDDLE,
    "fast": _MIDDLE,
    "complex": _LAST,
    "deep": _LAST,
}
"""Labels that mean a place in the ladder, where no tier is called so."""


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What the classifier said. Everything in lower case; ``tags`` has the label as ``class``."""

    label: str = ""
    tier: str = ""
    """What chooses the tier: of the tag ``tier`` where it means something, else the label."""
    tags: dict[str, str] = {}
    think: bool | None = None


def classifier_request(course: Course, request: ChatRequest) -> ChatRequest:
    """What the course's classifier is asked about a request: its newest turns, without system and tool turns."""
    leg, profile = course.classifier, course.profile
    if leg is None or profile is None:
        raise ValueError("this course has no classifier")
    turns = [turn for turn in request.messages if turn.role in ("user", "assistant") and (turn.parts or turn.name)]
    if profile.classifier_context is not None:
        turns = turns[len(turns) - profile.classifier_context :] if profile.classifier_context < len(turns) else turns
    room = _LONGEST_INPUT
    if leg.max_context_tokens is not None:
        room = min(room, max(200, leg.max_context_tokens * _CHARS_PER_TOKEN - len(course.prompt)))
    return ChatRequest(
        model=leg.model,
        messages=(
            Message("system", (TextPart(course.prompt),)),
            Message("user", (TextPart(_conversation(turns, room)),)),
        ),
        timeout=profile.classifier_timeout,
    )


def classified(
    table: Table,
    course: Course,
    said: str | None,
    *,
    tokens: int,
    tool_results: bool,
    healthy: Callable[[str], bool] = lambda backend: True,
) -> Course:
    """The course after the classifier has spoken; ``said`` None: it failed, or took too long.

    A rule may lead to another profile. Where that one classifies too, the course has a ``classifier`` again, and the
    caller asks it; this ends, for no profile has its say twice. Raises RequestTooLarge, ModelNotFound.
    """
    profile = course.profile
    if profile is None:
        raise ValueError("this course has no profile")
    at = Circumstances(tokens=tokens, tool_results=tool_results, expert=course.expert, healthy=healthy)
    ladder = reach(table, profile)
    heard = Heard() if said is None else hear(said, _words(table, profile))
    rule = next((rule for rule in profile.rules if said is not None and _holds(rule, heard, course.profiles)), None)
    if rule is not None and rule.profile is not None:
        return entered(table, table.profiles[rule.profile], at, trail=course.profiles, label=heard.label)
    named = table.tier(rule.route_to) if rule is not None and rule.route_to is not None else None
    tier = named or _labelled(ladder, table.tiers, heard.tier, failed=said is None, tool_results=tool_results)
    course = replace(
        course,
        classifier=None,
        prompt="",
        label=heard.label,
        system=system_texts(profile, heard.label),
    )
    return at_tier(table, course, tier, at, think=heard.think)


def hear(said: str, words: Sequence[str] = ()) -> Heard:
    """The label and tags in an answer. ``words``: those that mean something, which win over others."""
    text = _THOUGHT.sub(" ", said[:_LONGEST_ANSWER]).lower()
    tags = {key: value.strip(".:") for key, value in _TAG.findall(text)}
    if tags:
        others = [value for key, value in tags.items() if key != "tier"] or list(tags.values())
        said_label = tags.get("class") or next((value for value in others if value in words), None)
        label, think = _parted(said_label or others[0], words)
        tier, thinks = _parted(tags.get("tier", ""), words)
        if tier in words:
            return Heard(label=label, tier=tier, tags={**tags, "class": label}, think=thinks or think)
    else:
        spoken = [_known(word, words) for word in _WORD.findall(text)]
        said_label = next((word for word in spoken if word in words or word.removesuffix(_THINK) in words), None)
        label, think = _parted(said_label or next(iter(spoken), ""), words)
    return Heard(label=label, tier=label, tags={**tags, "class": label}, think=think)


def _parted(word: str, words: Sequence[str]) -> tuple[str, bool | None]:
    """A label, and whether ``-think`` stood behind it."""
    word = word[:_LONGEST_LABEL]
    if word in words or not word.endswith(_THINK):
        return word, None
    return word.removesuffix(_THINK), True


def _known(word: str, words: Sequence[str]) -> str:
    """A word as the file spells it: labels may have colons, sentences have them too."""
    return word if word in words else next((part for part in word.split(":") if part in words), word)


def _words(table: Table, profile: Profile) -> tuple[str, ...]:
    names = [tier.name.lower() for tier in table.tiers]
    endings = [_ending(tier) for tier in table.tiers]
    values = [value for rule in profile.rules for value in rule.when.values()]
    return (*names, *endings, *values, *profile.class_prompts, *_RANKS)


def _holds(rule: Rule, heard: Heard, had: tuple[str, ...]) -> bool:
    """Whether all its tags are there, and its profile had no say yet."""
    return rule.profile not in had and all(heard.tags.get(tag) == value for tag, value in rule.when.items())


def _labelled(
    ladder: Sequence[Tier], all_tiers: Sequence[Tier], label: str, *, failed: bool, tool_results: bool
) -> Tier:
    """The tier of a label: by its name, by what stands behind the colon, by rank; unknown: the middle one.

    After a failure it is the first. Who hands in results of tools never gets the cheapest, if there is another.
    """
    number = 0 if failed else _number(ladder, all_tiers, label)
    if tool_results and number == 0 and len(ladder) > 1:
        number = 1
    return ladder[number]


def _number(ladder: Sequence[Tier], all_tiers: Sequence[Tier], label: str) -> int:
    named = [number for number, tier in enumerate(all_tiers) if tier.name.lower() == label]
    named += [number for number, tier in enumerate(all_tiers) if _ending(tier) == label]
    if named:
        # A tier beyond the reach means: as far as it goes.
        return min(named[0], len(ladder) - 1)
    return (0, len(ladder) // 2, len(ladder) - 1)[_RANKS.get(label, _MIDDLE)]


def _ending(tier: Tier) -> str:
    return tier.name.lower().partition(":")[2] or tier.name.lower()


def _conversation(turns: Sequence[Message], room: int) -> str:
    """One turn as it is, several as a protocol; at most ``room`` characters, the newest in any case."""
    if len(turns) == 1:
        return _clipped(_said(turns[0]), room)
    lines: list[str] = []
    for turn in reversed(turns):
        line = f"{'User' if turn.role == 'user' else 'Assistant'}: {_said(turn)}"
        if lines and len(line) > room:
            break
        lines.append(_clipped(line, room))
        room -= len(lines[-1]) + 1
    return "\n".join(reversed(lines)) or "[nothing]"


def _said(turn: Message) -> str:
    return (turn.text + " [image]" * len(turn.images)).strip() or "[nothing]"


def _clipped(text: str, room: int) -> str:
    """The beginning and the end of what is too long."""
    if len(text) <= room:
        return text
    half = max(1, (room - 3) // 2)
    return f"{text[:half]} … {text[-half:]}"
