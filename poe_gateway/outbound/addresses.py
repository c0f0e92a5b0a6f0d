"""Which IP addresses are public: reachable by anybody, and no door into the network that the gateway runs in. Pure.

An address is public only when every reading of it is: what a tunnel or a translator would make of it counts too.
"""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address

_SPECIAL_4 = tuple(
    IPv4Network(each)
    for each in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' NAT, and some clouds' metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's metadata in the middle of public space
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments, and a cloud's metadata
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast
    )
)
_UNICAST_6 = IPv6Network("2000::/3")
"""All that is given out; whatever lies outside is local, special or unused."""
_SPECIAL_6 = tuple(
    IPv6Network(each)
    for each in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
"""The well-known prefix: a translator makes the last 32 bits of it an IPv4 address. (Private prefixes are refused.)"""
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""Third quarter of an address whose last 32 bits a tunnel takes for an IPv4 address."""


def is_public(address: Address) -> bool:
    """Whether anybody on the Internet could reach it as well."""
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in _SPECIAL_4)
    if address.scope_id is not None:
        return False
    number = int(address)
    if address in _MAPPED or address in _NAT64:
        return is_public(IPv4Address(number & 0xFFFFFFFF))
    if (number >> 32) & 0xFFFFFFFF in _ISATAP and not is_public(IPv4Address(number & 0xFFFFFFFF)):
        return False
    # Not ``is_global``: what it says of newer ranges depends on the version of Python.
    return address in _UNICAST_6 and not any(address in network for network in _SPECIAL_6)


def plain(address: Address) -> Address:
    """An IPv4 address that is written as an IPv6 one, as what it is."""
    if isinstance(address, IPv6Address) and (mapped := address.ipv4_mapped) is not None:
        return mapped
    return address


def read_address(text: str) -> Address | None:
    """The address in its canonical spelling: four decimal numbers, or IPv6; None for anything else."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
