"""Where calls begin in a text, found in no time whatever the text."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.chat.emulation.markup import CLOSING, OPENING, beginning_of_mark, certain, without_tags
from poe_gateway.chat.emulation.plan import Emulation, Offer
from poe_gateway.chat.emulation.reader import Reader
from poe_gateway.chat.events import Finished, TextDelta
from tests.unit.emulating import NOW

FENCE = r"```[\w+-]{0,20}[ \t]{0,8}"
PLAIN = re.compile(rf"\s{{0,64}}(?:{FENCE}\r?\n\s{{0,64}})?(?:{OPENING}|{CLOSING})")
"""What a mark is, said in one pattern that takes long."""
PIECES = [
    " ",
    "\n",
    " " * 40,
    " " * 64,
    "```",
    "`",
    "```json\n",
    "```json  ",
    "\r\n",
    OPENING,
    CLOSING,
    "<tool_c",
    "</",
    "a",
]


@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_marks_are_where_the_plain_pattern_finds_them(text: str) -> None:
    found = PLAIN.search(text)
    assert beginning_of_mark(text) == (None if found is None else found.start())


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), st.sampled_from(PIECES))
def test_what_is_certain_is_in_no_mark_that_is_completed_later(text: str, more: str) -> None:
    before, after = beginning_of_mark(text), beginning_of_mark(text + more)
    if before is None and after is not None:
        assert certain(text) <= after


@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join))
def test_nobody_reads_a_tag(text: str) -> None:
    seen = without_tags(text)
    assert OPENING not in seen and CLOSING not in seen


@pytest.mark.parametrize("letter", [" ", "\n", " " * 64 + "<", "`", "```a\n"], ids=repr)
def test_a_model_that_writes_spaces_without_end_holds_nobody_up(letter: str) -> None:
    """In forms models are known for it. Before, this took seconds."""
    text = letter * (400_000 // len(letter))
    began = time.process_time()
    reader = Reader(Emulation(offer=Offer(tools=(NOW,))), str)
    reader.take(TextDelta(text))
    reader.end(Finished())
    assert time.process_time() - began < 1.0
