"""A process that takes and gives back slots at random and writes down what it believes to hold.

Run as ``python -m tests.storage.grants_worker <uri> <database> <name> <seed> <journal>``; it runs until it is killed.
Each line of the journal: ``{"t": when, "valid": until when, "held": {key: slots}}``, in seconds of the system's
monotonic clock, which all processes share. What is lowered is written down before the database hears of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time

from poe_gateway.pool.store import GLOBAL, Ask, LeaseLost
from poe_gateway.storage.client import connect
from poe_gateway.storage.grants import MongoGrants

ACCOUNTS = [f"acct_{number:05}" for number in range(1, 6)]
CAP, GLOBAL_CAP = 2, 6
LIFETIME = 0.8
"""Seconds that a registration lasts; its holder trusts it for three quarters of that."""


class Worker:
    def __init__(self, store: MongoGrants, name: str, seed: int, journal: int) -> None:
        self.store = store
        self.name = name
        self.lives = 0
        self.rng = random.Random(seed)
        self.held: dict[str, int] = {}
        self.valid = 0.0
        self.journal = journal

    @property
    def instance(self) -> str:
        return f"{self.name}-{self.lives}"

    def write(self) -> None:
        line = {"t": time.monotonic(), "valid": self.valid, "held": {k: n for k, n in self.held.items() if n}}
        os.write(self.journal, (json.dumps(line) + "\n").encode())

    async def renew(self) -> None:
        sent = time.monotonic()
        if self.lives and self.valid:
            await self.store.renew(self.instance, LIFETIME)
        else:
            self.lives += 1
            await self.store.join(self.instance, LIFETIME)
        self.valid = sent + 0.75 * LIFETIME
        self.write()

    async def act(self) -> None:
        keys = self.rng.sample([*ACCOUNTS, GLOBAL], self.rng.randint(1, 6))
        if self.rng.random() < 0.55:
            asks = [Ask(key=key, hold=self.rng.randint(1, 5), cap=GLOBAL_CAP if key == GLOBAL else CAP) for key in keys]
            self.held.update(await self.store.take(self.instance, asks))
            self.write()
        else:
            lower = {key: self.rng.randint(0, self.held.get(key, 0)) for key in keys}
            self.held.update(lower)
            self.write()
            await self.store.give_back(self.instance, lower)
        if self.rng.random() < 0.1:
            await self.store.mark_wanted(self.instance, keys, self.rng.random())
            await self.store.wanted(self.instance)

    async def run(self) -> None:
        while True:
            try:
                if time.monotonic() > self.valid - 0.5 * LIFETIME:
                    await self.renew()
                await self.act()
                if self.rng.random() < 0.2:
                    await self.store.reclaim()
            except LeaseLost:
                self.held.clear()
                self.valid = 0.0
                self.write()


async def main(uri: str, database: str, name: str, seed: str, journal: str) -> None:
    async with connect(uri) as client:
        store = MongoGrants(client[database])
        await Worker(store, name, int(seed), os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
