"""Form key and revision of one account: where each comes from, and how they are made anew after a refusal.

Form key: the operator's, else derived from the home page. Revision: the account's, else the gateway's
default, else the one on the site's pages. After the site refused a request the page decides about both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urljoin, urlsplit

import msgspec

from poe_gateway.pool.outcome import AdapterDrift, Transient, Unauthorized
from poe_gateway.upstreams.base import UpstreamFailure
from poe_gateway.upstreams.poe_web import formkey, page, sandbox
from poe_gateway.upstreams.poe_web.flight import SingleFlight
from poe_gateway.upstreams.poe_web.identity import Identity
from poe_gateway.upstreams.poe_web.outcomes import Answer
from poe_gateway.upstreams.poe_web.page import PageFacts
from poe_gateway.upstreams.poe_web.settings import channel_of
from poe_gateway.upstreams.poe_web.shared import Bundle, Shared
from poe_gateway.upstreams.poe_web.wire import Channel


class Keys(msgspec.Struct, frozen=True):
    """What GraphQL calls are signed with. ``revision_seen``: the revision was read from a page."""

    formkey: str
    revision: str | None
    revision_seen: bool

    def __repr__(self) -> str:
        return "Keys(...)"


class KeyRing:
    """Keys of one account, made lazily, by one caller at a time.

    ``fetch_page(path)`` and ``fetch_asset(url, own)`` do the requests and raise for every status but 200.
    """

    def __init__(
        self,
        shared: Shared,
        identity: Identity,
        fetch_page: Callable[[str], Awaitable[Answer]],
        fetch_asset: Callable[[str, bool], Awaitable[Answer]],
    ) -> None:
        self._shared = shared
        self._identity = identity
        self._fetch_page = fetch_page
        self._fetch_asset = fetch_asset
        self._flight: SingleFlight[Keys] = SingleFlight()
        self._keys: Keys | None = None
        self._offered: Channel | None = None

    async def keys(self) -> Keys:
        """The keys, made now if need be. Raises UpstreamFailure."""
        return self._keys or await self._flight.join(self._make)

    async def refresh(self, stale: Keys) -> Keys:
        """Keys other than ``stale``, from a fresh page; someone else may have made them already."""
        if self._keys is not None and self._keys is not stale:
            return self._keys
        return await self._flight.join(self._remake)

    def take_channel(self) -> Channel | None:
        """The push channel that came with the last page, once."""
        channel, self._offered = self._offered, None
        return channel

    async def read_home(self) -> PageFacts:
        """Load the home page: offers its channel, notes its revision. Raises UpstreamFailure."""
        return await self._read(self._shared.protocol.paths.home)

    async def refetch_revision(self, stale: Keys) -> bool:
        """Look for a newer revision after drift; True when there is one."""
        await self.read_home()
        seen = self._shared.revisions.seen
        if not stale.revision_seen or seen is None or seen == stale.revision:
            return False
        self._keys = msgspec.structs.replace(stale, revision=seen)
        return True

    async def _make(self) -> Keys:
        key = self._identity.formkey
        if key is None:
            key = await self._derive(await self.read_home(), fresh=False)
        revision, seen = await self._revision()
        self._keys = Keys(key, revision, seen)
        return self._keys

    async def _remake(self) -> Keys:
        key = await self._derive(await self.read_home(), fresh=True)
        revisions = self._shared.revisions
        if revisions.auto_fetch and revisions.seen:
            # The refusal may have been about a configured revision that the site has left behind.
            self._keys = Keys(key, revisions.seen, True)
        else:
            self._keys = Keys(key, *await self._revision())
        return self._keys

    async def _revision(self) -> tuple[str | None, bool]:
        """The revision by precedence, and whether it was read from a page."""
        revisions = self._shared.revisions
        if configured := self._identity.revision or revisions.default:
            return configured, False
        if revisions.seen is None and revisions.auto_fetch:
            async with revisions.lock:
                if revisions.seen is None:
                    await self.read_home()
                if revisions.seen is None:
                    await self._read(self._shared.protocol.paths.login)
        if revisions.seen is None:
            raise UpstreamFailure(AdapterDrift("no site revision: none configured and none found on the page"))
        return revisions.seen, True

    async def _read(self, path: str) -> PageFacts:
        shared, signs = self._shared, self._shared.protocol.signs
        answer = await self._fetch_page(path)
        html = answer.body.decode("utf-8", "replace")
        asked = {"challenge_element": signs.challenge_element, "suspended": signs.suspended}
        if len(answer.body) <= shared.options.inline_page_bytes:
            facts = page.read_page(html, **asked)
        else:
            try:
                facts = msgspec.convert(await shared.sandbox.run(sandbox.PAGE, {"html": html, **asked}), PageFacts)
            except (sandbox.SandboxFailed, msgspec.ValidationError) as error:
                raise UpstreamFailure(AdapterDrift(f"the page cannot be read: {type(error).__name__}")) from None
        if facts["suspended"]:
            raise UpstreamFailure(Unauthorized("the account looks suspended"))
        shared.revisions.seen = page.revision_of(answer.headers, facts) or shared.revisions.seen
        if (channel := channel_of(facts["tchannel"])) is not None:
            self._offered = channel
        return facts

    async def _derive(self, facts: PageFacts, *, fresh: bool) -> str:
        shared = self._shared
        if not facts["app_source"]:
            raise UpstreamFailure(AdapterDrift("the page names no app bundle"))
        bundle = await self._bundle(facts["app_source"], fresh=fresh)
        shared.revisions.seen = shared.revisions.seen or bundle.revision
        try:
            return await formkey.derive(
                shared.sandbox,
                facts,
                bundle.secret,
                user_agent=self._identity.user_agent,
                memory=shared.options.sandbox_memory,
                seconds=shared.options.sandbox_timeout,
            )
        except sandbox.SandboxTimeout:
            raise UpstreamFailure(Transient("the page scripts took too long", timeout=True)) from None
        except (formkey.FormkeyNotFound, sandbox.SandboxFailed) as error:
            raise UpstreamFailure(AdapterDrift(f"no form key: {error}")) from None

    async def _bundle(self, source: str, *, fresh: bool) -> Bundle:
        """The app bundle behind a script address of the page. ``fresh`` passes over what is known."""
        shared = self._shared
        url = urljoin(shared.base_url + "/", source)
        if not fresh and (known := shared.bundles.get(url)) is not None:
            return known
        target, home = urlsplit(url), urlsplit(shared.base_url)
        own = (target.scheme, target.netloc) == (home.scheme, home.netloc)
        host = (target.hostname or "").lower()
        named = target.scheme == "https" and any(
            host == known or host.endswith("." + known) for known in shared.protocol.asset_hosts
        )
        if not own and not named and host != home.hostname:
            # A page must not make the gateway fetch from anywhere.
            raise UpstreamFailure(AdapterDrift("the app bundle lies on an unknown host"))
        answer = await self._fetch_asset(url, own)
        text = answer.body.decode("utf-8", "replace")
        bundle = Bundle(page.window_secret(text), page.bundle_revision(text))
        shared.bundles.put(url, bundle)
        return bundle
