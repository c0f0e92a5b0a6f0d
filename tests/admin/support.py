"""One gateway on memory rooms behind the real application, and a provider that takes Poe's credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from msgspec.structs import replace

from poe_gateway.api.admin import router
from poe_gateway.api.application import create_app
from poe_gateway.upstreams.base import CredentialField, Described, check_fields
from poe_gateway.upstreams.mock import MockUpstream
from tests.accounts.support import ADMIN_KEY, House

CANARY = "canary-5e1f-do-not-show"


class PoeLike(MockUpstream):
    """Takes the credentials of the Poe adapter."""

    name = "poe_web"
    credential_fields = tuple(
        CredentialField(name=name, required=name == "poe_p_b")
        for name in ["poe_p_b", "poe_cf_clearance", "p_lat", "poe_cf_bm", "user_agent", "poe_revision", "formkey"]
    )

    def describe(self, credentials: Any) -> Described:
        check_fields(self.credential_fields, credentials)
        return Described(offer="poe_web", metered=True, renews_daily=True)

    def _memory(self, account: Any) -> Any:
        return super()._memory(replace(account, credentials={"points": 1234}))


class Desk:
    """One gateway and a client with the admin key. ``url`` where it runs on a socket."""

    url = ""

    def __init__(self) -> None:
        self.poe = PoeLike()
        self.house = House(upstreams={"poe_web": self.poe})

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            yield

        self.app = create_app(lifespan, [router()])
        self.app.state.gateway = self.house
        self.client = self.client_with({"Authorization": f"Bearer {ADMIN_KEY}"})

    def client_with(self, headers: dict[str, str]) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers)

    async def call(self, method: str, path: str, status: int = 200, **kwargs: Any) -> Any:
        answer = await self.client.request(method, "/admin" + path, **kwargs)
        assert answer.status_code == status, answer.text
        assert CANARY not in answer.text
        return answer.json()
