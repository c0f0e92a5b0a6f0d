"""``python -m tests.torture --minutes 5``: the long run by hand, on a MongoDB of its own. Prints what was measured."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

import msgspec

from poe_gateway.clock import SystemClock
from poe_gateway.storage import embedded
from tests.support.mongod import start_standalone, temporary_home
from tests.torture.run import Plan, Told, Torture


async def main(plan: Plan, *, standalone: bool) -> Told:
    with temporary_home() as home, tempfile.TemporaryDirectory() as place:
        if standalone:
            port = await start_standalone(home)
            return await Torture(plan, Path(place), f"mongodb://127.0.0.1:{port}/", "torture").run()
        mongo = await embedded.ensure_mongod(home, SystemClock())
        try:
            return await Torture(plan, Path(place), mongo.uri, "torture").run()
        finally:
            await mongo.release()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--accounts", type=int, default=20)
    parser.add_argument("--each", type=int, default=2)
    parser.add_argument("--all", type=int, default=25)
    parser.add_argument("--callers", type=int, default=40)
    parser.add_argument("--lifetime", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--standalone", action="store_true", help="a MongoDB without replica set")
    options = parser.parse_args()
    wish = Plan(
        seconds=60 * options.minutes,
        processes=options.processes,
        accounts=options.accounts,
        each=options.each,
        whole=options.all,
        callers=options.callers,
        lifetime=options.lifetime,
        seed=options.seed,
    )
    outcome = asyncio.run(main(wish, standalone=options.standalone))
    print(msgspec.json.format(msgspec.json.encode(outcome)).decode())
    raise SystemExit(1 if outcome.site["violation_count"] else 0)
