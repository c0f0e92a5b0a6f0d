"""A worker killed under load: limits hold, and its slots are usable again within one grant lifetime.

What holds is that living processes together never make more calls than allowed. A process that is gone makes none, and
its slots are free as soon as a neighbour sees that (docs/decisions/0012); but the site does not stop an answer
because nobody listens any more. So between the kill and the end of those answers it works on more of them than
there are slots, and only the attended ones are held against the limits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import openai

from tests.e2e.conftest import Start
from tests.e2e.test_poe_pool import StartEmulator, upsert_all

LIFETIME = 4.0
PER_ACCOUNT, WHOLE = 2, 6
QUERY = "[[chunks:8]] [[delay:0.05]] number {}"


def sockets(pid: int) -> int:
    """Open sockets of a process: the busier of two workers has more."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(entry).startswith("socket:")
    return found


def test_a_killed_workers_slots_come_back_within_a_grant_lifetime(gateway: Start, emulator: StartEmulator) -> None:
    site = emulator("--accounts", "4")
    server = gateway(
        workers=2,
        POE_BASE_URL=site.base_url,
        POE_WS_BASE_URL=site.ws_base_url,
        MAX_INFLIGHT_PER_ACCOUNT=str(PER_ACCOUNT),
        GLOBAL_INFLIGHT_LIMIT=str(WHOLE),
        GRANT_LIFETIME_SECONDS=str(LIFETIME),
        ACQUIRE_TIMEOUT_SECONDS="30",
    )
    upsert_all(server, site)
    answers: list[str] = []
    broken: list[str] = []
    callers: list[asyncio.Task[None]] = []
    stop = asyncio.Event()

    async def caller(number: int) -> None:
        # A connection for every request, so that both workers get their part.
        http = httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0), timeout=60)
        client = server.async_client(http_client=http)
        count = 0
        while not stop.is_set():
            count += 1
            text = QUERY.format(f"{number}.{count}")
            try:
                answer = await client.chat.completions.create(
                    model="gpt-4o-mini", messages=[{"role": "user", "content": text}]
                )
            except openai.APIConnectionError:
                broken.append(text)  # it was on the killed worker
                continue
            assert answer.choices[0].message.content == f"echo: {text}"
            answers.append(text)
        await client.close()

    async def told() -> dict[str, Any]:
        stats: dict[str, Any] = await asyncio.to_thread(site.control, "GET", "/stats")
        return stats

    async def more_answers(count: int) -> None:
        wanted = len(answers) + count
        while len(answers) < wanted and not any(each.done() for each in callers):
            await asyncio.sleep(0.05)

    async def scenario() -> dict[str, Any]:
        callers.extend(asyncio.create_task(caller(number)) for number in range(16))
        async with asyncio.timeout(60):
            while (before := await told())["max_attended"] < WHOLE:
                await asyncio.sleep(0.1)
        await more_answers(3 * WHOLE)
        before = await told()
        assert before["max_concurrent"] == before["max_attended"] == WHOLE, "the load uses every slot"
        victim = max(server.worker_pids(), key=sockets)
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        await asyncio.sleep(LIFETIME - (time.monotonic() - killed))
        during = await told()
        await asyncio.to_thread(site.control, "POST", "/reset")
        await more_answers(4 * WHOLE)
        after = await told()
        stop.set()
        await asyncio.gather(*callers)
        return {"before": before, "during": during, "after": after}

    seen = asyncio.run(scenario())
    most = {"during": seen["during"]["max_attended"], "after": seen["after"]["max_concurrent"]}
    assert most == {"during": WHOLE, "after": WHOLE}, "never above the limit, and all of it in use again"
    for moment, figure in [("before", "max_concurrent"), ("during", "max_attended"), ("after", "max_concurrent")]:
        busiest = [account["stats"][figure] for account in seen[moment]["accounts"].values()]
        assert max(busiest) <= PER_ACCOUNT, moment
    assert len(answers) > 50
    assert broken, "the kill hit something"
    assert not any(account["status"] == "invalid" for account in server.accounts())
