"""What a profile does by itself, when the caller leaves the choice to it: dispatch, escalate, classify, reply. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from poe_gateway.errors import ModelNotFound
from poe_gateway.routing.course import Course, Leg
from poe_gateway.routing.ladder import Circumstances, fitting, leg_of, place, reach, too_large, with_fallbacks
from poe_gateway.routing.profiles import REPLY
from poe_gateway.routing.table import Profile, Table, Tier

CLASSIFY = """\
You sort requests by how much work it takes to answer them well. You never answer them.

simple    a greeting, thanks, a fact, a lookup, a short translation, a command with one step
moderate  an explanation, a summary, a short text, a plain piece of code, a few steps
complex   analysis, planning, proof, debugging, long texts, whole programs, anything with many parts

Good morning! -> simple
What is the capital of Norway? -> simple
Explain how a hash table works. -> moderate
Write a polite reply to this complaint. -> moderate
Why does this program deadlock? Here is the code: … -> complex
Compare these three contracts and list every difference. -> complex

If you are in doubt between two, take the higher one. Reply with exactly one word: simple, moderate or complex."""
"""What the classifier is told where the profile says nothing."""


def entered(
    table: Table, profile: Profile, at: Circumstances, *, trail: tuple[str, ...] = (), label: str = ""
) -> Course:
    """The course that the profile decides. Raises ModelNotFound, RequestTooLarge.

    ``trail``: names of the profiles before it; ``label``: what was classified there.
    """
    course = Course(
        legs=(),
        mode=profile.mode,
        profile=profile,
        profiles=(*trail, profile.name),
        label=label,
        expert=at.expert,
    )
    if profile.mode == "reply":
        return replace(course, reply=profile.reply_message or REPLY)
    if profile.mode == "classify" and profile.classifier is not None and profile.classifier_context != 0:
        tier = _tier(table, profile.classifier)
        asking = leg_of(table, tier, profile.classifier_think)
        return replace(course, classifier=asking, prompt=profile.classifier_prompt or CLASSIFY)
    system = system_texts(profile, label)
    if profile.mode == "escalate":
        return replace(course, legs=_steps(table, profile, at), judged=True, system=system)
    return at_tier(table, replace(course, system=system), _usual(table, profile), at)


def at_tier(
    table: Table, course: Course, tier: Tier, at: Circumstances, *, asked: str | None = None, think: bool | None = None
) -> Course:
    """The course to one tier, or to the next one that is large enough, with the chain that follows it.

    ``asked``: the name that led there. Raises RequestTooLarge.
    """
    start = place(table, tier.name)
    reached = reach(table, course.profile)
    # Who asks for a tier beyond the reach by name may also get what lies above it.
    tiers = reached if start < len(reached) else table.tiers
    tier = fitting(tiers, start, at.tokens)
    names = [name for name in (asked, tier.name, tier.model) if name is not None]
    legs = with_fallbacks(table, leg_of(table, tier, think), names, course.profile, at)
    return replace(course, legs=legs, fallback=len(legs) > 1)


def system_texts(profile: Profile, label: str) -> tuple[str, ...]:
    """What is put before the conversation: of the class, then of the profile."""
    texts = (profile.class_prompts.get(label), profile.system_prompt)
    return tuple([text for text in texts if text is not None])


def _steps(table: Table, profile: Profile, at: Circumstances) -> tuple[Leg, ...]:
    tiers = [tier for tier in reach(table, profile) if tier.fits(at.tokens)]
    if not tiers:
        raise too_large(at.tokens)
    well = [tier for tier in tiers if at.healthy(tier.backend)]
    return tuple([leg_of(table, tier) for tier in well or tiers])


def _usual(table: Table, profile: Profile) -> Tier:
    """Where ``dispatch`` goes when no tier is named."""
    name = profile.classifier or profile.max_auto_tier
    if name is not None:
        return _tier(table, name)
    if not table.tiers:
        raise ModelNotFound(f"The profile '{profile.name}' has no tiers to choose from.", param="model")
    return table.tiers[0]


def _tier(table: Table, name: str) -> Tier:
    return table.tiers[place(table, name)]
