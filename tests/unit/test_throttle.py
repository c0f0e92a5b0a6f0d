"""Wrong keys per address, and what an address is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.auth.addresses import network_of, source_of, within
from poe_gateway.auth.throttle import Throttle
from tests.accounts.support import HandClock


def test_so_many_are_told_and_no_more_until_the_minute_is_over() -> None:
    clock = HandClock()
    throttle = Throttle(3, clock)
    assert throttle.wait("192.0.2.1") == 0
    assert [throttle.failed("192.0.2.1") for _ in range(3)] == [0, 0, 0]
    clock.pass_(seconds=20)
    assert throttle.failed("192.0.2.1") == throttle.wait("192.0.2.1") == 40
    assert throttle.wait("192.0.2.2") == 0
    clock.pass_(seconds=40)
    assert throttle.wait("192.0.2.1") == 0
    assert [throttle.failed("192.0.2.1") for _ in range(4)] == [0, 0, 0, 60]


def test_what_is_refused_does_not_prolong_the_refusal() -> None:
    clock = HandClock()
    throttle = Throttle(1, clock)
    throttle.failed("192.0.2.1")
    for _ in range(59):
        clock.pass_(seconds=1)
        assert throttle.failed("192.0.2.1") > 0
    clock.pass_(seconds=1)
    assert throttle.wait("192.0.2.1") == 0


@pytest.mark.parametrize("off", [0, -1])
def test_it_can_be_off(off: int) -> None:
    throttle = Throttle(off, HandClock())
    assert [throttle.failed("192.0.2.1") for _ in range(100)] == [0] * 100 and throttle.wait("192.0.2.1") == 0


def test_memory_is_bounded_and_who_is_active_is_remembered() -> None:
    throttle = Throttle(2, HandClock(), sources=4)
    throttle.failed("192.0.2.1")
    for number in range(2, 5):
        throttle.failed(f"192.0.2.{number}")
    throttle.failed("192.0.2.1")
    for number in range(5, 8):
        throttle.failed(f"192.0.2.{number}")
    assert len(throttle) == 4 and throttle.wait("192.0.2.1") > 0
    throttle.failed("192.0.2.8")
    assert len(throttle) == 4 and throttle.wait("192.0.2.1") == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 30)), max_size=60), st.integers(1, 5))
def test_never_more_than_so_many_within_the_minute_of_the_first(steps: list[tuple[int, float]], most: int) -> None:
    clock = HandClock()
    throttle = Throttle(most, clock)
    told: dict[int, list[float]] = {}
    for number, seconds in steps:
        clock.pass_(seconds=seconds)
        wait = throttle.failed(f"192.0.2.{number}")
        assert 0 <= wait <= 60
        if wait == 0:
            mine = told.setdefault(number, [])
            if mine and clock.monotonic() - mine[0] >= 60:
                mine.clear()
            mine.append(clock.monotonic())
            assert len(mine) <= most


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::1", True),
        ("127.0.0.1", "::1", False),
        ("testclient", None, True),
    ],
)
def test_who_counts_as_one_caller(one: str | None, other: str | None, same: bool) -> None:
    assert (source_of(one) == source_of(other)) is same


@pytest.mark.parametrize(
    ("address", "networks", "inside"),
    [
        ("192.0.2.7", ("192.0.2.0/24",), True),
        ("192.0.3.7", ("192.0.2.0/24",), False),
        ("192.0.3.7", ("192.0.2.0/24", "192.0.3.7/32"), True),
        ("::ffff:192.0.2.7", ("192.0.2.0/24",), True),
        ("192.0.2.7", ("::/0",), False),
        ("2001:db8::1", ("2001:db8::/32",), True),
        ("2001:db9::1", ("2001:db8::/32",), False),
        ("2001:db8::1%eth0", ("2001:db8::/32",), True),
        ("127.0.0.1", ("0.0.0.0/0",), True),
        ("nonsense", ("0.0.0.0/0", "::/0"), False),
        ("", ("0.0.0.0/0",), False),
        (None, ("0.0.0.0/0", "::/0"), False),
    ],
)
def test_addresses_within_networks(address: str | None, networks: tuple[str, ...], inside: bool) -> None:
    assert within(address, networks) is inside


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("192.0.2.1", "192.0.2.1/32"),
        (" 10.0.0.0/8 ", "10.0.0.0/8"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
    ],
)
def test_networks_have_one_spelling(written: str, kept: str) -> None:
    assert network_of(written) == kept


@pytest.mark.parametrize("wrong", ["", "10.0.0.1/8", "10.0.0.0/33", "example.com", "10.0.0", "fe80::1%eth0"])
def test_what_is_no_network(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"network|zone"):
        network_of(wrong)


@given(st.ip_addresses(v=4) | st.ip_addresses(network="2001:db8::/32"), st.integers(0, 128))
def test_an_address_is_within_its_own_networks(address: IPv4Address | IPv6Address, bits: int) -> None:
    own = ip_network((address, min(bits, address.max_prefixlen)), strict=False)
    assert within(str(address), (network_of(str(own)),))
