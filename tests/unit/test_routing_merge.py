"""Several files as one document: key by key, named lists by name, profiles by file."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.routing.merge import merged, origins, with_profile


def test_tables_are_merged_key_by_key() -> None:
    base = {
        "backends": {"a": {"provider": "openai", "base_url": "one"}, "b": {"provider": "mock"}},
        "gateway": {"x": 1},
    }
    over = {"backends": {"a": {"base_url": "two"}, "c": {}}, "aliases": {"n": "t"}}
    assert merged(base, over) == {
        "backends": {"a": {"provider": "openai", "base_url": "two"}, "b": {"provider": "mock"}, "c": {}},
        "gateway": {"x": 1},
        "aliases": {"n": "t"},
    }


def test_named_lists_are_replaced_in_place_or_appended() -> None:
    base = {
        "tiers": [{"name": "a", "model": 1, "think": True}, {"name": "b"}],
        "clients": [{"key_env": "K", "profile": "p"}],
    }
    over = {
        "tiers": [{"name": "c"}, {"name": "a", "model": 2}],
        "clients": [{"key_env": "K", "profile": "q"}, {"org": "o"}],
    }
    assert merged(base, over) == {
        "tiers": [{"name": "a", "model": 2}, {"name": "b"}, {"name": "c"}],
        "clients": [{"key_env": "K", "profile": "q"}, {"org": "o"}],
    }


def test_every_place_is_known_by_its_file() -> None:
    base = {"tiers": [{"name": "a"}, {"name": "b"}], "aliases": {"h:x": "a", "y": "a"}}
    over = {"tiers": [{"name": "c"}, {"name": "a", "model": 2}], "aliases": {"y": "b"}}
    found = origins([("one", base), ("two", over)], merged(base, over))
    assert found == {
        "tiers": ("two", "tiers"),
        "tiers[0]": ("two", "tiers[1]"),
        "tiers[0].name": ("two", "tiers[1].name"),
        "tiers[0].model": ("two", "tiers[1].model"),
        "tiers[1]": ("one", "tiers[1]"),
        "tiers[1].name": ("one", "tiers[1].name"),
        "tiers[2]": ("two", "tiers[0]"),
        "tiers[2].name": ("two", "tiers[0].name"),
        "aliases": ("two", "aliases"),
        'aliases."h:x"': ("one", 'aliases."h:x"'),
        "aliases.y": ("two", "aliases.y"),
    }


def test_other_lists_are_replaced_as_a_whole() -> None:
    base = {"profiles": {"p": {"rules": [{"name": "a"}, {"name": "b"}]}}, "backends": {"b": {"labels": ["x", "y"]}}}
    over = {"profiles": {"p": {"rules": [{"name": "c"}]}}, "backends": {"b": {"labels": ["z"]}}}
    assert merged(base, over) == over


def test_the_overlay_wins_over_another_kind_of_value() -> None:
    assert merged({"tiers": {"a": 1}, "gateway": 1}, {"tiers": [1], "gateway": {"x": 1}}) == {
        "tiers": [1],
        "gateway": {"x": 1},
    }


def test_twins_inside_one_file_stay_so_that_they_are_told() -> None:
    assert merged({"tiers": []}, {"tiers": [{"name": "a"}, {"name": "a"}, 3]})["tiers"] == [
        {"name": "a"},
        {"name": "a"},
        3,
    ]


def test_a_profile_by_its_file() -> None:
    base = {"profiles": {"auto": {"mode": "escalate", "classifier": "x"}, "other": {}}}
    assert with_profile(base, "auto", {"mode": "reply"}) == {"profiles": {"auto": {"mode": "reply"}, "other": {}}}
    assert with_profile({}, "file", {"name": "a:b", "mode": "reply"}) == {"profiles": {"a:b": {"mode": "reply"}}}
    assert with_profile({}, "file", {"name": 3}) == {"profiles": {"file": {"name": 3}}}
    assert with_profile({"profiles": 3}, "file", {}) == {"profiles": 3}


VALUES = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(st.sampled_from(["tiers", "clients", "gateway", "profiles"]), VALUES, max_size=4)


@given(base=DOCUMENTS, over=DOCUMENTS)
def test_neither_document_is_changed_and_nothing_is_lost(base: dict[str, Any], over: dict[str, Any]) -> None:
    before = copy.deepcopy((base, over))
    together = merged(base, over)
    assert (base, over) == before
    assert together.keys() == base.keys() | over.keys()
    assert merged(base, {}) == base and merged({}, over) == over
