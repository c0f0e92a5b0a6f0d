"""A process that writes attempts into its ledger, ships them and drains the dead, until it is killed.

Run as ``python -m tests.storage.ledger_worker <uri> <database> <spool directory>``. Each line on its output tells what
has returned: ``{"open": row}`` or ``{"close": row, "cost": amount}``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from poe_gateway.clock import Ids, SystemClock
from poe_gateway.metering.ledger import Ledger
from poe_gateway.metering.rows import Intent, Outcome
from poe_gateway.storage.buckets import MongoBuckets
from poe_gateway.storage.client import connect
from poe_gateway.storage.ledger import MongoLedger

BUCKET = "budget|key|key_1|USD|total|total"


def tell(**what: Any) -> None:
    os.write(1, (json.dumps(what) + "\n").encode())


async def main(uri: str, database: str, directory: str) -> None:
    async with connect(uri) as client:
        db, ids = client[database], Ids()
        ledger = Ledger(
            Path(directory), MongoLedger(db), MongoBuckets(db, ids), SystemClock(), ids, segment=20_000, in_memory=50
        )
        await ledger.start()
        running = asyncio.create_task(ledger.run())
        rows: list[str] = []
        while not running.done():
            now = datetime.now(UTC)
            rows.append(
                ledger.open(
                    Intent(
                        request_id=ids.new("req"),
                        attempt=1,
                        at=now,
                        org="org_1",
                        key_id="key_1",
                        provider="mock",
                        offer="mock:demo",
                        account_id="acct_1",
                        model="demo",
                        target="demo",
                        unit="USD",
                        cost=50,
                        charges={BUCKET: 50},
                    )
                )
            )
            tell(open=rows[-1])
            if len(rows) > 5:
                row, cost = rows.pop(ids.rng.randrange(5)), ids.rng.randint(1, 40)
                ledger.close(
                    Outcome(row=row, at=now, status="succeeded", unit="USD", billed_cost=cost, charges={BUCKET: cost})
                )
                tell(close=row, cost=cost)
            await asyncio.sleep(0.002 * ids.rng.random())
        await running


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
