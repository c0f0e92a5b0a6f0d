"""``python -m tests.money --rounds 50``: the long run by hand, on a MongoDB of its own. Prints what was counted."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

import msgspec

from poe_gateway.clock import SystemClock
from poe_gateway.storage import embedded
from tests.money.budget import Plan, Round, run
from tests.support.mongod import temporary_home


async def main(plan: Plan) -> list[Round]:
    with temporary_home() as home, tempfile.TemporaryDirectory() as place:
        mongo = await embedded.ensure_mongod(home, SystemClock())
        try:
            return await run(plan, Path(place), mongo.uri, "money")
        finally:
            await mongo.release()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rounds = asyncio.run(main(Plan(rounds=options.rounds, calls=options.calls, kills=options.kills, seed=options.seed)))
    for each in rounds:
        print(msgspec.json.encode(each).decode())
    bad = [each for each in rounds if each.wrong]
    print(f"{len(rounds)} rounds, {sum(each.kills for each in rounds)} kills, {len(bad)} with something wrong")
    raise SystemExit(1 if bad else 0)
