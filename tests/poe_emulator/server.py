"""The emulator as a server on loopback, started by a test or by ``python -m tests.poe_emulator``."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from .accounts import Account
from .control import Control
from .handlers import Handlers
from .site import Site, SiteOptions, SiteStats


class PoeEmulator:
    """A running emulated site: ``async with PoeEmulator(accounts=2) as emu: ...``.

    `options` are those of `SiteOptions`. With `tls` the same site also listens with TLS, at `tls_port`.
    """

    def __init__(
        self,
        *,
        accounts: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        **options: Any,
    ) -> None:
        self.site = Site(options=SiteOptions(**options))
        self.tls_port = 0
        self._host, self._port, self._tls = host, port, tls
        self._runner: web.AppRunner | None = None
        for _ in range(accounts):
            self.site.add_account()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application(client_max_size=512 * 1024 * 1024)
        app.add_routes(Control(self.site).routes())
        app.add_routes(Handlers(self.site).routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        plain = web.TCPSite(self._runner, self._host, self._port)
        await plain.start()
        self._port = self._bound_port(0)
        self.site.base_url = f"http://{self._host}:{self._port}"
        if self._tls is not None:
            await web.TCPSite(self._runner, self._host, 0, ssl_context=self._tls).start()
            self.tls_port = self._bound_port(1)

    def _bound_port(self, at: int) -> int:
        assert self._runner is not None
        address: tuple[str, int] = self._runner.addresses[at]
        return address[1]

    async def stop(self) -> None:
        """End sockets and answers, then the server."""
        for account in self.site.accounts.values():
            account.drop_sockets()
        tasks = list(self.site.tasks)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def port(self) -> int:
        return self._port

    @property
    def base_url(self) -> str:
        """``http://127.0.0.1:<port>``, no slash at the end."""
        return self.site.base_url

    @property
    def ws_base_url(self) -> str:
        """``ws://127.0.0.1:<port>``; takes the place of ``wss://tch<N>.tch.<baseHost>``."""
        return self.site.base_url.replace("http", "ws", 1)

    @property
    def options(self) -> SiteOptions:
        return self.site.options

    @property
    def stats(self) -> SiteStats:
        return self.site.stats

    @property
    def accounts(self) -> list[Account]:
        return list(self.site.accounts.values())

    def add_account(self, email: str = "", **fields: Any) -> Account:
        return self.site.add_account(email, **fields)

    def account(self, email_or_pb: str) -> Account:
        return self.site.account(email_or_pb)

    def rotate_formkey(self, account: Account | None = None) -> None:
        self.site.rotate_formkey(account)

    def rotate_revision(self) -> None:
        self.site.rotate_revision()

    async def idle(self, timeout: float = 5.0) -> None:
        """Wait until no answer is running; TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while self.site.running:
                await asyncio.sleep(0.005)
