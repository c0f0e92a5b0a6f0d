"""Whether a client still holds its end of a connection."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web

_ESTABLISHED = 1


class Connection:
    """One client's connection, as the kernel knows it: on a busy machine the event loop hears late of an end."""

    def __init__(self, end: web.Request | asyncio.StreamWriter) -> None:
        self._transport = end.transport

    def is_held(self) -> bool:
        """Whether neither side has ended it. A process that is gone holds nothing: the kernel closed it all."""
        if self._transport is None or self._transport.is_closing():
            return False
        try:
            state = self._transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        except OSError:
            return False  # closed in the meantime
        return bool(state[0] == _ESTABLISHED)
