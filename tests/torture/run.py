"""The torture of whole gateways: processes are killed, stopped and continued at random while callers keep them busy.

Several gateways (one process each) share one MongoDB and one pool; the provider is ``site``. What is proven is read
there: how many requests really ran at once on each account and in all. Also measured: the longest time for which
callers of living gateways got nothing at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tests.support.gateway import ADMIN_KEY, ROOT, SERVICE_KEY, GatewayServer


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is done. Times in seconds."""

    seconds: float = 300.0
    processes: int = 4
    accounts: int = 20
    each: int = 2
    whole: int = 25
    callers: int = 40
    lifetime: float = 4.0
    longest: float = 8.0
    """Of one answer: longer than the lifetime of a grant."""
    every: float = 3.0
    """Between two blows, on average."""
    seed: int = 1


class Told(msgspec.Struct, kw_only=True):
    """What came of it."""

    plan: Plan
    site: dict[str, Any]
    answered: int = 0
    refused: dict[str, int] = {}
    broken: int = 0
    kills: int = 0
    stops: int = 0
    longest_silence: float = 0.0
    """Between two answers to anybody, while a gateway was alive."""
    all_back_after: float | None = None
    """Seconds after the last blow until every slot was in use again."""


class Torture:
    """One run in ``home`` on a MongoDB."""

    def __init__(self, plan: Plan, home: Path, mongo_uri: str, db: str) -> None:
        self.plan = plan
        self._rng = random.Random(plan.seed)
        shared = {
            "MAX_INFLIGHT_PER_ACCOUNT": str(plan.each),
            "GLOBAL_INFLIGHT_LIMIT": str(plan.whole),
            "GRANT_LIFETIME_SECONDS": str(plan.lifetime),
            "ACQUIRE_TIMEOUT_SECONDS": "20",
            "REQUEST_TIMEOUT_SECONDS": "60",
            "GATEWAY_DEMO_POOL": "false",
            "LOG_LEVEL": "warning",
        }
        self._gateways = [GatewayServer(home, mongo_uri, db, **shared) for _ in range(plan.processes)]
        for gateway in self._gateways[1:]:
            gateway.environment["FERNET_KEY"] = self._gateways[0].environment["FERNET_KEY"]
        self._stopped: dict[int, float] = {}
        self._last_answer = 0.0
        self._done = asyncio.Event()
        self.told: Told | None = None

    async def run(self) -> Told:
        plan = self.plan
        judge = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.site", "--each", str(plan.each), "--all", str(plan.whole)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert judge.stdout is not None and judge.stdin is not None
        try:
            url = json.loads(judge.stdout.readline())["url"]
            for gateway in self._gateways:
                await asyncio.to_thread(gateway.start)
            await self._fill(url)
            return await self._torment(url)
        finally:
            for gateway in self._gateways:
                if gateway.process is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(gateway.process.pid, signal.SIGCONT)
                gateway.stop()
            judge.stdin.close()
            judge.wait(10)

    async def _fill(self, url: str) -> None:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=30) as admin:
            for number in range(self.plan.accounts):
                body = {
                    "provider": "openai_api",
                    "name": f"account-{number}",
                    "credentials": {"api_key": f"sk-torture-{number:04}", "base_url": f"{url}/v1"},
                }
                answer = await admin.post(f"{self._gateways[0].base_url}/admin/accounts/upsert", json=body)
                answer.raise_for_status()

    async def _torment(self, url: str) -> Told:
        plan = self.plan
        told = self.told = Told(plan=plan, site={})
        async with httpx.AsyncClient(trust_env=False, timeout=10) as judge:
            self._last_answer = time.monotonic()
            callers = [asyncio.create_task(self._call(number, told)) for number in range(plan.callers)]
            silence = asyncio.create_task(self._watch(told))
            await self._strike(told)
            told.all_back_after = await self._until_all_back(judge, url)
            self._done.set()
            await asyncio.gather(*callers)
            silence.cancel()
            told.site = (await judge.get(f"{url}/_figures")).json()
        return told

    async def _strike(self, told: Told) -> None:
        """Blows until the time is over; then everybody is made to live again."""
        plan, rng = self.plan, self._rng
        until = time.monotonic() + plan.seconds
        while time.monotonic() < until:
            await asyncio.sleep(rng.uniform(0.3, 2 * plan.every))
            await self._wake(due=time.monotonic())
            number = rng.randrange(plan.processes)
            process = self._gateways[number].process
            if number in self._stopped or process is None:
                continue
            if rng.random() < 0.35:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                told.kills += 1
                await asyncio.to_thread(self._gateways[number].start)
            elif len(self._stopped) < plan.processes - 1:
                os.kill(process.pid, signal.SIGSTOP)
                told.stops += 1
                self._stopped[number] = time.monotonic() + rng.uniform(0.3, 3.0) * plan.lifetime
        await self._wake(due=float("inf"))

    async def _wake(self, due: float) -> None:
        for number, moment in list(self._stopped.items()):
            if moment > due:
                continue
            del self._stopped[number]
            process = self._gateways[number].process
            assert process is not None
            if self._rng.random() < 0.2:  # some never wake
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                await asyncio.to_thread(self._gateways[number].start)
            else:
                os.kill(process.pid, signal.SIGCONT)

    async def _call(self, number: int, told: Told) -> None:
        rng = random.Random(self.plan.seed * 1000 + number)
        limits = httpx.Limits(max_keepalive_connections=0)
        headers = {"Authorization": f"Bearer {SERVICE_KEY}"}
        async with httpx.AsyncClient(headers=headers, limits=limits, trust_env=False, timeout=70) as client:
            while not self._done.is_set():
                gateway = rng.choice(self._gateways)
                seconds = rng.choice((0.1, 0.5, self.plan.longest * rng.random(), self.plan.longest))
                body = {
                    "model": "m-1",
                    "stream": rng.random() < 0.5,
                    "messages": [{"role": "user", "content": f"[[seconds:{seconds:.2f}]] {number} {rng.random()}"}],
                }
                try:
                    answer = await client.post(f"{gateway.base_url}/v1/chat/completions", json=body)
                except httpx.TransportError:
                    told.broken += 1
                    await asyncio.sleep(0.2)
                    continue
                if answer.status_code == 200 and b'"error"' not in answer.content:
                    told.answered += 1
                    self._last_answer = time.monotonic()
                else:  # a stream that waited long was begun before its refusal was known
                    found = re.search(rb'"code":"(\w+)"', answer.content)
                    code = found[1].decode() if found else "?"
                    told.refused[code] = told.refused.get(code, 0) + 1
                    await asyncio.sleep(0.1)

    async def _watch(self, told: Told) -> None:
        while True:
            await asyncio.sleep(0.05)
            told.longest_silence = max(told.longest_silence, time.monotonic() - self._last_answer)

    async def _until_all_back(self, judge: httpx.AsyncClient, url: str) -> float | None:
        """Callers enough to fill every slot keep asking: when are all slots in use?"""
        began = time.monotonic()
        wanted = min(self.plan.whole, self.plan.accounts * self.plan.each, self.plan.callers)
        while time.monotonic() - began < max(60.0, 12 * self.plan.lifetime):
            if (await judge.get(f"{url}/_figures")).json()["now"] >= wanted:
                return time.monotonic() - began
            await asyncio.sleep(0.02)
        return None
