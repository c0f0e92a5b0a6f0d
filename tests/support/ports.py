"""Ports for servers that are started later, or that go away for a while and come back."""

from __future__ import annotations

import random
import socket

_reserved: list[socket.socket] = []


def free_port() -> int:
    """A port of 127.0.0.1 that nobody else is given while this process lives.

    It lies below those that the system hands out by itself. Among all processes that ask here the datagram port of the
    same number, which nothing uses, is the mark that it is taken.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        mark = socket.socket(type=socket.SOCK_DGRAM)
        try:
            mark.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            mark.close()
            continue
        _reserved.append(mark)
        return port
