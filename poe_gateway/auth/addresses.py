"""IP addresses of callers: networks that a key may be used from, and who counts as one caller. Pure.

IPv4 addresses that come as IPv6 (``::ffff:192.0.2.1``) are taken for what they are.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
_MAPPED = IPv6Network("::ffff:0:0/96")
_HOUSEHOLD = 64
"""Bits of an IPv6 address that one subscriber cannot choose."""


def network_of(text: str) -> str:
    """A network or single address in one spelling, ``192.0.2.0/24``. Raises ValueError with what is wrong."""
    try:
        network = ip_network(text.strip())
    except ValueError:
        try:
            loose = ip_network(text.strip(), strict=False)
        except ValueError:
            raise ValueError("not an IP address or a network like 192.0.2.0/24") from None
        raise ValueError(f"the address has bits beyond its network; write {loose}") from None
    if isinstance(network, IPv6Network) and network.network_address.scope_id is not None:
        raise ValueError("an address with a zone means nothing here")
    return str(_unmapped(network))


def _unmapped(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        base = IPv4Address(int(network.network_address) & 0xFFFFFFFF)
        return IPv4Network((base, network.prefixlen - _MAPPED.prefixlen))
    return network


def within(address: str | None, networks: tuple[str, ...]) -> bool:
    """Whether an address lies in one of the networks. One that is unknown or no IP address lies in none."""
    found = _parsed(address) if address else None
    return found is not None and any(found in network for network in _networks(networks))


def source_of(address: str | None) -> str:
    """Who counts as one caller: an IPv4 address, or the /64 of an IPv6 address. Unknown ones are one together."""
    found = _parsed(address) if address else None
    if isinstance(found, IPv6Address):
        return str(IPv6Network((int(found) >> _HOUSEHOLD << _HOUSEHOLD, _HOUSEHOLD)))
    return "" if found is None else str(found)


@lru_cache(maxsize=4096)
def _networks(networks: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ip_network(each) for each in networks)


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(address)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        return found.ipv4_mapped or IPv6Address(int(found))  # without its zone
    return found
