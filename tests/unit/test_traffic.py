"""The shape of requests: enough for an auditor, nothing of what was said."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.metering.rows import Traffic
from poe_gateway.metering.traffic import TrafficShape

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SHAPE = TrafficShape(b"pepper")
TEXT = st.text(alphabet=st.characters(), max_size=40)
TURNS = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), TEXT, st.integers(0, 3)), max_size=8
)


def record(**more: Any) -> Traffic:
    fields: dict[str, Any] = {
        "request_id": "req_1",
        "at": NOON,
        "org": "default",
        "key_id": "key_1",
        "route": "/v1/chat/completions",
        "model": "m",
        "status": 200,
    }
    return SHAPE.record(**{**fields, **more})


@given(TURNS, TEXT)
def test_roles_lengths_and_digests_and_no_text(turns: list[tuple[str, str, int]], answer: str) -> None:
    told = record(turns=turns, answer=answer, finish="stop")
    assert [(each["role"], each["length"], each.get("images", 0)) for each in told.messages] == [
        (role, len(text), images) for role, text, images in turns
    ]
    assert all(set(each) <= {"role", "length", "digest", "images"} for each in told.messages)
    assert told.answer == {"length": len(answer), "finish": "stop", "digest": SHAPE.digest(answer)}
    assert told.sealed is None
    for each in told.messages:
        assert len(each["digest"]) == 32 and int(each["digest"], 16) >= 0


def test_no_part_of_a_text_is_in_the_record() -> None:
    canary = "canary-prompt-5521 ünïcode"
    told = record(turns=[("user", canary, 0)], answer=canary[::-1])
    encoded = msgspec.json.encode(told).decode()
    assert not any(canary[at : at + 6] in encoded or canary[::-1][at : at + 6] in encoded for at in range(20))


@given(TEXT, TEXT)
def test_equal_texts_have_equal_digests_and_only_they(one: str, other: str) -> None:
    assert (SHAPE.digest(one) == SHAPE.digest(other)) == (one == other)


def test_digests_need_the_key() -> None:
    assert TrafficShape(b"other").digest("yes") != SHAPE.digest("yes") == TrafficShape(b"pepper").digest("yes")


def test_half_a_surrogate_pair_is_no_obstacle() -> None:
    told = record(turns=[("user", "\ud800", 0)], answer="\udfff", seal=lambda text: text)
    assert told.messages[0]["length"] == 1 and told.sealed is not None
    assert json.loads(told.sealed)["answer"] == "?"


def test_no_answer_and_an_empty_one_are_told_apart() -> None:
    assert record(answer=None).answer == {}
    assert record(answer="").answer["length"] == 0


def test_the_oldest_turns_of_a_very_long_conversation_are_one_entry() -> None:
    turns = [("user", "x" * number, 0) for number in range(1000)]
    told = record(turns=turns).messages
    assert len(told) == 201 and told[0] == {"earlier": 800, "length": sum(range(800))}
    assert [each["length"] for each in told[1:]] == list(range(800, 1000))


def test_text_is_kept_sealed_only_where_a_seal_is_given() -> None:
    sealed: list[str] = []

    def seal(text: str) -> str:
        sealed.append(text)
        return "sealed"

    told = record(turns=[("user", "hällo", 1)], answer="hi", seal=seal)
    assert told.sealed == "sealed" and "hällo" not in repr(told)
    assert json.loads(sealed[0]) == {"messages": [{"role": "user", "text": "hällo", "images": 1}], "answer": "hi"}


def test_records_stay_storable_whatever_callers_send() -> None:
    size = 5 * 1024 * 1024
    told = record(turns=[("user", "x" * size, 0)], seal=lambda text: text, model="m" * 10_000)
    assert told.sealed is not None and json.loads(told.sealed)["too_long"] > size
    assert told.model == "m" * 200
