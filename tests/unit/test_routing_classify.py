"""What the classifier is asked, what its words mean, and where a request goes after it has spoken."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.chat.request import ChatRequest, ImagePart, Message, TextPart
from poe_gateway.errors import RequestTooLarge
from poe_gateway.routing.classifying import Heard, classified, classifier_request, hear
from poe_gateway.routing.course import Course
from tests.unit.routes import course, places, table

PROFILES = """
[profiles.sorting]
mode = "classify"
classifier = "local:fast"
max_auto_tier = "cloud:standard"
system_prompt = "Of the profile."

[profiles.sorting.class_prompts]
greeting = "Of the class."

[[profiles.sorting.rules]]
when = { class = "command", domain = "home" }
route_to = "hint:cheap"
priority = 20

[[profiles.sorting.rules]]
when = { class = "Command" }
route_to = "cloud:expert"
priority = 10

[[profiles.sorting.rules]]
when = { class = "research" }
profile = "deep"

[[profiles.sorting.rules]]
when = { class = "angry" }
route_to = "closed"

[[profiles.sorting.rules]]
when = { class = "hard" }
route_to = "up"

[profiles.deep]
mode = "classify"
classifier = "cloud:economy"
classifier_prompt = "Which one?"
class_prompts = { command = "Deep command." }

[[profiles.deep.rules]]
when = { class = "more" }
profile = "closed"

[profiles.up]
mode = "escalate"

