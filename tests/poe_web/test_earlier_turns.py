"""Late events of a turn that nobody here remembers, because the process has started anew in between."""

from __future__ import annotations

from typing import Any

import pytest

from poe_gateway.chat.events import TextDelta
from poe_gateway.upstreams.poe_web import load_protocol
from poe_gateway.upstreams.poe_web.frames import PushEvent
from poe_gateway.upstreams.poe_web.messages import Update, is_older
from poe_gateway.upstreams.poe_web.reply import Reply

PROTOCOL = load_protocol()


def event(kind: str, **data: Any) -> PushEvent:
    return PushEvent(kind, 1, data)


def added(text: str, *, mid: str, state: str = "incomplete", **more: Any) -> PushEvent:
    return event("messageAdded", author="bot", messageId=mid, state=state, text=text, **more)


@pytest.mark.parametrize(
    ("created", "mid", "older"),
    [
        (1_000_000, "90", True),
        (1_000_000, "abc", True),
        (0, "90", True),
        (2_000_000, "110", False),
        (2_000_000, "90", False),
        (1_000_000, "110", False),
        (1_500_000, "abc", False),
        (1_500, "abc", False),
        (0, "abc", False),
    ],
)
def test_which_message_was_there_before(created: int, mid: str, older: bool) -> None:
    """Time in microseconds and number; where they contradict each other nothing is sure."""
    human = Update(message_id="100", created=1_500_000)
    assert is_older(Update(message_id=mid, created=created), human) is older


def _after_restart() -> Reply:
    reply = Reply(PROTOCOL, set())
    reply.accepted(Update(message_id="100", created=1_500_000), None)
    return reply


@pytest.mark.parametrize(
    "late",
    [
        added("old answer", mid="90", state="complete", creationTime=1_000_000),
        added("old answer", mid="90", state="error_insufficient_fund", creationTime=1_000_000),
        added("old answer", mid="90", state="cancelled"),
        event("messageCancelled", messageId="90", creationTime=1_000_000),
        event("jobCostUpdated", totalCostPoints=9, trigger={"message": {"messageId": "88"}}),
    ],
    ids=["complete", "failed", "cancelled", "cancelled-event", "cost"],
)
def test_late_events_of_a_turn_before_the_restart(late: PushEvent) -> None:
    reply = _after_restart()
    assert reply.take_event(late) is None
    assert not reply.done and not reply.begun and reply.points is None
    new = added("new", mid="103", state="complete", creationTime=1_600_000)
    assert reply.take_event(new) == TextDelta("new") and reply.done


def test_the_message_named_in_the_answer_is_never_an_old_one() -> None:
    reply = Reply(PROTOCOL, set())
    named = Update(message_id="7", text="", state="incomplete", created=1)
    reply.accepted(Update(message_id="100", created=1_500_000), named)
    assert reply.take(named) is None
    assert reply.take_event(added("x", mid="7", creationTime=1)) == TextDelta("x")
