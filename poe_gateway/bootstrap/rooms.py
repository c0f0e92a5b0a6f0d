"""The rooms of one process as the routes ask for them: each module of ``api`` says which of them it needs."""

from __future__ import annotations

from collections.abc import Mapping

from poe_gateway.bootstrap.accounts import Accounts
from poe_gateway.bootstrap.books import Books
from poe_gateway.bootstrap.database import Stored
from poe_gateway.bootstrap.outside import Outside
from poe_gateway.bootstrap.pool import Pool
from poe_gateway.bootstrap.walk import Walk
from poe_gateway.clock import Clock
from poe_gateway.pool.forecast import Forecast
from poe_gateway.routing.catalog import Catalog
from poe_gateway.routing.health import Standing
from poe_gateway.settings import Settings
from poe_gateway.storage.client import ping
from poe_gateway.telemetry.metrics import Metrics


class Rooms:
    """What ``app.state.gateway`` holds. ``started``: monotonic second; ``draining``: no new work is wanted."""

    def __init__(
        self,
        settings: Settings,
        *,
        stored: Stored,
        outside: Outside,
        pool: Pool,
        books: Books,
        accounts: Accounts,
        walk: Walk,
        catalog: Catalog,
        clock: Clock,
        metrics: Metrics,
        started: float,
    ) -> None:
        self.draining = False
        self.started = started
        self.clock = clock
        self.catalog = catalog
        self.models_fallback = settings.routing.models_fallback
        self.unpriced = settings.money.unpriced
        self.upstreams = outside.upstreams
        self.broker = pool.broker
        self.grants = pool.grants
        self.sessions = pool.sessions
        self.decisions = pool.decisions
        self.history = pool.history
        self.keyring = books.keyring
        self.buckets = books.buckets
        self.windows = books.windows
        self.pricelist = books.pricelist
        self.reports = books.reports
        self.changes = books.changes
        self.audit = books.audit
        self.traffic = books.traffic
        self.desk = accounts.desk
        self.care = accounts.care
        self.books = accounts.books
        self.routes = walk.routes
        self.planner = walk.planner
        self.shelf = walk.shelf
        self._client = stored.client
        self._pool = pool
        self._router = walk.router
        self._metrics = metrics

    async def ping(self) -> None:
        """Return when the database answers. Raises StoreUnavailable."""
        await ping(self._client)

    def exposition(self) -> tuple[bytes, str]:
        """Prometheus metrics over all processes."""
        return self._metrics.exposition()

    async def forecast(self, hours: int) -> Forecast:
        """What the pool can still pay, hour by hour. Raises StoreUnavailable."""
        return await self._pool.forecast(self.clock, hours)

    def backends_health(self) -> Mapping[str, Standing]:
        """How the backends of the routing file do, as this process saw it."""
        return self._router.health.standings(self.clock.monotonic())
