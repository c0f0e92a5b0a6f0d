"""Every spelling of an address that is not public is refused, and public ones are not."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.outbound.addresses import is_public
from poe_gateway.outbound.allowed import NOTHING, of_addresses, read_allowed
from poe_gateway.outbound.destinations import AddressRefused, destination
from poe_gateway.outbound.guard import Guard
from tests.support.private_addresses import PRIVATE_URLS, UNREADABLE_URLS

PUBLIC = ["8.8.8.8", "1.1.1.1", "192.0.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::8a"]
SPECIAL = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.255"),
    *("168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1"),
    *("192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.250"),
    *("240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::10.0.0.1"),
    *("64:ff9b:1::8.8.8.8", "100::1", "2001::1", "2001:0:4136:e378::1", "2001:10::1", "2001:db8::1", "2002:7f00:1::"),
    *("2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1"),
    *("ff02::1", "2a00:1450::5efe:10.0.0.1", "2a00:1450::200:5efe:127.0.0.1", "2606:4700::1111%1"),
]


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses(text: str) -> None:
    assert is_public(ip_address(text))
    if "." in text:
        assert is_public(ip_address(f"::ffff:{text}")) and is_public(ip_address(f"64:ff9b::{text}"))


@pytest.mark.parametrize("text", SPECIAL)
def test_special_addresses(text: str) -> None:
    assert not is_public(ip_address(text))


@given(st.integers(0, 2**32 - 1))
def test_a_mapped_address_is_what_it_maps_to(number: int) -> None:
    plain = IPv4Address(number)
    mapped = IPv6Address((0xFFFF << 32) | number)
    translated = IPv6Address((0x64FF9B << 96) | number)
    assert is_public(plain) == is_public(mapped) == is_public(translated)
    assert not is_public(IPv6Address(number)), "the old form of a mapped address is never public"
    assert not is_public(IPv6Address((0x2002 << 112) | (number << 80))), "nor is a tunnel"
    if plain.is_private or plain.is_loopback or plain.is_link_local or plain.is_multicast or plain.is_reserved:
        assert not is_public(plain)


@pytest.mark.parametrize("url", PRIVATE_URLS + UNREADABLE_URLS, ids=ascii)
def test_no_spelling_of_a_private_address_passes(url: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        Guard().judge(url)
    assert not url or url not in refused.value.public


@pytest.mark.parametrize("url", UNREADABLE_URLS, ids=ascii)
def test_what_is_written_to_deceive_is_no_destination_even_if_all_is_allowed(url: str) -> None:
    with pytest.raises(AddressRefused):
        Guard(read_allowed(["0.0.0.0/0", "::/0", "localhost", "a.test"])).judge(url)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://example.com", "example.com", 80),
        ("https://EXAMPLE.com./a?b#c", "example.com", 443),
        ("https://8.8.8.8:8443/", "8.8.8.8", 8443),
        ("https://[2606:4700::1111]/", "2606:4700::1111", 443),
        ("https://bücher.example/x", "xn--bcher-kva.example", 443),
        ("http://a_b.example.com:81/", "a_b.example.com", 81),
        ("http://1.2.3.4.example.com/", "1.2.3.4.example.com", 80),
    ],
)
def test_ordinary_addresses_are_read(url: str, host: str, port: int) -> None:
    end = Guard().judge(url)
    assert (end.host, end.port, end.url.fragment) == (host, port, "")
    assert end.url.raw_host is not None and end.url.raw_host.removesuffix(".") == host


@given(st.text(max_size=60))
def test_no_text_is_more_than_refused(text: str) -> None:
    for address in (text, f"http://{text}/", f"https://a.example/{text}"):
        try:
            destination(address)
        except AddressRefused:
            continue


@pytest.mark.parametrize(
    ("entries", "passes", "stays_out"),
    [
        ("127.0.0.1", ["http://127.0.0.1:5", "http://[::ffff:7f00:1]/"], ["http://127.0.0.2/", "http://localhost/"]),
        ("127.0.0.1:11434", ["http://127.0.0.1:11434/v1"], ["http://127.0.0.1/", "http://127.0.0.1:11435/"]),
        ("10.0.0.0/8", ["http://10.9.8.7:1234/"], ["http://11.0.0.1.local/", "http://192.168.0.1/"]),
        ("localhost", ["http://localhost:1/", "http://LOCALHOST./"], ["http://127.0.0.1/", "http://a.localhost/"]),
        ("ollama.local:11434", ["http://ollama.local:11434"], ["http://ollama.local/", "http://other.local:11434/"]),
        ("[fd00::1]:80, fe80::/10", ["http://[fd00::1]/", "http://[fe80::1]/"], ["http://[fd00::2]/"]),
        ("fd00::/8", ["http://[fd00::2]:9/"], ["http://[fc00::2]:9/"]),
        ("", [], ["http://127.0.0.1/"]),
    ],
)
def test_what_the_operator_allows(entries: str, passes: list[str], stays_out: list[str]) -> None:
    guard = Guard(read_allowed(entries.split(",")))
    for url in passes:
        guard.judge(url)
    for url in stays_out:
        with pytest.raises(AddressRefused):
            guard.judge(url)


@pytest.mark.parametrize(
    "entry",
    ["http://localhost", "a b", "host:0", "host:65536", "host:x", "10.0.0.0/33", "[::1", "*", "0x7f000001", "@"],
)
def test_entries_that_mean_nothing_are_told(entry: str) -> None:
    with pytest.raises(ValueError, match=r"is not a host|has a port"):
        read_allowed(["localhost", entry])


def test_addresses_allow_exactly_where_they_lead() -> None:
    allowed = of_addresses(
        ["http://127.0.0.1:11434/v1", "https://llm.local", "ws://[::1]:9", "nonsense", "http://0x7f/"]
    )
    guard = Guard(allowed)
    for url in ("http://127.0.0.1:11434/", "https://llm.local/", "http://[::1]:9/"):
        guard.judge(url)
    for url in ("http://127.0.0.1/", "http://llm.local/", "http://[::1]/"):
        with pytest.raises(AddressRefused):
            guard.judge(url)
    assert NOTHING | allowed == allowed == allowed | allowed
