"""Push channels: numbered messages kept for replay, and the websockets that read them.

A channel numbers every message (``seq``). A client says with ``min_seq`` up to which number it has seen;
it is then sent what is younger, or ``{"error": "missed_messages"}`` when that is no longer kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from .connections import Connection

REFETCH = json.dumps({"message_type": "refetchChannel"})
MISSED = json.dumps({"error": "missed_messages"})


@dataclass(frozen=True, slots=True)
class Push:
    """One message of a channel. Pushes of one `frame` travel together."""

    seq: int
    frame: int
    text: str


def event(subscription: str, subject: object, data: dict[str, Any]) -> str:
    """The JSON text of one pushed message about `subject` (most often a chat id)."""
    return json.dumps(
        {
            "message_type": "subscriptionUpdate",
            "payload": {
                "unique_id": f"{subscription}:{subject}",
                "subscription_name": subscription,
                "data": {subscription: data},
            },
        }
    )


@dataclass(eq=False, slots=True)
class Channel:
    """A push channel issued to one account. `subscribed` holds the names sent by SubscriptionsMutation."""

    owner: str
    keep: int
    base_host: str
    name: str = field(default_factory=lambda: f"poe-chan{secrets.randbelow(900) + 100}-{secrets.token_hex(8)}")
    hash: str = field(default_factory=lambda: str(secrets.randbits(60)))
    box: str = field(default_factory=lambda: f"chan{secrets.randbelow(900) + 100}-8888")
    first_seq: int = field(default_factory=lambda: 1_000_000 + secrets.randbelow(1_000_000))
    subscribed: frozenset[str] = frozenset()
    expired: bool = False
    sockets: set[Socket] = field(default_factory=set)
    last_seq: int = 0
    kept: deque[Push] = field(default_factory=deque)
    frames: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.last_seq = self.first_seq

    def settings(self) -> dict[str, Any]:
        """The object named tchannelData; minSeq is a string, as the site has it."""
        return {
            "minSeq": str(self.first_seq),
            "channel": self.name,
            "channelHash": self.hash,
            "boxName": self.box,
            "baseHost": self.base_host,
            "targetUrl": f"https://{self.box}.{self.base_host}",
            "enableWebsocket": True,
        }

    def append(self, texts: Iterable[str]) -> None:
        """Number the messages, keep them for replay and wake the sockets; one call is one frame."""
        frame = next(self.frames)
        for text in texts:
            self.last_seq += 1
            self.kept.append(Push(self.last_seq, frame, text))
        while len(self.kept) > self.keep:
            self.kept.popleft()
        for socket in self.sockets:
            socket.wake.set()

    def since(self, seq: int) -> list[Push] | None:
        """What came after `seq`, or None when some of it is no longer kept (or never was)."""
        if seq > self.last_seq or seq < self.last_seq - len(self.kept):
            return None
        newer = self.last_seq - seq
        return list(itertools.islice(self.kept, len(self.kept) - newer, None))

    def expire(self) -> None:
        self.append([REFETCH])
        self.expired = True

    def forget(self) -> None:
        """Drop everything kept, so that a reconnect with an old min_seq has missed messages."""
        self.kept.clear()


@dataclass(eq=False, slots=True)
class Socket:
    """One open websocket and how far it has been served."""

    channel: Channel
    ws: web.WebSocketResponse
    request: web.Request
    seen: int
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    silent: bool = False
    connection: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = Connection(self.request)

    async def pump(self) -> None:
        """Send what the channel has, frame by frame, until the socket ends."""
        while not self.ws.closed:
            self.wake.clear()
            pending = [] if self.silent else self.channel.since(self.seen)
            if pending is None:
                await self.ws.send_str(MISSED)
                return
            for _, group in itertools.groupby(pending, key=lambda push: push.frame):
                pushes = list(group)
                if self.silent:
                    break
                self.seen = pushes[-1].seq
                await self.ws.send_str(json.dumps({"messages": [push.text for push in pushes], "min_seq": self.seen}))
            await self.wake.wait()

    def cut(self) -> None:
        """End the connection without a closing handshake, as a dropped link does."""
        if self.request.transport is not None:
            self.request.transport.abort()

    async def listen(self) -> None:
        """Read until the client leaves; answer the text heartbeat."""
        async for message in self.ws:
            if message.type is not WSMsgType.TEXT or self.silent:
                continue
            with contextlib.suppress(ValueError, AttributeError):
                if json.loads(message.data).get("type") == "ping":
                    await self.ws.send_str('{"type":"pong"}')


async def serve(channel: Channel, request: web.Request, min_seq: int) -> web.WebSocketResponse:
    """Run one accepted websocket to its end."""
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    socket = Socket(channel, ws, request, min_seq)
    channel.sockets.add(socket)
    pump = asyncio.create_task(socket.pump())
    try:
        await socket.listen()
    finally:
        channel.sockets.discard(socket)
        pump.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await pump
    return ws
