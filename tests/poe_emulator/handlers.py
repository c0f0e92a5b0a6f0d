"""The HTTP face: each request is checked in the order in which the site would stumble over it."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from multidict import CIMultiDictProxy

from . import checks, faults, graphql, page, pushes, sending
from .accounts import Account, new_formkey
from .calls import Call, Unservable
from .checks import Refusal
from .connections import Connection
from .protocol import Generation, operation_with_hash
from .sending import Sent
from .site import Site


class Handlers:
    """Request handlers over one `Site`."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.home),
            web.get("/login", self.login),
            web.get("/api/settings", self.settings),
            web.post("/api/gql_POST", self.gql),
            web.post("/api/gql_upload_POST", self.gql_upload),
            web.post("/api/finish_upload_POST", self.finish_upload),
            web.post("/api/receive_POST", self.telemetry),
            web.get("/up/{box}/updates", self.updates),
            web.get("/{assets:.*assets/_next/static/.*}", self.asset),
        ]

    # -------------------------------------------------------------- the door

    async def _enter(self, request: web.Request, where: str) -> tuple[Account | None, web.StreamResponse | None]:
        """Count the request, then challenges and faults. Returns the session's account (dead or alive)."""
        site = self.site
        site.stats.requests += 1
        account = site.session(request.cookies.get("p-b"))
        if account is None:
            if site.options.challenge_everyone:
                return None, self._challenge(None, where, site.options.challenge_everyone, "everyone")
            return None, None
        account.stats.requests += 1
        if account.challenged_since is not None:
            account.stats.after_challenge.append(round(time.monotonic() - account.challenged_since, 4))
        self._count_cf_bm(account, request.cookies)
        kind = site.options.challenge_everyone or account.challenge_kind
        if kind:
            return account, self._challenge(account, where, kind, "under challenge")
        headers = request.headers
        guard = checks.browser(headers.get("User-Agent", ""), account.user_agent, request.cookies, account.cf_clearance)
        if guard is not None:
            return account, self._challenge(account, where, "challenge", guard.reason, lasting=False)
        if fault := account.take_fault(where):
            return account, await self._strike(account, where, fault.kind, request)
        return account, None

    def _challenge(
        self, account: Account | None, where: str, kind: str, reason: str, *, lasting: bool = True
    ) -> web.Response:
        """Serve a challenge; when `lasting`, the account gets nothing else until it is cleared."""
        self.site.stats.challenges_served += 1
        self.site.reject(account, where, f"challenge: {reason}", 403)
        if account is not None:
            if lasting:
                account.challenge_kind = kind
            if account.challenged_since is None:
                account.challenged_since = time.monotonic()
        return faults.challenge(kind)

    async def _strike(self, account: Account, where: str, kind: str, request: web.Request) -> web.StreamResponse | None:
        if kind.startswith("challenge"):
            return self._challenge(account, where, kind, "by script")
        return await faults.struck(kind, request)

    def _count_cf_bm(self, account: Account, cookies: Mapping[str, str]) -> None:
        sent = cookies.get("__cf_bm")
        if not account.issued_cf_bm:
            return
        if sent is None:
            account.stats.cf_bm_missing += 1
        elif sent == account.issued_cf_bm[-1]:
            account.stats.cf_bm_fresh += 1
        else:
            account.stats.cf_bm_stale += 1

    def _leave(self, account: Account | None, response: web.StreamResponse) -> web.StreamResponse:
        """Set the short-lived cookie; must come before the response is prepared."""
        if account is not None and self.site.options.cf_bm and not response.prepared:
            value = secrets.token_urlsafe(24)
            account.issued_cf_bm.append(value)
            response.set_cookie("__cf_bm", value, path="/", httponly=True, max_age=1800)
        return response

    def _refuse(self, account: Account | None, where: str, refusal: Refusal) -> web.StreamResponse:
        self.site.reject(account, where, refusal.reason, refusal.status)
        return self._leave(account, faults.refused(refusal.status, refusal.message))

    # -------------------------------------------------------------- pages

    async def home(self, request: web.Request) -> web.StreamResponse:
        account, early = await self._enter(request, "page")
        if early is not None:
            return early
        if account is None or not self._has_session(account, request):
            self.site.reject(account, "page", "p-b absent, unknown or dead", 307)
            response = web.Response(status=307, headers={"Location": "/login?redirect_url=%2F"})
            return self._welcome(request, response)
        account.stats.pages += 1
        channel = self.site.issue_channel(account)
        return self._leave(account, self._page(self.site.formkey_of(account), channel.settings()))

    async def login(self, request: web.Request) -> web.StreamResponse:
        _, early = await self._enter(request, "page")
        if early is not None:
            return early
        return self._welcome(request, self._page(new_formkey(), None))

    def _page(self, key: str, tchannel: dict[str, Any] | None) -> web.Response:
        response = web.Response(text=page.html(self.site, key, tchannel), content_type="text/html")
        if link := page.link_header(self.site):
            response.headers["Link"] = link
        return response

    def _welcome(self, request: web.Request, response: web.Response) -> web.Response:
        """A visitor without p-b is handed one; it belongs to no account."""
        if "p-b" not in request.cookies:
            value = secrets.token_urlsafe(16) + "=="
            self.site.anonymous_sessions.append(value)
            response.headers.add("Set-Cookie", f"p-b={value}; Path=/; HttpOnly; SameSite=Lax")
        return response

    def _has_session(self, account: Account, request: web.Request) -> bool:
        if account.require_p_lat and request.cookies.get("p-lat") != account.p_lat:
            return False
        return account.alive

    async def settings(self, request: web.Request) -> web.StreamResponse:
        account, early = await self._enter(request, "settings")
        if early is not None:
            return early
        if account is None or not self._has_session(account, request):
            return self._refuse(account, "settings", Refusal("p-b absent, unknown or dead", 401, "Unauthorized"))
        account.stats.settings_reads += 1
        channel = self.site.issue_channel(account)
        return self._leave(account, web.json_response({"tchannelData": channel.settings()}))

    async def asset(self, request: web.Request) -> web.StreamResponse:
        self.site.stats.requests += 1
        path = request.path
        if "_app" in path:
            text = page.app_bundle(self.site)
        elif "webpack" in path or "buildManifest" in path:
            text = page.manifest()
        else:
            return web.Response(status=404)
        return web.Response(text=text, content_type="application/javascript")

    async def telemetry(self, request: web.Request) -> web.StreamResponse:
        account, early = await self._enter(request, "telemetry")
        self.site.stats.telemetry += 1
        if account is not None:
            account.stats.telemetry += 1
        return early or web.json_response({"success": True})

    # -------------------------------------------------------------- GraphQL

    async def gql(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        kind = request.content_type
        wrong = None if kind == "application/json" else Refusal(f"Content-Type is {kind}")
        return await self._operate(request, raw, {}, wrong)

    async def gql_upload(self, request: web.Request) -> web.StreamResponse:
        """Legacy: the JSON document is the field queryInfo, files are file0, file1 ..."""
        if not request.content_type.startswith("multipart/"):
            return await self._operate(request, b"", {}, Refusal("not multipart"))
        form = await request.post()
        files = {name: part.filename for name, part in form.items() if isinstance(part, web.FileField)}
        raw = form.get("queryInfo")
        if not isinstance(raw, str):
            return await self._operate(request, b"", {}, Refusal("field queryInfo missing"))
        return await self._operate(request, raw.encode(), files)

    async def _operate(
        self, request: web.Request, raw: bytes, files: dict[str, str], wrong: Refusal | None = None
    ) -> web.StreamResponse:
        """One GraphQL document; `wrong` is what the transport already found amiss."""
        site, headers = self.site, request.headers
        parsed = checks.body(raw)
        name = parsed[0] if not isinstance(parsed, Refusal) else "gql"
        generation: Generation = "current" if "poegraphql" in headers else "legacy"
        operation = None
        if not isinstance(parsed, Refusal):
            operation = operation_with_hash(generation, parsed[2])
        where = operation.name if operation else name
        account, early = await self._enter(request, where)
        if early is not None:
            return self._leave(account, early)
        if account is None or (not account.alive and site.options.dead_gql == "401"):
            return self._refuse(account, where, Refusal("p-b absent, unknown or dead", 401, "Unauthorized"))
        account.stats.gql[where] = account.stats.gql.get(where, 0) + 1
        account.stats.uploads += len(files)
        refusal = wrong or self._refusal(account, headers, raw, parsed, generation)
        if refusal is not None:
            return self._refuse(account, where, refusal)
        assert not isinstance(parsed, Refusal)
        if operation is None:
            site.reject(account, where, f"unknown {generation} hash {parsed[2]}", 200)
            return self._leave(account, faults.server_error())
        if not operation.is_called(name):
            site.stats.odd_names[name] = site.stats.odd_names.get(name, 0) + 1
        if not account.alive and operation.name != "SettingsPageQuery":
            site.reject(account, where, "session is dead", 200)
            return self._leave(account, faults.server_error())
        channel = account.channels[headers["Poe-Tchannel"]]
        call = Call(site, account, channel, generation, parsed[1], files, Connection(request))
        try:
            if operation.name in sending.SENDING:
                return await self._answer(request, call, sending.SENDING[operation.name](call))
            return self._leave(account, self._data(graphql.OPERATIONS[operation.name](call)))
        except Unservable as why:
            site.reject(account, where, str(why), 200)
            return self._leave(account, faults.server_error())

    def _refusal(
        self,
        account: Account,
        headers: CIMultiDictProxy[str],
        raw: bytes,
        parsed: tuple[str, dict[str, Any], str] | Refusal,
        generation: Generation,
    ) -> Refusal | None:
        """Why this GraphQL request gets a 4xx."""
        site, key = self.site, self.site.formkey_of(account)
        if account.require_p_lat and f"p-lat={account.p_lat}" not in headers.get("Cookie", ""):
            return Refusal("p-lat missing or wrong", 401, "Unauthorized")
        refusal = checks.origin(headers, site.options.origin) or checks.formkey(headers, key)
        refusal = refusal or checks.tag(headers, raw, key)
        if refusal is None and isinstance(parsed, Refusal):
            refusal = parsed
        if refusal is not None or isinstance(parsed, Refusal):
            return refusal
        if generation not in site.generations():
            return Refusal(f"request of the {generation} generation (poegraphql header decides)")
        if generation == "current":
            revision = site.options.revision if site.options.revision_mode == "strict" else None
            refusal = checks.current_headers(headers, parsed[0], revision)
        if refusal is None and headers.get("Poe-Tchannel") not in account.channels:
            refusal = Refusal("Poe-Tchannel missing or not issued to this account")
        return refusal

    def _data(self, data: dict[str, Any]) -> web.Response:
        return web.json_response({"data": data, "extensions": {"is_final": True}})

    async def _answer(self, request: web.Request, call: Call, sent: Sent) -> web.StreamResponse:
        """Answer a send; its events start after the response has left, unless they are to be early."""
        script, answer, account = sent.behaviour, sent.answer, call.account
        if sent.data is None:
            struck = await self._strike(account, "SendMessageMutation", script.fault, request)
            return self._leave(account, struck or faults.server_error())
        if answer is not None and script.early:
            answer.go.set()
        try:
            if script.hold:
                await asyncio.sleep(script.hold)
            if script.fault_after:
                struck = await self._strike(account, "SendMessageMutation", script.fault_after, request)
                if struck is not None:
                    return self._leave(account, struck)
            response = self._leave(account, self._data(sent.data))
            await response.prepare(request)
            await response.write_eof()
        finally:
            if answer is not None:
                answer.go.set()
        return response

    # -------------------------------------------------------------- files and sockets

    async def finish_upload(self, request: web.Request) -> web.StreamResponse:
        """One file, field `file`; the answer holds a token of three parts under the configured key."""
        form = await request.post()
        account, early = await self._enter(request, "upload")
        if early is not None:
            return self._leave(account, early)
        if account is None or not self._has_session(account, request):
            return self._refuse(account, "upload", Refusal("p-b absent, unknown or dead", 401, "Unauthorized"))
        refusal = checks.origin(request.headers, self.site.options.origin)
        refusal = refusal or checks.formkey(request.headers, self.site.formkey_of(account))
        if refusal is not None:
            return self._refuse(account, "upload", refusal)
        part = form.get("file")
        if not isinstance(part, web.FileField):
            return self._refuse(account, "upload", Refusal("no file in field `file`"))
        size = len(part.file.read())
        claims = json.dumps({"name": part.filename, "size": size, "salt": secrets.token_hex(8)}).encode()
        pieces = (b'{"alg":"HS256"}', claims, secrets.token_bytes(24))
        token = ".".join(base64.urlsafe_b64encode(piece).decode().rstrip("=") for piece in pieces)
        account.upload_tokens[token] = part.filename
        account.stats.uploads += 1
        key = self.site.options.upload_token_key
        return self._leave(account, web.json_response(token if key == "bare" else {key: token}))

    async def updates(self, request: web.Request) -> web.StreamResponse:
        """The push websocket. It knows the account by the channel alone."""
        query, found = request.query, self.site.channel(request.query.get("channel", ""))
        if found is None:
            return self._refuse(None, "socket", Refusal("unknown channel", 403, "Forbidden"))
        account, channel = found
        self.site.stats.requests += 1
        account.stats.requests += 1
        account.stats.socket_cookies.extend(sorted(request.cookies))
        if account.challenged_since is not None:
            account.stats.after_challenge.append(round(time.monotonic() - account.challenged_since, 4))
        if fault := account.take_fault("socket"):
            struck = await self._strike(account, "socket", fault.kind, request)
            if struck is not None:
                return struck
        reason = ""
        if request.match_info["box"] != channel.box:
            reason = "box does not belong to the channel"
        elif query.get("hash") != channel.hash:
            reason = "channel hash is wrong"
        elif self.site.options.origin not in request.headers.getall("Origin", []):
            reason = f"Origin is {request.headers.get('Origin')!r}"
        elif not query.get("min_seq", "").isdigit():
            reason = "min_seq is no number"
        elif channel.expired:
            reason = "channel has expired"
        if reason:
            return self._refuse(account, "socket", Refusal(reason, 403, "Forbidden"))
        account.stats.sockets_opened += 1
        return await pushes.serve(channel, request, int(query["min_seq"]))
