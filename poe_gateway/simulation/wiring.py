"""How a simulated process is put together: the real rooms, wired as the composition root does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from poe_gateway.accounts.memory import MemoryBook
from poe_gateway.accounts.visits import Visitor
from poe_gateway.dispatch.continuity import Continuity, SessionPolicy
from poe_gateway.dispatch.dispatcher import Dispatcher
from poe_gateway.dispatch.journey import WalkPolicy
from poe_gateway.dispatch.planning import Planner
from poe_gateway.dispatch.sessions import SessionBinding, SessionBook
from poe_gateway.pool.deaths import Places, Residence
from poe_gateway.pool.keeper import Keeper
from poe_gateway.pool.memory import MemoryAccounts, MemoryDoorbell, MemoryGrants, MemoryHub
from poe_gateway.pool.pricebook import PriceBook
from poe_gateway.pool.pricebook_memory import MemoryPrices, MemoryUsage
from poe_gateway.routing.catalog import Catalog
from poe_gateway.simulation.judge import Judge
from poe_gateway.simulation.plan import Plan
from poe_gateway.simulation.site import Site
from poe_gateway.simulation.upstream import SiteUpstream
from poe_gateway.simulation.virtual_time import World
from poe_gateway.simulation.watch import Watch, WatchedBroker
from poe_gateway.simulation.wire import Line, RemoteAccounts, RemoteCredentials, RemoteGrants, RemoteSessions
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.upstreams.keychain import Keychain
from poe_gateway.vault import Vault

if TYPE_CHECKING:
    from poe_gateway.simulation.gateway import Gateway


class Surroundings(msgspec.Struct, kw_only=True):
    """What all processes share: world, database and provider."""

    world: World
    plan: Plan
    judge: Judge
    site: Site
    hub: MemoryHub
    line: Line
    book: MemoryBook
    bindings: dict[str, SessionBinding]
    prices: MemoryPrices
    usage: MemoryUsage
    vault: Vault
    catalog: Catalog
    gateways: list[Gateway] = []
    """All that ever lived, in the order of their births."""
    kinds: Kinds


class Machines(Places):
    """What one process sees of the others: those on its own machine."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def here(self) -> Residence | None:
        return Residence(place=f"machine-{self._gateway.place}", pid=self._gateway.pid, started=0)

    def lives(self, residence: Residence) -> bool | None:
        mine = self.here()
        if mine is None or residence.place != mine.place:
            return None
        return self.sees(residence).lives

    def sees(self, residence: Residence) -> Gateway:
        """Whoever lives there, or did."""
        return self._gateway.around.gateways[residence.pid - 1]


class Kinds(msgspec.Struct, frozen=True, kw_only=True):
    """Parts in whose place a planted bug may be put."""

    grants: type[RemoteGrants] = RemoteGrants
    accounts: type[RemoteAccounts] = RemoteAccounts
    broker: type[WatchedBroker] = WatchedBroker
    machines: type[Machines] = Machines


def assemble(gateway: Gateway) -> None:
    """All rooms of one process. The only place that knows how they are put together."""
    around, clock, ids = gateway.around, gateway.clock, gateway.ids
    plan, line = around.plan, around.line
    kinds = around.kinds
    gateway.store = kinds.accounts(line, MemoryAccounts(around.hub))
    gateway.broker = broker = kinds.broker(store=gateway.store, policy=plan.policy, clock=clock)
    gateway.watch = Watch(gateway.name, broker, clock, around.judge, gateway.stepped)
    gateway.keeper = keeper = Keeper(
        broker=broker,
        store=kinds.grants(line, MemoryGrants(around.hub, kinds.machines(gateway))),
        clock=clock,
        ids=ids,
        pauses=plan.pauses,
    )
    gateway.sessions = SessionBook(
        RemoteSessions(line, around.bindings),
        alone=lambda: len(keeper.membership.live) == 1 and keeper.valid(),
        lost=lambda what: around.judge.tell(gateway.name, what),
    )
    gateway.keychain = Keychain(RemoteCredentials(line, around.book.sealed), around.vault, clock)
    gateway.pricebook = PriceBook(around.prices, around.usage, ids)
    upstreams = {"site": SiteUpstream(around.site, gateway.name, gateway.place, gateway.watch.contacting)}
    gateway.visitor = Visitor(
        book=around.book, broker=broker, keychain=gateway.keychain, upstreams=upstreams, clock=clock
    )
    gateway.dispatcher = Dispatcher(
        broker=broker,
        keychain=gateway.keychain,
        planner=Planner(
            broker=broker, catalog=around.catalog, upstreams=upstreams, clock=clock, prices=gateway.pricebook
        ),
        continuity=Continuity(broker=broker, sessions=gateway.sessions, clock=clock, policy=SessionPolicy()),
        telemetry=Telemetry(),
        clock=clock,
        policy=WalkPolicy(
            acquire_timeout=plan.policy.acquire_timeout, request_timeout=plan.policy.request_timeout, max_attempts=3
        ),
        prices=gateway.pricebook,
        decided=gateway.decisions.append,
    )
    gateway.doorbell = None
    if plan.doorbell:
        gateway.doorbell = MemoryDoorbell(around.hub)
        gateway.bell = around.hub.bells[-1]
