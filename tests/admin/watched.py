"""A gateway on memory rooms that can also explain itself."""

from __future__ import annotations

from typing import Any

import msgspec

from poe_gateway.dispatch.continuity import Continuity, SessionPolicy
from poe_gateway.dispatch.dispatcher import Dispatcher
from poe_gateway.dispatch.journey import WalkPolicy
from poe_gateway.dispatch.planning import Planner
from poe_gateway.dispatch.sessions import SessionBook
from poe_gateway.explain.decisions import DecisionLog
from poe_gateway.explain.history import HistoryLog
from poe_gateway.pool.account import Account
from poe_gateway.pool.forecast import Rate, forecast
from poe_gateway.pool.memory import MemoryGrants
from poe_gateway.telemetry.hub import Telemetry
from tests.accounts.support import House
from tests.admin.support import Desk
from tests.support.explain import MemoryDecisions, MemoryHistory
from tests.support.memory import MemorySessions


class WatchedHouse(House):
    """The rooms of ``House``, and those that the explaining routes ask for besides."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.decision_store = MemoryDecisions()
        self.history_store = MemoryHistory()
        self.decisions = DecisionLog(self.decision_store)
        self.history = HistoryLog(self.history_store)
        self.grants = MemoryGrants(self.hub)
        self.session_store = MemorySessions()
        self.sessions = SessionBook(self.session_store, alone=lambda: False, lost=lambda what: None)
        self.planner = Planner(broker=self.broker, catalog=self.catalog, upstreams=self.upstreams, clock=self.clock)
        self.dispatcher = Dispatcher(
            broker=self.broker,
            keychain=self.keychain,
            planner=self.planner,
            continuity=Continuity(broker=self.broker, sessions=self.sessions, clock=self.clock, policy=SessionPolicy()),
            telemetry=Telemetry(),
            clock=self.clock,
            policy=WalkPolicy(),
            decided=self.decisions.note,
        )
        self.broker.grants_valid = lambda: True

    async def forecast(self, hours: int) -> msgspec.Struct:
        await self.hub.call()
        return forecast(
            [seat.account for seat in self.broker.seats.values()],
            {("mock", "mock-small"): Rate(requests=2.0, points=100.0)},
            {},
            self.clock.now(),
            reset=self.policy.reset,
            threshold=self.policy.depleted_threshold,
            hours=hours,
        )

    def hold(self, *accounts: Account, slots: int = 2) -> None:
        """Give this process slots of the accounts."""
        self.broker.regrant({each.id: slots for each in accounts}, slots * len(accounts))


def watched() -> tuple[Desk, WatchedHouse]:
    """A desk whose rooms are watched."""
    desk = Desk()
    house = WatchedHouse(upstreams={"poe_web": desk.poe})
    desk.house = house
    desk.app.state.gateway = house
    return desk, house
