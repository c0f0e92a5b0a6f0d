"""The push half of one account's connection: one websocket, shared by all its messages in flight.

Opened lazily, in the order channel -> subscriptions -> socket. A drop is resumed on the same channel from the
last number seen; when the channel is over (or will not be resumed) a new one is asked for, and every message
in flight is told to re-read its chat, since events may be lost between the two.
"""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp

from poe_gateway.pool.outcome import Challenged, Transient, Unauthorized
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.poe_web import outcomes, wire
from poe_gateway.upstreams.poe_web.background import Background
from poe_gateway.upstreams.poe_web.edge import HandshakeRefused
from poe_gateway.upstreams.poe_web.flight import SingleFlight
from poe_gateway.upstreams.poe_web.frames import decode_frame
from poe_gateway.upstreams.poe_web.router import Resync, Router
from poe_gateway.upstreams.poe_web.site import Site
from poe_gateway.upstreams.poe_web.wire import Channel

_CLOSE_TIMEOUT = 2.0
_HOST_NUMBERS = 1_000_000


class PushSocket:
    """The websocket of one account; feeds its router."""

    def __init__(self, site: Site, router: Router, background: Background) -> None:
        self._site = site
        self._router = router
        self._background = background
        self._options = site.shared.options
        self._clock = site.shared.clock
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._channel: Channel | None = None
        """The channel that ``_ws`` reads, or that was read last."""
        self._subscribed: Channel | None = None
        self._seen = 0
        self._used_at = 0.0
        self._over = False
        """The channel is over; the next connect asks for a new one."""
        self._flight: SingleFlight[None] = SingleFlight()
        self._gap = False
        """Events may be lost between the channel read last and the next one."""
        self._recovering = False
        self._opened_at = 0.0
        self._pause = 0.0
        """Wait before the next reconnect; grows while sockets do not live long."""
        self._beating: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        return self._ws is not None and not self._ws.closed

    async def ensure(self) -> None:
        """Have an open socket on a subscribed channel. Raises UpstreamFailure."""
        self._site.check_open()
        self._used_at = self._clock.monotonic()
        if not self.is_open or self._over or self._channel != self._site.channel:
            await self._flight.join(self._connect)

    def suspect(self) -> None:
        """The chat moved on while the socket stayed silent: drop it, and resume if it is still needed."""
        self._drop()

    def shut(self) -> None:
        """Close for good (the site's gate is closed, so nothing reopens it)."""
        self._drop()

    # ------------------------------------------------------------ opening

    async def _connect(self) -> None:
        site = self._site
        await site.ensure_channel()
        if self._over:
            await self._renew()
        for last in (False, True):
            if self._subscribed is None or self._subscribed != site.channel:
                await site.call("subscribe", wire.subscription_variables(site.shared.protocol))
                self._subscribed = site.channel
            channel = site.channel
            if channel is None:
                raise UpstreamFailure(Transient("the push channel went away"))
            try:
                ws = await self._open(channel)
            except HandshakeRefused as refused:
                if outcomes.is_challenge(refused.answer, site.shared.protocol.signs):
                    raise site.challenge(Challenged("bot challenge at the push channel")) from None
                if last or refused.answer.status >= 500:
                    detail = f"the push channel answers {refused.answer.status}"
                    raise UpstreamFailure(Transient(detail)) from None
                await self._renew()
                continue
            self._install(ws, channel)
            return

    async def _renew(self) -> None:
        """Ask for another channel. Should it look like the old one, it is subscribed and read anew all the same."""
        await self._site.renew_channel()
        self._over, self._gap = False, self._channel is not None
        self._channel = self._subscribed = None

    async def _open(self, channel: Channel) -> aiohttp.ClientWebSocketResponse:
        shared = self._site.shared
        if channel != self._channel:
            self._seen = channel.min_seq
        url = wire.push_url(
            shared.protocol,
            channel,
            number=shared.ids.rng.randint(1, _HOST_NUMBERS),
            min_seq=self._seen,
            base=shared.ws_base_url,
        )
        headers = wire.render_headers(shared.protocol.headers.socket, {"origin": shared.protocol.origin})
        headers["User-Agent"] = self._site.identity.user_agent
        async with self._site.turn():
            return await shared.edge.open_socket(url, headers=headers)

    def _install(self, ws: aiohttp.ClientWebSocketResponse, channel: Channel) -> None:
        if self._site.challenged:
            self._background.spawn(_close(ws))
            self._site.check_open()
        gap = self._gap or (self._channel is not None and self._channel != channel)
        old, self._ws, self._channel, self._gap = self._ws, ws, channel, False
        self._opened_at = self._clock.monotonic()
        if old is not None:
            self._background.spawn(_close(old))
        self._background.spawn(self._read(ws))
        if self._beating is not None:
            self._beating.cancel()
        self._beating = self._background.spawn(self._beat(ws))
        if gap:
            self._router.broadcast(Resync())

    # ------------------------------------------------------------ reading

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """Deliver frames until the socket ends; then see to it that waiting messages get another one."""
        try:
            async for message in ws:
                if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    break
                frame = decode_frame(message.data)
                if frame.heartbeat == "ping":
                    await ws.send_str('{"type":"pong"}')
                now = self._clock.monotonic()
                for event in frame.events:
                    self._router.deliver(event, now)
                if self._ws is ws and frame.min_seq is not None:
                    self._seen = max(self._seen, frame.min_seq)
                if frame.renew and self._ws is ws:
                    self._over = True
                    break
        except (aiohttp.ClientError, OSError, RuntimeError):
            pass
        finally:
            if self._ws is ws:
                self._drop()

    def _drop(self) -> None:
        """Let go of the socket; waiting messages get a new one unless the gate is closed."""
        ws, self._ws = self._ws, None
        if self._beating is not None and self._beating is not asyncio.current_task():
            self._beating.cancel()
        if ws is not None:
            self._background.spawn(_close(ws))
        if self._router.waiting and not self._recovering:
            self._recovering = True
            self._background.spawn(self._recover())

    async def _recover(self) -> None:
        """Reconnect while messages wait, ever more slowly. They re-read their chats meanwhile when it is silent."""
        options, tries = self._options, 0
        if self._clock.monotonic() - self._opened_at > options.reconnect_delay_max:
            self._pause = 0.0
        try:
            while self._router.waiting:
                await asyncio.sleep(self._pause)
                self._pause = min(max(self._pause * 2, options.reconnect_delay), options.reconnect_delay_max)
                try:
                    await self.ensure()
                    if self.is_open:
                        return
                    continue
                except UpstreamFailure as failure:
                    if isinstance(failure.outcome, Challenged | Unauthorized):
                        self._router.broadcast(UpstreamFailure(failure.outcome, Fate.ACCEPTED))
                        return
                    self._site.check_open()
                tries += 1
                self._over = self._over or tries >= options.resume_attempts
        finally:
            self._recovering = False

    async def _beat(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """Text heartbeats; closes the socket when it has not been needed for long."""
        options = self._options
        with contextlib.suppress(aiohttp.ClientError, OSError, RuntimeError):
            while self._ws is ws and not ws.closed:
                await asyncio.sleep(min(options.socket_text_ping, options.socket_idle))
                now = self._clock.monotonic()
                if self._router.waiting:
                    self._used_at = now
                elif now - self._used_at >= options.socket_idle:
                    if self._ws is ws:
                        self._over = True
                        self._drop()
                    return
                if not ws.closed:
                    await ws.send_str('{"type":"ping"}')


async def _close(ws: aiohttp.ClientWebSocketResponse) -> None:
    with contextlib.suppress(aiohttp.ClientError, OSError, RuntimeError, TimeoutError):
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await ws.close()
