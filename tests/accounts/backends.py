"""Houses that keep accounts for the backends of a routing file, and the provider that these lead to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp

from poe_gateway.accounts.managed import ManagedAccounts
from poe_gateway.accounts.references import References
from poe_gateway.outbound.guard import Guard
from poe_gateway.pool.account import Account
from poe_gateway.routing.parse import parse
from poe_gateway.routing.table import Table
from poe_gateway.scheduler.memory import MemoryLeases
from poe_gateway.upstreams.openai_api import OpenAIAPI
from tests.accounts.support import HandClock, House

MODEL = "m-1"


def table(**backends: Mapping[str, Any]) -> Table:
    """A routing table of these backends."""
    return parse({"backends": backends})


def missing_file(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory")


class BackendsHouse(House):
    """A house with ``openai_api`` and managed accounts. ``variables`` are what its process finds by name.

    ``other``: another process on the same database.
    """

    def __init__(self, session: aiohttp.ClientSession, other: BackendsHouse | None = None, guard: Guard | None = None):
        clock = other.clock if other is not None else HandClock()
        shared: dict[str, Any] = (
            {} if other is None else {"hub": other.hub, "book": other.book, "vault": other.vault, "clock": clock}
        )
        adapter = OpenAIAPI(session=session, clock=clock)
        super().__init__(**{"clock": clock, **shared}, upstreams={"openai_api": adapter})
        self.variables: dict[str, str] = {}
        self.references = References(self.variables.get, missing_file)
        self.keychain._resolve = self.references.resolved
        self.desk._guard = guard
        self.leases = other.leases if other is not None else MemoryLeases(self.hub)
        self.managed = ManagedAccounts(
            desk=self.desk,
            book=self.book,
            broker=self.broker,
            catalogues=self.care.catalogues,
            catalog=self.catalog,
            upstreams=self.upstreams,
            references=self.references,
            turns=self.leases,
            changes=self.changes,
            clock=self.clock,
            secret=b"pepper",
            owner=f"process-{id(self)}",
        )

    def accounts(self) -> dict[str, Account]:
        """As they are stored, by name."""
        return {account.name: account for account in self.hub.accounts.values()}
