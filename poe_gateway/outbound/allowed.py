"""What the operator lets the gateway connect to although it is not public. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

import msgspec

from poe_gateway.outbound.addresses import Address, plain
from poe_gateway.outbound.destinations import AddressRefused, destination

_ENTRY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]/:\s]+))(?::(?P<port>[0-9]{1,5}))?\Z")


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """Hosts by name and networks, each with one port or with all of them (None)."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()
    """Names in lower case."""
    networks: tuple[tuple[IPv4Network | IPv6Network, int | None], ...] = ()

    def name(self, host: str, port: int) -> bool:
        """Whether the host is allowed by its name: whatever it resolves to then is, too."""
        return (host, None) in self.hosts or (host, port) in self.hosts

    def address(self, address: Address, port: int) -> bool:
        """Whether the address is allowed by itself."""
        address = plain(address)
        return any(
            (only is None or only == port) and address.version == network.version and address in network
            for network, only in self.networks
        )

    def __or__(self, other: Allowed) -> Allowed:
        """What either allows."""
        return Allowed(hosts=self.hosts | other.hosts, networks=tuple(dict.fromkeys((*self.networks, *other.networks))))


NOTHING = Allowed()


def read_allowed(entries: Iterable[str]) -> Allowed:
    """From ``host``, ``host:port``, an address, ``[v6]:port`` or a network in CIDR form.

    Raises ValueError; its text names the entry.
    """
    hosts: set[tuple[str, int | None]] = set()
    networks: list[tuple[IPv4Network | IPv6Network, int | None]] = []
    for entry in filter(None, (each.strip() for each in entries)):
        network = _network(entry)
        if network is not None:
            networks.append((network, None))
            continue
        found = _ENTRY.match(entry)
        if found is None:
            raise ValueError(f"{entry[:80]!r} is not a host, host:port, IP address or network")
        host, port = found["v6"] or found["host"], int(found["port"]) if found["port"] else None
        if port is not None and not 0 < port < 65_536:
            raise ValueError(f"{entry[:80]!r} has a port that does not exist")
        try:
            end = destination(f"http://[{host}]" if found["v6"] else f"http://{host}")
        except AddressRefused:
            raise ValueError(f"{entry[:80]!r} is not a host, host:port, IP address or network") from None
        if end.literal is not None:
            networks.append((ipaddress.ip_network(plain(end.literal)), port))
        else:
            hosts.add((end.host, port))
    return Allowed(hosts=frozenset(hosts), networks=tuple(networks))


def of_addresses(urls: Iterable[str]) -> Allowed:
    """Exactly what these base addresses lead to; those that cannot be read allow nothing."""
    entries = []
    for url in urls:
        try:
            end = destination(re.sub(r"^ws", "http", url))
        except AddressRefused:
            continue
        entries.append(f"[{end.host}]:{end.port}" if ":" in end.host else f"{end.host}:{end.port}")
    return read_allowed(entries)


def _network(entry: str) -> IPv4Network | IPv6Network | None:
    """A network, or a bare address, in usual spelling; bits behind the mask are forgiven."""
    if "%" in entry:
        return None
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None
