"""The narrow HTTP edge of the upstreams: one aiohttp session per process, no cookie jar, bounded connections.

Adapters own their cookies (several accounts share this session), and pass every header themselves. Every connection
passes the guard, whatever address an account's credentials hold.
"""

from __future__ import annotations

from typing import Any

import aiohttp

from poe_gateway.outbound.guard import Guard
from poe_gateway.outbound.resolver import guarded_connector


def new_session(*, limit: int = 0, connect_timeout: float = 15.0, guard: Guard | None = None) -> aiohttp.ClientSession:
    """A session without cookie jar, without redirects by default and with no total time-out.

    ``limit`` bounds open connections (0 = unbounded: the pool's own limits bound them). Per-call time-outs are
    the adapter's business. ``guard`` None: it connects to anything (tests, rehearsals).
    """
    options: dict[str, Any] = {"limit": limit, "ttl_dns_cache": 60, "keepalive_timeout": 30}
    connector = aiohttp.TCPConnector(**options) if guard is None else guarded_connector(guard, **options)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout),
        auto_decompress=True,
        trust_env=False,
        skip_auto_headers=("User-Agent",),
    )
