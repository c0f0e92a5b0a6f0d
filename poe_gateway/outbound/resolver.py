"""The guard as ``aiohttp`` knows it: a resolver, and a connector whose every socket the guard has made."""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from poe_gateway.outbound.destinations import AddressRefused
from poe_gateway.outbound.guard import Guard


class GuardedResolver(AbstractResolver):
    """Resolves by ``inner`` (the system's name service), and gives on only what the guard lets through.

    What it gives on is what is connected to. A refusal is an OSError, like any other failure of the name service.
    """

    def __init__(self, guard: Guard, inner: AbstractResolver | None = None) -> None:
        self._guard = guard
        self._inner = inner or aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            self._guard.judge_name(host, port)
            found = await self._inner.resolve(host, port, family)
            self._guard.judge_answers(host, port, [each["host"] for each in found])
        except AddressRefused as refused:
            raise PermissionError(refused.public) from None
        return found

    async def close(self) -> None:
        await self._inner.close()


def guarded_connector(guard: Guard, *, inner: AbstractResolver | None = None, **options: Any) -> aiohttp.TCPConnector:
    """A connector that opens connections only to what the guard admits, IP addresses in URLs included."""
    return aiohttp.TCPConnector(resolver=GuardedResolver(guard, inner), socket_factory=guard.open_socket, **options)
