"""What an address that somebody gave leads to: scheme, host and port, in one spelling only. Pure.

The result is the very object that is connected to: nothing reads the text a second time in another way.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address

import msgspec
from yarl import URL

from poe_gateway.outbound.addresses import Address, read_address

_LONGEST = 8_192
_NAME = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z"
)
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\Z")
"""A last part of this form makes old resolvers read the whole name as a number."""
_AUTHORITY = re.compile(r"https?://(?P<authority>[^/?#]*)", re.IGNORECASE)
_LOCAL = ("localhost", "localdomain", "local", "internal", "home.arpa")
"""Names, and ends of names, that never mean a host of the Internet."""


class AddressRefused(ValueError):
    """The gateway does not go there. ``public`` says why, without repeating the address."""

    def __init__(self, public: str) -> None:
        super().__init__(public)
        self.public = public


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request would go. ``host`` is in lower case, without brackets and without a dot at the end."""

    url: URL
    scheme: str
    host: str
    port: int
    literal: Address | None = None
    """The host, where it is an IP address and not a name."""


def destination(text: str) -> Destination:
    """Read an ``http`` or ``https`` address. Raises AddressRefused for what is none, or is written to deceive."""
    if not isinstance(text, str) or not 0 < len(text) <= _LONGEST:
        raise AddressRefused(f"The address must have 1 to {_LONGEST} characters.")
    if any(ord(each) <= 32 or ord(each) == 127 or "\ud800" <= each <= "\udfff" for each in text):
        raise AddressRefused("The address must not hold spaces or control characters.")
    written = _AUTHORITY.match(text)
    if written is None:
        raise AddressRefused("The address must be an http or https address with a host.")
    if "@" in written["authority"]:
        raise AddressRefused("The address must not carry a user or password.")
    try:
        url = URL(text)
        host, port = url.raw_host, url.port
    except (ValueError, UnicodeError, TypeError):
        raise AddressRefused("The address cannot be read.") from None
    if not host:
        raise AddressRefused("The address must be an http or https address with a host.")
    if not port:
        raise AddressRefused("The port must be from 1 to 65535.")
    host = host.lower().removesuffix(".")
    literal = read_address(host)
    if literal is None:
        if "[" in written["authority"]:  # no IPv6 address stands between them, and the reader lets that through
            raise AddressRefused("The address cannot be read.")
        _check_name(host)
    elif isinstance(literal, IPv4Address) and url.raw_host != host:
        raise AddressRefused("An IP address has no dot at its end.")
    return Destination(url=url.with_fragment(None), scheme=url.scheme, host=host, port=port, literal=literal)


def _check_name(host: str) -> None:
    """Names as DNS has them; IP addresses in short, octal, hexadecimal, escaped or zoned spelling are none."""
    if not _NAME.match(host):
        raise AddressRefused("The host must be a name or an IP address in its usual spelling.")
    if _NUMBER.match(host.rpartition(".")[2]):
        raise AddressRefused("An IP address must be written as four decimal numbers, or as IPv6 in brackets.")


def is_local_name(host: str) -> bool:
    """Names of this machine or this network, whatever they resolve to. ``host`` as in ``Destination``."""
    return any(host == name or host.endswith("." + name) for name in _LOCAL)
