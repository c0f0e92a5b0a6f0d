"""One process of the torture: broker, keeper and journal as in the gateway, and callers that keep them busy.

``python -m tests.storage.torture_worker <plan as JSON>`` runs until it is killed. Each line of its journal is
``<monotonic second> <word>``: ``waits`` when somebody begins to wait, ``rests`` when nobody waits any more, ``got``
for every slot.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
import time
from datetime import UTC, datetime, timedelta

import msgspec

from poe_gateway.clock import Ids, ServerClock
from poe_gateway.errors import GatewayError
from poe_gateway.pool.broker import Broker
from poe_gateway.pool.deaths import Nowhere
from poe_gateway.pool.keeper import Keeper
from poe_gateway.pool.lease import Want
from poe_gateway.pool.outcome import Cancelled, Succeeded
from poe_gateway.pool.policy import PoolPolicy
from poe_gateway.pool.store import StoreUnavailable
from poe_gateway.storage.accounts import MongoAccounts
from poe_gateway.storage.client import connect
from poe_gateway.storage.doorbell import Doorbell
from poe_gateway.storage.grants import MongoGrants
from poe_gateway.storage.places import LinuxPlaces


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told. ``skew``: of its calendar, in seconds. ``blind``: it sees no other process."""

    uri: str
    database: str
    port: int
    journal: str
    seed: int
    callers: int
    each: int
    all: int
    lifetime: float
    skew: float = 0.0
    blind: bool = False


class SkewedClock:
    """A machine whose calendar is wrong."""

    def __init__(self, skew: float) -> None:
        self._skew = timedelta(seconds=skew)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._skew

    def monotonic(self) -> float:
        return time.monotonic()


class Worker:
    def __init__(self, work: Work, accounts: MongoAccounts, grants: MongoGrants, clock: ServerClock) -> None:
        policy = PoolPolicy(
            max_inflight=work.each, global_inflight=work.all, grant_lifetime=work.lifetime, request_timeout=60.0
        )
        self.work = work
        self.accounts = accounts
        self.clock = clock
        self.rng = random.Random(work.seed)
        self.broker = Broker(store=accounts, policy=policy, clock=clock)
        self.keeper = Keeper(broker=self.broker, store=grants, clock=clock, ids=Ids())
        self.journal = os.open(work.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.waiting = 0
        self.calm = asyncio.Event()

    def write(self, word: str) -> None:
        os.write(self.journal, f"{time.monotonic()} {word}\n".encode())

    async def follow(self, doorbell: Doorbell) -> None:
        while True:
            await doorbell.wait(0.5)
            try:
                changes = await self.accounts.changes()
            except StoreUnavailable:
                continue
            self.broker.accept(changes.stored)
            self.broker.remove(changes.removed)
            self.broker.tick()
            self.keeper.ring()

    async def moods(self) -> None:
        """Busy times and calm ones."""
        lifetime = self.work.lifetime
        while True:
            self.calm.set()
            await asyncio.sleep(self.rng.uniform(1, 4) * lifetime)
            self.calm.clear()
            await asyncio.sleep(self.rng.uniform(0.1, 0.6) * lifetime)

    async def call_forever(self, number: int) -> None:
        while True:
            await self.calm.wait()
            want = Want(
                offers=frozenset({"mock"}),
                model="gpt",
                caller=f"caller {number % 3}",
                evidence=f"req_{self.rng.getrandbits(40)}",
                deadline=self.clock.monotonic() + 30.0,
            )
            self.waiting += 1
            if self.waiting == 1:
                self.write("waits")
            try:
                lease = await self.broker.lease(want)
            except GatewayError:
                await asyncio.sleep(0.02)
                continue
            finally:
                self.waiting -= 1
                if not self.waiting:
                    self.write("rests")
            self.write("got")
            revoked = asyncio.Event()
            lease.on_revoked = revoked.set
            if lease.revoked:
                revoked.set()
            done = await self.request(lease.account.id, revoked)
            self.broker.settle(lease, Succeeded() if done else Cancelled())

    async def request(self, account_id: str, revoked: asyncio.Event) -> bool:
        """One request at the upstream; its connection is closed when this returns. False when it was revoked."""
        loop = asyncio.get_running_loop()
        with socket.socket() as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, ("127.0.0.1", self.work.port))
            await loop.sock_sendall(connection, f"{account_id}\n".encode())
            await loop.sock_recv(connection, 1)
            try:
                async with asyncio.timeout(self.duration()):
                    await revoked.wait()
            except TimeoutError:
                return True
            return False

    def duration(self) -> float:
        """Seconds: mostly short ones, some that outlast a grant."""
        kind = self.rng.random()
        if kind < 0.7:
            return self.rng.uniform(0.005, 0.05)
        return self.rng.uniform(0.1, 0.4 if kind < 0.96 else 2.5) * self.work.lifetime

    async def run(self, doorbell: Doorbell) -> None:
        self.broker.accept(await self.accounts.load())
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.keeper.run())
            tasks.create_task(self.broker.journal.flush_forever())
            tasks.create_task(self.follow(doorbell))
            tasks.create_task(self.moods())
            for number in range(self.work.callers):
                tasks.create_task(self.call_forever(number))


async def main(work: Work) -> None:
    clock = ServerClock(SkewedClock(work.skew))
    async with connect(work.uri) as client:
        db = client[work.database]
        grants = MongoGrants(db, Nowhere() if work.blind else LinuxPlaces())
        await Worker(work, MongoAccounts(db, clock), grants, clock).run(Doorbell(db))


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Work)))
