"""A process that brings a database to this version and says how many steps it did.

Run as ``python -m tests.storage.migrate_worker <uri> <database> <name>``; it starts when its input says so.
"""

from __future__ import annotations

import asyncio
import sys

from poe_gateway.clock import SystemClock
from poe_gateway.storage.client import connect
from poe_gateway.storage.migrations import migrate


async def main(uri: str, database: str, name: str) -> None:
    async with connect(uri) as client:
        print("ready", flush=True)
        sys.stdin.readline()
        print(await migrate(client[database], name, SystemClock()), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
