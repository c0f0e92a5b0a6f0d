"""The doorbell: wakes this process when another one has changed something that it should look at.

It carries no data and promises nothing; whoever waits looks for himself, and looks anyway after the given time. On a
server without change streams (a standalone mongod) it never rings.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from pymongo.errors import OperationFailure, PyMongoError

from poe_gateway.storage import schema
from poe_gateway.storage.client import Database, cancellations

_RETRY = 1.0
"""Seconds before a broken stream is opened again."""
_REFUSED_RETRY = 60.0
_NO_STREAMS = frozenset({40573, 40324})
_NOT_ALLOWED = frozenset({13, 18})
_WATCHED = (schema.ACCOUNTS, schema.SERVICE_KEYS, schema.POOL)

# Grants come and go without noise; the fields that mean something to others ring.
_LOUD: dict[str, Any] = {
    "$anyElementTrue": [
        {
            "$map": {
                "input": {"$objectToArray": {"$ifNull": ["$updateDescription.updatedFields", {}]}},
                "in": {"$regexMatch": {"input": "$$this.k", "regex": "^(rev$|wanted|freed_at$|enabled$)"}},
            }
        }
    ]
}
_STAGES: list[dict[str, Any]] = [
    {
        "$match": {
            "ns.coll": {"$in": list(_WATCHED)},
            "$or": [
                {"operationType": "insert"},
                {"operationType": "update", "$expr": _LOUD},
                {"operationType": "replace", "ns.coll": {"$ne": schema.POOL}},
                # A change of a small document is told as its replacement.
                {"operationType": "replace", "fullDocument.wanted.0": {"$exists": True}},
            ],
        }
    },
    {"$project": {"_id": 1}},
]


class Doorbell:
    """For one waiter. ``close`` it at the end."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._rang = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self.open = False
        """Whether the server tells changes at this moment; False means that only the waiter's own polling is left."""

    async def wait(self, seconds: float) -> bool:
        """True as soon as it rings (or rang since the last call), False after ``seconds``. Never raises."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rang.wait()
        rang = self._rang.is_set()
        self._rang.clear()
        return rang

    async def close(self) -> None:
        """Stop listening."""
        if self._listening is not None:
            while not self._listening.done():  # the driver may lose a cancellation, see ``client``
                self._listening.cancel()
                await asyncio.wait({self._listening}, timeout=0.2)

    async def _listen(self) -> None:
        while True:
            pause = _RETRY
            try:
                async with await self._db.watch(_STAGES, max_await_time_ms=2000) as stream:
                    self.open = True
                    self._rang.set()  # something may have happened before the stream was open
                    while stream.alive:
                        if await stream.try_next() is not None:
                            self._rang.set()
                        if cancellations():
                            raise asyncio.CancelledError
            except OperationFailure as error:
                if error.code in _NO_STREAMS:
                    return
                if error.code in _NOT_ALLOWED:
                    pause = _REFUSED_RETRY
            except PyMongoError:
                pass
            finally:
                self.open = False
            await asyncio.sleep(pause)