[profiles.closed]
mode = "reply"
"""
ROUTES = table(PROFILES)


def after(said: str | None, *, start: Course | None = None, **more: Any) -> Course:
    start = start or course(ROUTES, "auto", "sorting")
    return classified(ROUTES, start, said, **{"tokens": 10, "tool_results": False, **more})


@pytest.mark.parametrize(
    ("said", "label", "expected"),
    [
        ("local:fast", "local:fast", "local:fast"),
        ("Cloud:Economy", "cloud:economy", "cloud:economy"),
        ("economy", "economy", "cloud:economy"),
        ("Label: economy.", "economy", "cloud:economy"),
        ("**standard**", "standard", "cloud:standard"),
        ("The best label is economy, I think", "economy", "cloud:economy"),
        ("cloud:expert", "cloud:expert", "cloud:standard"),
        ("expert", "expert", "cloud:standard"),
        ("simple", "simple", "local:fast"),
        ("moderate", "moderate", "cloud:economy"),
        ("complex", "complex", "cloud:standard"),
        ("deep", "deep", "cloud:standard"),
        ("fast", "fast", "local:fast"),
        ("banana", "banana", "cloud:economy"),
        ("", "", "cloud:economy"),
        ("!!!", "", "cloud:economy"),
        ("<think>expert? no, fast</think>\n economy", "economy", "cloud:economy"),
        ("<think>standard, and then it never stops", "", "cloud:economy"),
        ("class=greeting", "greeting", "cloud:economy"),
        ('{"class": "economy"}', "economy", "cloud:economy"),
        ("tier=standard class=mystery", "mystery", "cloud:standard"),
        ("tier=fast intent=greeting domain=home", "greeting", "local:fast"),
        ("tier=simple", "simple", "local:fast"),
        ("tier=banana class=fast", "fast", "local:fast"),
        ("tier=expert class=command", "command", "cloud:expert"),
        (None, "", "local:fast"),
    ],
)
def test_labels(said: str | None, label: str, expected: str) -> None:
    found = after(said)
    assert (found.label, places(found)) == (label, [expected])
    assert (found.classifier, found.mode, found.profiles) == (None, "classify", ("sorting",))


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_an_unknown_label_takes_the_middle_of_what_is_within_reach(number: int) -> None:
    names = ["local:fast", "cloud:economy", "cloud:standard", "cloud:expert"]
    routes = table(f'[profiles.p]\nmode = "classify"\nclassifier = "local:fast"\nmax_auto_tier = "{names[number - 1]}"')
    found = classified(routes, course(routes, "auto", "p"), "banana", tokens=1, tool_results=False)
    assert places(found) == [names[number // 2]]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("class=command domain=home", "local:fast"),
        ("class=command, domain='Home'", "local:fast"),
        ("CLASS = command", "cloud:expert"),
        ("command", "cloud:expert"),
        ("domain=home", "cloud:economy"),
        ("class=other domain=home", "cloud:economy"),
    ],
)
def test_rules_by_priority(said: str, expected: str) -> None:
    assert places(after(said)) == [expected]


def test_prompts_of_the_class_stand_before_those_of_the_profile() -> None:
    assert after("greeting").system == ("Of the class.", "Of the profile.")
    assert after("economy").system == ("Of the profile.",)
    assert after(None).system == ("Of the profile.",)


def test_think_behind_a_label_tells_the_model_to_reason() -> None:
    assert after("economy-think").legs[0].options == {"temperature": 0.2, "reasoning_effort": "medium"}
    assert after("economy").legs[0].options == {"temperature": 0.2}
    assert after("economy-think").label == "economy"


@pytest.mark.parametrize(
    ("said", "expected"),
    [("fast", "cloud:economy"), (None, "cloud:economy"), ("economy", "cloud:economy"), ("complex", "cloud:standard")],
)
def test_results_of_tools_never_go_to_the_cheapest(said: str | None, expected: str) -> None:
    assert places(after(said, tool_results=True)) == [expected]


def test_a_rule_of_the_operator_may_send_results_of_tools_anywhere() -> None:
    assert places(after("class=command domain=home", tool_results=True)) == ["local:fast"]


def test_the_only_tier_is_the_cheapest_and_takes_results_of_tools() -> None:
    routes = table('[profiles.p]\nmode = "classify"\nclassifier = "local:fast"\nmax_auto_tier = "local:fast"')
    found = classified(routes, course(routes, "auto", "p"), "x", tokens=1, tool_results=True)
    assert places(found) == ["local:fast"]


@pytest.mark.parametrize(
    ("said", "tokens", "expected"),
    [
        ("fast", 1_000, "cloud:economy"),
        ("fast", 10_000, "cloud:standard"),
        ("class=command domain=home", 10_000, "cloud:standard"),
        ("command", 10**9, "cloud:expert"),
        (None, 1_000, "cloud:economy"),
    ],
)
def test_the_prompt_must_fit(said: str | None, tokens: int, expected: str) -> None:
    assert places(after(said, tokens=tokens)) == [expected]


def test_nothing_within_reach_is_large_enough() -> None:
    routes = table('[profiles.p]\nmode = "classify"\nclassifier = "local:fast"\nmax_auto_tier = "cloud:economy"')
    with pytest.raises(RequestTooLarge):
        classified(routes, course(routes, "auto", "p"), "fast", tokens=10_000, tool_results=False)


def test_a_rule_may_lead_to_a_profile_that_classifies_again() -> None:
    second = after("research")
    assert second.classifier is not None and second.classifier.tier == "cloud:economy"
    assert (second.prompt, second.profiles, second.label) == ("Which one?", ("sorting", "deep"), "research")
    third = after("command", start=second)
    assert (third.profiles, third.label, third.system) == (("sorting", "deep"), "command", ("Deep command.",))
    assert places(third) == ["cloud:standard"]


def test_a_rule_may_lead_to_a_profile_of_another_mode() -> None:
    reply = after("angry")
    assert (reply.reply, reply.profiles, reply.classifier) == (
        "This model is not set up yet.",
        ("sorting", "closed"),
        None,
    )
    up = after("hard", healthy=lambda backend: backend != "near")
    assert (places(up), up.judged) == (["cloud:economy", "cloud:standard", "cloud:expert"], True)


def test_no_profile_has_its_say_twice() -> None:
    """The file cannot have circles; a table made otherwise cannot make a request go round either."""
    start = course(ROUTES, "auto", "sorting")
    already = Course(
        legs=(),
        mode=start.mode,
        profile=start.profile,
        classifier=start.classifier,
        prompt=start.prompt,
        profiles=("deep", "sorting"),
    )
    found = after("research", start=already)
    assert (places(found), found.profiles) == (["cloud:economy"], ("deep", "sorting"))


def test_fallbacks_follow_the_tier_that_was_chosen() -> None:
    routes = table(PROFILES + '[fallbacks]\n"cloud:economy" = ["smart"]')
    found = classified(routes, course(routes, "auto", "sorting"), "economy", tokens=1, tool_results=False)
    assert (places(found), found.fallback) == (["cloud:economy", "vendor/model:free"], True)


def test_without_context_nobody_is_asked() -> None:
    routes = table('[profiles.p]\nmode = "classify"\nclassifier = "cloud:economy"\nclassifier_context = 0')
    found = course(routes, "auto", "p")
    assert (found.classifier, places(found)) == (None, ["cloud:economy"])


# ---- the question


def asked(*turns: tuple[str, str], profile: str = "sorting", routes: Any = ROUTES) -> list[tuple[str, str]]:
    messages = tuple([Message(role, (TextPart(text),)) for role, text in turns])  # type: ignore[arg-type]
    request = ChatRequest(model="auto", messages=messages, parameters={"temperature": 1.5}, session_id="s", stream=True)
    question = classifier_request(course(routes, "auto", profile), request)
    assert (question.stream, question.session_id, question.parameters, question.timeout) == (False, None, {}, 10.0)
    return [(message.role, message.text) for message in question.messages]


def test_one_turn_is_asked_as_it_is() -> None:
    system, user = asked(("system", "secret rules"), ("user", "Hello"))
    assert system[0] == "system" and "exactly one word" in system[1]
    assert user == ("user", "Hello")


def test_several_turns_are_asked_as_a_protocol_without_system_and_tools() -> None:
    turns = (("system", "s"), ("user", "One"), ("assistant", "Two"), ("tool", "t"), ("user", "Three"))
    assert asked(*turns)[1] == ("user", "User: One\nAssistant: Two\nUser: Three")


@pytest.mark.parametrize(
    ("newest", "expected"), [(1, "c"), (2, "Assistant: b\nUser: c"), (9, "User: a\nAssistant: b\nUser: c")]
)
def test_only_the_newest_turns_are_asked(newest: int, expected: str) -> None:
    routes = table(f'[profiles.p]\nmode = "classify"\nclassifier = "local:fast"\nclassifier_context = {newest}')
    assert asked(("user", "a"), ("assistant", "b"), ("user", "c"), profile="p", routes=routes)[1][1] == expected


def test_what_is_too_long_for_the_classifier_is_cut_in_the_middle() -> None:
    # The tier takes 1,000 tokens: about 3,000 characters, less what it is told to do.
    text = asked(("user", "old"), ("user", "b" * 5_000 + "e" * 5_000))[1][1]
    assert text.startswith("User: bbb") and text.endswith("eee") and " … " in text and "old" not in text
    assert len(text) <= 3_000


def test_pictures_and_empty_turns_are_told() -> None:
    pictures = Message("user", (TextPart("What is it?"), ImagePart("data:,"), ImagePart("data:,")))
    question = classifier_request(
        course(ROUTES, "auto", "sorting"), ChatRequest(model="auto", messages=(pictures, Message("user", ())))
    )
    assert question.messages[1].text == "What is it? [image] [image]"
    empty = classifier_request(course(ROUTES, "auto", "sorting"), ChatRequest(model="auto", messages=()))
    assert empty.messages[1].text == "[nothing]"


def heard(label: str, tier: str = "", *, tags: dict[str, str] | None = None, think: bool | None = None) -> Heard:
    """``tier``: where the label does not choose it."""
    return Heard(label=label, tier=tier or label, tags={**(tags or {}), "class": label}, think=think)


@pytest.mark.parametrize(
    ("said", "words", "expected"),
    [
        ("fast", ("fast",), heard("fast")),
        ("fast-think", ("fast",), heard("fast", think=True)),
        ("fast-think", ("fast-think",), heard("fast-think")),
        ("intent=greeting", ("greeting",), heard("greeting", tags={"intent": "greeting"})),
        ("a=1 class=x", (), heard("x", tags={"a": "1"})),
        ("tier=up-think class=x", ("up",), heard("x", "up", tags={"tier": "up-think"}, think=True)),
        ("tier=up class=x-think", ("up",), heard("x", "up", tags={"tier": "up"}, think=True)),
    ],
    ids=["label", "think", "a label that ends so", "another tag", "class wins", "tier thinks", "label thinks"],
)
def test_hear(said: str, words: tuple[str, ...], expected: Heard) -> None:
    assert hear(said, words) == expected


@given(
    said=st.none()
    | st.text()
    | st.lists(st.sampled_from(["class=", "fast", "-think", "<think>", "=", ":"])).map("".join)
)
def test_whatever_is_said_leads_to_a_tier_within_reach(said: str | None) -> None:
    found = after(said)
    if found.classifier is None and found.reply is None and not found.judged:
        (leg,) = found.legs
        assert leg.tier in {"local:fast", "cloud:economy", "cloud:standard", "cloud:expert"}
        assert len(found.label) <= 64
