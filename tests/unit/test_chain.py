"""The audit chain: whatever is done to it without the key is found, and named. What changes may hold."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from poe_gateway.metering.chain import GENESIS, Chain, Head, Report, Walk
from poe_gateway.metering.changes import Changes, plain
from poe_gateway.metering.rows import Change
from poe_gateway.pool.account import Health, State
from poe_gateway.telemetry.redaction import MASK

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
CHAIN = Chain(b"pepper")
Links = list[dict[str, Any]]


def fields(number: int, **more: Any) -> dict[str, Any]:
    return {
        "source": f"spool_a-{number}",
        "at": NOON + timedelta(milliseconds=number),
        "actor": "admin:alice",
        "address": "10.0.0.1",
        "action": "key.change",
        "target": f"key:key_{number}",
        "before": {"rpm": number, "note": "", "ratio": 0.5},
        "after": {"rpm": number + 1, "models": ["a", "b"]},
        "request_id": None,
        **more,
    }


def chain_of(size: int, chain: Chain = CHAIN) -> Links:
    links: Links = []
    prev = GENESIS
    for number in range(1, size + 1):
        links.append(chain.link(number, prev, fields(number)))
        prev = links[-1]["hash"]
    return links


def head_of(links: Links, **more: Any) -> Head:
    return Head(n=links[-1]["n"], hash=links[-1]["hash"], **more) if links else Head(**more)


def checked(links: Links, head: Head | None, noted: tuple[int, str] | None = None, now: datetime = NOON) -> Report:
    walk = Walk(CHAIN, head, noted)
    for link in links:
        if not walk.step(link):
            break
    return walk.end(now)


@given(st.integers(0, 12), st.integers(0, 2))
def test_a_whole_chain_is_good_and_its_head_may_lag(size: int, lag: int) -> None:
    links = chain_of(size)
    report = checked(links, head_of(links[: max(0, size - lag)]))
    assert report.ok and report.checked == report.last == size and report.bad is None
    assert report.hash == (links[-1]["hash"] if links else GENESIS)


@given(st.data())
def test_every_field_of_every_link_is_guarded(data: st.DataObject) -> None:
    links = chain_of(data.draw(st.integers(1, 6)))
    head = head_of(links)
    place = data.draw(st.integers(0, len(links) - 1))
    name = data.draw(st.sampled_from(sorted(set(links[place]) - {"n", "kid"})))
    value = data.draw(
        st.one_of(st.none(), st.integers(), st.floats(allow_nan=True), st.text(), st.just(NOON), st.just({"rpm": 1.0}))
    )
    assume(value != links[place][name] or type(value) is not type(links[place][name]))
    links[place][name] = value
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # to look whether it was only moved, thousands of places far, takes long
        patch.setattr("poe_gateway.metering.chain._NEAR", 10)
        report = checked(links, head)
    assert not report.ok and (report.bad, report.wrong) == (place + 1, "changed")
    assert report.checked == place


@pytest.mark.parametrize("change", [{"extra": 1}, {"before": {"rpm": 1.0}}, {"after": {"rpm": True}}, {"at": None}])
def test_values_that_only_look_equal_are_changes(change: dict[str, Any]) -> None:
    links = chain_of(3)
    links[0] = CHAIN.link(1, GENESIS, fields(1, before={"rpm": 1}, after={"rpm": 1}))
    for name, value in change.items():
        links[0][name] = value
    assert checked(links, head_of(links)).wrong == "changed"


@given(st.integers(2, 8), st.data())
def test_a_link_that_is_taken_out_is_missed(size: int, data: st.DataObject) -> None:
    links = chain_of(size)
    head = head_of(links)
    gone = data.draw(st.integers(1, size))
    rest = [link for link in links if link["n"] != gone]
    report = checked(rest, head)
    assert not report.ok and report.bad == gone
    assert report.wrong == ("cut off" if gone == size else "missing")


@given(st.integers(2, 8), st.data())
def test_links_that_were_moved_are_known(size: int, data: st.DataObject) -> None:
    links = chain_of(size)
    head = head_of(links)
    one, other = data.draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=2, unique=True))
    links[one]["n"], links[other]["n"] = links[other]["n"], links[one]["n"]
    links.sort(key=lambda link: int(link["n"]))
    report = checked(links, head)
    first = min(one, other) + 1
    assert (report.bad, report.wrong) == (first, "reordered")
    assert report.detail == f"it was written as entry {max(one, other) + 1}"


@given(st.integers(1, 8), st.data())
def test_a_tail_that_is_cut_off_is_missed(size: int, data: st.DataObject) -> None:
    links = chain_of(size)
    left = data.draw(st.integers(0, size - 1))
    report = checked(links[:left], head_of(links))
    assert (report.bad, report.wrong, report.checked) == (left + 1, "cut off", left)


def test_a_link_of_another_key_is_foreign() -> None:
    links = chain_of(3)
    links[1] = Chain(b"other").link(2, links[0]["hash"], fields(2))
    assert (checked(links, head_of(links)).bad, checked(links, head_of(links)).wrong) == (2, "foreign key")
    forged = {**links[1], "kid": CHAIN.kid}
    assert checked([links[0], forged, links[2]], head_of(links)).wrong == "changed"


def test_a_genuine_link_of_another_history_is_found() -> None:
    links = chain_of(3)
    fork = CHAIN.link(2, CHAIN.link(1, GENESIS, fields(9))["hash"], fields(2))
    report = checked([links[0], fork, links[2]], head_of(links))
    assert (report.bad, report.wrong) == (2, "changed") and "follow" in report.detail
    last = CHAIN.link(3, links[1]["hash"], fields(7))
    report = checked([*links[:2], last], head_of(links))
    assert (report.bad, report.wrong) == (3, "changed") and "the head" in report.detail


def test_what_was_noted_elsewhere_is_compared() -> None:
    links = chain_of(4)
    note = (3, links[2]["hash"])
    assert checked(links, head_of(links), note).ok
    # Whoever holds the key can write the whole chain anew; the note tells.
    anew = chain_of(2)
    anew.append(CHAIN.link(3, anew[-1]["hash"], fields(33)))
    report = checked(anew, head_of(anew), note)
    assert (report.bad, report.wrong) == (3, "changed") and "noted" in report.detail
    report = checked(anew[:2], head_of(anew[:2]), note)
    assert (report.bad, report.wrong) == (3, "cut off") and "noted" in report.detail


def test_what_has_expired_is_not_missed() -> None:
    links = chain_of(6)
    head = head_of(links, trimmed=True, expires_at=NOON)
    report = checked(links[3:], head)
    assert report.ok and (report.first, report.last, report.checked) == (4, 6, 3)
    assert report.detail == "Entries older than 4 have expired."
    report = checked(links[3:], head, (2, links[1]["hash"]))
    assert report.ok and "could not be compared" in report.detail
    assert checked([links[3], links[5]], head).wrong == "missing"
    assert checked(links[3:], replace(head, trimmed=False)).wrong == "missing"
    assert "All 6 entries" in checked([], head).detail
    later = replace(head, expires_at=NOON + timedelta(days=1))
    assert checked([], later).wrong == "cut off"
    assert checked([], replace(head, expires_at=None)).wrong == "cut off"


def test_numbers_that_are_none() -> None:
    for number in (1.0, True, None, "1"):
        link = {**chain_of(1)[0], "n": number}
        assert (checked([link], Head()).bad, checked([link], Head()).wrong) == (1, "changed")


def test_the_head_is_signed() -> None:
    head = Head(n=3, hash="ab", expires_at=NOON)
    mac = CHAIN.sign(head)
    assert CHAIN.signed(head, mac) and not Chain(b"other").signed(head, mac)
    for other in (
        replace(head, n=2),
        replace(head, hash="ac"),
        replace(head, trimmed=True),
        replace(head, expires_at=None),
    ):
        assert not CHAIN.signed(other, mac)
    assert not CHAIN.signed(head, "\udc80")


# What a change may hold.

SECRET = "canary-7be1-value"
NAMES = st.sampled_from(
    [
        *(
            "hash",
            "previous_hash",
            "key",
            "apiKey",
            "API-KEY",
            "X-Api-Key",
            "text",
            "client_secret",
            "Cookie",
            "tokens",
        ),
        *("set_cookie", "poe_p_b", "poe_cf_bm", "p_lat", "formkey", "credentials", "access_token", "refreshToken"),
        *("password", "passwd", "Authorization", "bearer", "pepper", "sealed", "private_key", "mac", "SECRETkey"),
        *("fernetKey", "webhookSecret"),
    ]
)
VALUES = st.recursive(
    st.just(SECRET),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.dictionaries(st.sampled_from(["a", "b", "name"]), inner, min_size=1),
        st.tuples(inner),
    ),
    max_leaves=4,
)


def around(depth: int, inner: dict[str, Any], in_list: bool) -> dict[str, Any]:
    for _ in range(depth):
        inner = {"part": [inner] if in_list else inner}
    return inner


@given(NAMES, VALUES, st.integers(0, 10), st.booleans())
def test_no_secret_gets_past_by_its_name(name: str, value: Any, depth: int, in_list: bool) -> None:
    noted: list[Change] = []
    changes = Changes(noted.append, _Clock())
    values = around(depth, {name: value, "rpm": 5}, in_list)
    before = deepcopy(values)
    changes.record("key.change", "key:key_1", before=values, after=values)
    assert SECRET not in repr(noted)
    assert values == before


@pytest.mark.parametrize(
    "text",
    [
        "Bearer pgw_abc.canary-7be1-value-0",
        "sk-canary-7be1-value-000000",
        "https://u:canary-7be1-value@host/",
        "gAAAAAcanary-7be1-value-000000",
    ],
)
def test_no_secret_gets_past_by_its_looks(text: str) -> None:
    assert SECRET not in json.dumps(plain({"note": text, "list": [text], text: 1}))


def test_what_is_no_secret_stays() -> None:
    kept = {
        "key_id": "key_1",
        "account_ids": ["acct_1"],
        "keep_text": True,
        "secret": None,
        "tokens_minute": 1000,
        "max_tokens": 5,
        "name": "app",
        "labels": ["eu"],
        "budgets": [{"unit": "USD", "period": "day", "amount": 5_000_000}],
    }
    assert plain(kept) == kept
    assert plain({"tokens_minute": SECRET, "token": 12}) == {"tokens_minute": MASK, "token": MASK}


class _Kind(Enum):
    ONE = "one"


def test_values_come_back_from_any_store_as_they_went_in() -> None:
    odd = {
        "moment": NOON,
        "amount": Decimal("1.50"),
        "kind": _Kind.ONE,
        "health": Health(state=State.INVALID),
        "set": frozenset({"b", "a"}),
        "huge": 2**70,
        "nan": float("nan"),
        "infinite": float("-inf"),
        "half": "\ud800",
        "nul\x00": "x\x00y",
        "long": "y" * 5000,
        3: "number",
    }
    told = plain(odd)  # type: ignore[arg-type]
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["amount"] == "1.50" and told["kind"] == "one" and told["set"] == ["a", "b"] and told["3"] == "number"
    assert told["huge"] == str(2**70) and told["nan"] == "nan" and told["half"] == "?" and "nul" in told
    assert len(told["long"]) == 2001 and told["health"]["state"] == "invalid"


class _Clock:
    def now(self) -> datetime:
        return NOON

    def monotonic(self) -> float:
        return 0.0
