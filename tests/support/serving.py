"""An application on a socket of its own, in a thread of the test: for commands and clients that need an address."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


@contextmanager
def serving(app: Any, *, log_level: str = "error") -> Iterator[str]:
    """The address at which it answers."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level=log_level))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 60
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
