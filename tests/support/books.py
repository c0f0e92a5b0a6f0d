"""A house of memory rooms whose ledger is in MongoDB, for the routes that read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI

from poe_gateway.api.application import create_app
from poe_gateway.metering.changes import Changes
from poe_gateway.metering.rows import Change
from poe_gateway.storage.client import Database
from poe_gateway.storage.reports import MongoReports
from tests.accounts.support import House


class BooksHouse:
    """The rooms: those of ``house``, and those that are named here."""

    def __init__(self, db: Database, zone: str = "UTC", **rooms: Any) -> None:
        self.house = House()
        self.reports: Any = MongoReports(db, zone)
        self.noted: list[Change] = []
        self.changes = Changes(self.noted.append, self.house.clock)
        self.__dict__.update(rooms)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.house, name)


def application(rooms: BooksHouse, routers: Sequence[APIRouter]) -> FastAPI:
    """The real application with these routes."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield

    app = create_app(lifespan, routers)
    app.state.gateway = rooms
    return app
