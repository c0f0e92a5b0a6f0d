"""A process that joins the embedded mongod of a folder, says so, and leaves when its input ends.

Run as ``python -m tests.support.mongod_user <data folder>``.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from poe_gateway.clock import SystemClock
from poe_gateway.storage.embedded import ensure_mongod


async def main(data_dir: Path) -> None:
    mongo = await ensure_mongod(data_dir, SystemClock())
    print(mongo.pid, mongo.port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await mongo.release()
    print("released", flush=True)


if __name__ == "__main__":
    # Whoever was started in the background of a shell has inherited that it ignores this one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.run(main(Path(sys.argv[1])))
