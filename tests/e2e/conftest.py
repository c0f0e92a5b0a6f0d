"""Gateways and emulators for the end-to-end tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gateway import EmulatorServer, GatewayServer
from tests.support.mongod import new_database

Start = Callable[..., GatewayServer]


@pytest.fixture
def gateway(tmp_path: Path, mongo_uri: str, db_name: str) -> Iterator[Start]:
    """Starts gateways on one database: ``gateway(workers=2, MAX_INFLIGHT_PER_ACCOUNT="1")``."""
    started: list[GatewayServer] = []
    shared: dict[str, str] = {}

    def start(workers: int = 1, **settings: str | None) -> GatewayServer:
        server = GatewayServer(tmp_path, mongo_uri, db_name, workers=workers, **{**shared, **settings})
        shared.setdefault("FERNET_KEY", server.environment["FERNET_KEY"])
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, mongo_uri: str) -> Iterator[GatewayServer]:
    """A gateway with the demo pool, for all tests of a module that leave it as it was."""
    with new_database() as name:
        server = GatewayServer(tmp_path_factory.mktemp("demo"), mongo_uri, name, GATEWAY_DEMO_POOL="true")
        with server.running():
            yield server


@pytest.fixture
def emulator() -> Iterator[Callable[..., EmulatorServer]]:
    """Starts Poe emulators: ``emulator("--accounts", "50")``."""
    started: list[EmulatorServer] = []

    def start(*options: str) -> EmulatorServer:
        server = EmulatorServer(*options)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()
