"""The composition root: the only package that names every concrete part, and the order in which they start and stop.

What is built from what, in the order of the start (``gateway`` walks it; every module here is one step):

    database    mongod, client, clock, migrations, vault and pepper
    outside     the guard of the way out, the upstreams, the key chain
    pool        prices, broker, grants, sessions, and the witness of what happens to accounts
    books       who calls, what he may use, what it costs, the ledger
    accounts    the operator's desk, care of the accounts, their books
    walk        planner, dispatcher, router, kept responses; and the routing table, which they are given as it changes
    following   what other processes changed; then the first table, ``demo_pool``, and the scheduler (``duties``)
    door        the raw routes; ``rooms`` is what all other routes ask for

``lifetime`` holds the loops that run meanwhile, and what is due at the end: callers' requests end first, then the
loops, then slots and news are handed over, then everything is closed in the opposite order. A start that fails in the
middle ends in the same way, with as much as there is.
"""

from __future__ import annotations

from poe_gateway.bootstrap.door import front
from poe_gateway.bootstrap.gateway import Gateway

__all__ = ["Gateway", "front"]
