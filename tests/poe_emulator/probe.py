"""The smallest client that the emulator accepts, for the emulator's own tests. Not a product client."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import secrets
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from .accounts import Account
from .protocol import SUBSCRIPTIONS, TAG_SALT, Generation, hash_of
from .server import PoeEmulator

ORIGIN = "https://poe.com"


def nonce() -> str:
    return secrets.token_hex(8)


class Probe:
    """Speaks for one account. Every header and variable can be overridden, to see it refused."""

    def __init__(self, emu: PoeEmulator, account: Account, generation: Generation = "current") -> None:
        self.emu, self.account, self.generation = emu, account, generation
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        self.cookies = dict(account.cookies)
        self.formkey = emu.site.formkey_of(account)
        self.channel: dict[str, Any] = {}

    async def __aenter__(self) -> Probe:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    def headers(self, **changes: str | None) -> dict[str, str]:
        """Browser headers; a change to None leaves the header out. Underscores stand for hyphens."""
        headers: dict[str, str | None] = {
            "User-Agent": self.account.user_agent,
            "Origin": ORIGIN,
            "Referer": f"{ORIGIN}/",
            "Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
        }
        headers.update({name.replace("_", "-"): value for name, value in changes.items()})
        return {name: value for name, value in headers.items() if value is not None}

    async def get(self, path: str, **changes: str | None) -> tuple[aiohttp.ClientResponse, str]:
        async with self.http.get(
            self.emu.base_url + path, headers=self.headers(**changes), allow_redirects=False
        ) as response:
            return response, await response.text()

    async def fetch_channel(self) -> dict[str, Any]:
        """tchannelData from the page data, at whatever depth it is."""
        _, text = await self.get("/")
        found = re.search(r'"tchannelData": (\{[^}]*\})', text)
        assert found, text[:300]
        self.channel = json.loads(found[1])
        return self.channel

    async def gql(
        self,
        name: str,
        variables: dict[str, Any],
        *,
        digest: str | None = None,
        document: dict[str, Any] | None = None,
        changes: dict[str, str | None] | None = None,
    ) -> tuple[int, Any]:
        """Status and decoded answer (or text) of one operation."""
        shown = name[:1].lower() + name[1:] if self.generation == "current" else name
        digest = digest or hash_of(name, self.generation)
        document = document or {"queryName": shown, "variables": variables, "extensions": {"hash": digest}}
        body = json.dumps(document, separators=(",", ":")).encode()
        signed: dict[str, str | None] = {
            "Content-Type": "application/json",
            "Poe-Formkey": self.formkey,
            "Poe-Tchannel": self.channel.get("channel"),
            "poe-tag-id": hashlib.md5(body + (self.formkey + TAG_SALT).encode()).hexdigest(),
        }
        if self.generation == "current":
            signed.update(
                {
                    "poe-queryname": shown,
                    "poegraphql": "1",
                    "Poe-Revision": self.emu.options.revision,
                }
            )
        changed = {name.replace("_", "-"): value for name, value in (changes or {}).items()}
        headers = self.headers(**{**signed, **changed})
        async with self.http.post(f"{self.emu.base_url}/api/gql_POST", data=body, headers=headers) as response:
            text = await response.text()
            with contextlib.suppress(ValueError):
                return response.status, json.loads(text)
            return response.status, text

    async def subscribe(self, entries: dict[str, str] | None = None) -> tuple[int, Any]:
        wanted = SUBSCRIPTIONS[self.generation] if entries is None else entries
        listed = [{"subscriptionName": n, "query": None, "queryHash": h} for n, h in wanted.items()]
        return await self.gql("SubscriptionsMutation", {"subscriptions": listed})

    def send_variables(self, query: str, chat_id: int | None = None, **changes: Any) -> dict[str, Any]:
        metadata: dict[str, Any] = {"useVoiceRecord": False}
        if self.generation == "current" and chat_id is None:
            metadata["newChatContext"] = "home_page_input"
        variables: dict[str, Any] = {
            "chatId": chat_id,
            "bot": "gpt4_o_mini",
            "query": query,
            "shouldFetchChat": chat_id is None,
            "source": {"sourceType": "chat_input", "chatInputMetadata": metadata},
            "clientNonce": nonce(),
            "sdid": "" if self.generation == "legacy" else str(uuid.uuid4()),
            "attachments": [],
            "existingMessageAttachmentsIds": [],
        }
        if self.generation == "legacy":
            variables["messagePointsDisplayPrice"] = None
        else:
            variables.update(chatNonce=nonce(), referencedMessageId=None, parameters=None, fileHashJwts=[])
        return {**variables, **changes}

    async def send(self, query: str, chat_id: int | None = None, **changes: Any) -> dict[str, Any]:
        """messageEdgeCreate of an accepted call."""
        status, answer = await self.gql("SendMessageMutation", self.send_variables(query, chat_id, **changes))
        assert status == 200 and answer["data"], (status, answer, self.emu.stats.reasons())
        edge: dict[str, Any] = answer["data"]["messageEdgeCreate"]
        return edge

    def socket_url(self, *, min_seq: int | None = None, **changes: str) -> str:
        known = {**self.channel, **changes}
        seq = known["minSeq"] if min_seq is None else min_seq
        query = f"min_seq={seq}&channel={known['channel']}&hash={known['channelHash']}"
        return f"{self.emu.ws_base_url}/up/{known['boxName']}/updates?{query}"

    @contextlib.asynccontextmanager
    async def socket(
        self, *, min_seq: int | None = None, origin: str = ORIGIN, **changes: str
    ) -> AsyncIterator[Listener]:
        url = self.socket_url(min_seq=min_seq, **changes)
        async with self.http.ws_connect(url, headers={"Origin": origin}) as ws:
            yield Listener(ws)

    @contextlib.asynccontextmanager
    async def online(self) -> AsyncIterator[Listener]:
        """Channel, subscriptions, socket: ready to send."""
        await self.fetch_channel()
        status, answer = await self.subscribe()
        assert status == 200 and answer["data"], (status, answer, self.emu.stats.reasons())
        async with self.socket() as listener:
            yield listener


class Listener:
    """Reads pushed events from one socket."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.min_seq = 0
        self.frames = 0
        self._ready: list[dict[str, Any]] = []

    async def event(self, timeout: float = 2.0) -> dict[str, Any]:
        """The next decoded message, or the whole frame when it is an error; {} when the socket ended."""
        while not self._ready:
            message = await self.ws.receive(timeout)
            if message.type is not aiohttp.WSMsgType.TEXT:
                return {}
            frame = json.loads(message.data)
            if "messages" not in frame:
                return dict(frame)
            self.frames += 1
            self.min_seq = frame["min_seq"]
            self._ready = [json.loads(text) for text in frame["messages"]]
        return self._ready.pop(0)

    async def events(self, seconds: float) -> list[dict[str, Any]]:
        """Whatever comes within that time."""
        seen: list[dict[str, Any]] = []
        with contextlib.suppress(asyncio.TimeoutError):
            async with asyncio.timeout(seconds):
                while event := await self.event():
                    seen.append(event)
        return seen

    async def answer(self, chat_id: int) -> list[dict[str, Any]]:
        """The bot's updates of one chat up to a final state."""
        updates: list[dict[str, Any]] = []
        while True:
            event = await self.event()
            assert event, "socket ended"
            payload = event.get("payload", {})
            if payload.get("unique_id") == f"messageCancelled:{chat_id}":
                return [*updates, payload["data"]["messageCancelled"]]
            if payload.get("unique_id") != f"messageAdded:{chat_id}":
                continue
            message = payload["data"]["messageAdded"]
            if message["author"] in ("human", "chat_break", "pacarana"):
                continue
            updates.append(message)
            if message["state"] != "incomplete":
                return updates
