"""The judge of the torture: a server that knows how many requests are open, whatever the gateways believe.

``python -m tests.storage.torture_upstream <journal>`` prints its port and runs until it is killed. A client sends the
name of an account and a line feed, gets one byte when the request is counted, and closes when it is over. A killed
client's connections close by themselves, a stopped one's do not.

Each line of the journal: ``<monotonic second> <account> <+1 or -1>``, in the order in which things really were: what
closed is counted before what opened in the same moment, and whoever opened because something had closed is seen later.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from contextlib import suppress


def serve(journal: int) -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listening.setblocking(False)
    print(listening.getsockname()[1], flush=True)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    names: dict[int, str] = {}
    while True:
        opened: list[tuple[socket.socket, str]] = []
        lines: list[str] = []
        for key, _ in selector.select():
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            if connection is listening:
                client, _ = listening.accept()
                client.setblocking(False)
                selector.register(client, selectors.EVENT_READ)
                continue
            try:
                said = connection.recv(256)
            except ConnectionError:
                said = b""
            if said:
                opened.append((connection, said.decode().strip()))
                continue
            selector.unregister(connection)
            name = names.pop(connection.fileno(), None)
            connection.close()
            if name is not None:
                lines.append(f"{time.monotonic()} {name} -1\n")
        for connection, name in opened:
            names[connection.fileno()] = name
            lines.append(f"{time.monotonic()} {name} +1\n")
            with suppress(ConnectionError):  # killed in the meantime: its end is seen next
                connection.send(b"+")
        os.write(journal, "".join(lines).encode())


if __name__ == "__main__":
    serve(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND))
