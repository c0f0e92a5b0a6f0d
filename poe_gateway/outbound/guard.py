"""The guard at the way out: judges every address that a connection is opened to, whatever name or spelling led there.

Names are judged when they are resolved, and again by the address when the socket is made: a name that resolves to
something else a moment later (rebinding) does not get further than one that always did.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from poe_gateway.outbound.addresses import Address, is_public, read_address
from poe_gateway.outbound.allowed import NOTHING, Allowed
from poe_gateway.outbound.destinations import AddressRefused, Destination, destination, is_local_name

_PRIVATE = "The address leads into a private or special network."
_PATIENCE = 3.0
"""Seconds for which ``check`` waits for the name service."""
_REMEMBERED = 4_096
_TOLD = 1_024


class Guard:
    """One way out. ``refused`` is told each refused ``host:port`` of a connection once."""

    def __init__(self, allowed: Allowed = NOTHING, *, refused: Callable[[str], None] = lambda where: None) -> None:
        self._allowed = allowed
        self._refused = refused
        self._told: set[str] = set()
        self._through: dict[tuple[Address, int], str] = {}
        """Addresses that names which are allowed resolved to, and the name."""

    @property
    def allowed(self) -> Allowed:
        """What is let through although it is not public."""
        return self._allowed

    def allow(self, allowed: Allowed) -> None:
        """Replace what is let through. Connections that stand go on; the next ones are judged by it."""
        self._allowed = allowed
        self._through = {key: name for key, name in self._through.items() if allowed.name(name, key[1])}
        self._told.clear()

    def admits(self, address: Address, port: int) -> bool:
        """Whether the address may be connected to by itself, whatever name led there."""
        return is_public(address) or self._allowed.address(address, port)

    def judge_name(self, host: str, port: int) -> bool:
        """Whether the host is allowed by its name. Raises AddressRefused for one that is local and not allowed."""
        host = host.lower().removesuffix(".")
        if self._allowed.name(host, port):
            return True
        if is_local_name(host):
            raise self.refusal(host, port)
        return False

    def judge_answers(self, host: str, port: int, answers: list[str]) -> None:
        """Whether what a name resolved to may be connected to: all of it or nothing. Raises AddressRefused."""
        found = [read_address(each) for each in answers]
        if self.judge_name(host, port):
            for address in found:
                if address is not None:
                    self._remember(address, port, host.lower().removesuffix("."))
        elif not found or not all(address is not None and self.admits(address, port) for address in found):
            raise self.refusal(host, port)

    def _remember(self, address: Address, port: int, name: str) -> None:
        self._through.pop((address, port), None)
        self._through[address, port] = name
        if len(self._through) > _REMEMBERED:
            del self._through[next(iter(self._through))]

    def open_socket(self, info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """The socket for one address, as ``aiohttp`` asks for it. Raises PermissionError."""
        family, kind, protocol, _, (host, port, *_) = info
        address = read_address(str(host))
        if address is None or not isinstance(port, int):
            raise PermissionError(self.refusal(str(host), port).public)
        if not self.admits(address, port) and (address, port) not in self._through:
            raise PermissionError(self.refusal(str(host), port).public)
        return socket.socket(family, kind, protocol)

    def refusal(self, host: str, port: object) -> AddressRefused:
        """To raise; the operator is told."""
        where = f"{host}:{port}"
        if where not in self._told and len(self._told) < _TOLD:
            self._told.add(where)
            self._refused(where)
        return AddressRefused(_PRIVATE)

    def judge(self, text: str) -> Destination:
        """Read an address and judge what can be judged without the name service. Raises AddressRefused."""
        end = destination(text)
        literal = end.literal
        if literal is not None:
            if not self.admits(literal, end.port):
                raise AddressRefused(_PRIVATE)
        elif is_local_name(end.host) and not self._allowed.name(end.host, end.port):
            raise AddressRefused(_PRIVATE)
        return end

    async def check(self, text: str) -> None:
        """Judge an address that is to be stored, with what its name resolves to now.

        A name that does not resolve at the moment passes: it is judged again whenever it is connected to.
        Raises AddressRefused.
        """
        end = self.judge(text)
        if end.literal is not None or self._allowed.name(end.host, end.port):
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                infos = await asyncio.get_running_loop().getaddrinfo(end.host, end.port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError, UnicodeError):
            return
        found = [read_address(str(info[4][0])) for info in infos]
        if not all(address is not None and self.admits(address, end.port) for address in found):
            raise AddressRefused(_PRIVATE)
