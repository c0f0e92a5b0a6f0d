"""Several gateways over one database and one data folder, and a provider that keeps books."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.gateway import ADMIN_KEY, ROOT, GatewayServer

UNIT = 10**8


class House:
    """``async with House(...) as house``: ``processes`` gateways that are up, ``accounts`` accounts at the provider."""

    def __init__(
        self,
        home: Path,
        mongo_uri: str,
        db: str,
        *,
        processes: int = 4,
        accounts: int = 10,
        cost: str = "0.01",
        **settings: str,
    ) -> None:
        self.home = home
        self.accounts = accounts
        self.cost = Decimal(cost)
        shared = {
            "MAX_INFLIGHT_PER_ACCOUNT": "100",
            "GLOBAL_INFLIGHT_LIMIT": "1000",
            "GRANT_LIFETIME_SECONDS": "4",
            "GATEWAY_DEMO_POOL": "false",
            "LOG_LEVEL": "warning",
            **settings,
        }
        self.gateways = [GatewayServer(home, mongo_uri, db, **shared) for _ in range(processes)]
        for gateway in self.gateways[1:]:
            gateway.environment["FERNET_KEY"] = self.gateways[0].environment["FERNET_KEY"]
        self.url = ""
        self._site: subprocess.Popen[bytes] | None = None
        self._admin = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {ADMIN_KEY}"}, trust_env=False, timeout=httpx.Timeout(60)
        )

    async def __aenter__(self) -> Self:
        self._site = subprocess.Popen(
            [sys.executable, "-m", "tests.money.site", "--cost", str(self.cost)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._site.stdout is not None
        try:
            self.url = json.loads(self._site.stdout.readline())["url"]
            first, *others = self.gateways
            await asyncio.to_thread(first.start)
            await asyncio.gather(*(asyncio.to_thread(gateway.start) for gateway in others))
            for number in range(self.accounts):
                await self.admin(
                    "POST",
                    "/accounts/upsert",
                    provider="openai_api",
                    name=f"account-{number}",
                    credentials={"api_key": f"sk-money-{number:04}", "base_url": f"{self.url}/v1", "books": "poe"},
                )
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(asyncio.to_thread(gateway.stop) for gateway in self.gateways))
        await self._admin.aclose()
        if self._site is not None:
            assert self._site.stdin is not None
            self._site.stdin.close()
            self._site.wait(10)

    async def admin(self, method: str, path: str, **body: Any) -> Any:
        """An answer of the admin API of the first gateway that lives."""
        for gateway in self.gateways:
            if gateway.process is not None and gateway.process.poll() is None:
                url = f"{gateway.base_url}/admin{path}"
                with contextlib.suppress(httpx.TransportError):
                    answer = await self._admin.request(method, url, json=body or None)
                    assert answer.status_code < 300, answer.text
                    return answer.json()
        raise AssertionError("no gateway lives")

    async def key(self, name: str, **terms: Any) -> tuple[str, str]:
        """A new service key: its id and its text."""
        made = await self.admin("POST", "/keys", name=name, **terms)
        return made["id"], made["key"]

    def kill(self, number: int) -> None:
        """SIGKILL, at once."""
        process = self.gateways[number].process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    async def revive(self, number: int) -> None:
        await asyncio.to_thread(self.gateways[number].start)

    async def figures(self) -> dict[str, Any]:
        """What the provider counted."""
        async with httpx.AsyncClient(trust_env=False) as client:
            told: dict[str, Any] = (await client.get(f"{self.url}/_figures")).json()
        return told

    async def until_asked(self, tab: str, times: int) -> None:
        """Wait until the provider was asked so often."""
        async with asyncio.timeout(60):
            while (await self.figures())["calls"].get(tab, 0) < times:
                await asyncio.sleep(0.02)
