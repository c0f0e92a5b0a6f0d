"""Form key and revision of one account: where each comes from, and how they are made anew after a refusal.

Form key: the operator's, else derived from the home page. Revision: the account's, else the gateway's
default, else the one on the site's pages. After the site refused a request the page decides about both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urljoin, urlsplit

import msgspec

from poe_gateway.pool.outcome import AdapterDrift, Challenged, Transient, Unauthorized
from poe_gateway.upstreams.base import UpstreamFailure
from poe_gateway.upstreams.poe_web import formkey, page, sandbox
from poe_gateway.upstreams.poe_web.flight import SingleFlight
from poe_gateway.upstreams.poe_web.identity import Identity
from poe_gateway.upstreams.poe_web.outcomes import Answer
from poe_gateway.upstreams.poe_web.page import PageFacts
from poe_gateway.upstreams.poe_web.settings import channel_of
from poe_gateway.upstreams.poe_web.shared import Bundle, Shared
from poe_gateway.upstreams.poe_web.wire import Channel

_HOME_FRESH = 5.0
"""Seconds for which a page read because of a refusal need not be read again."""


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
        self._home: tuple[float, PageFacts] | None = None
        """The home page and when it was read (monotonic): one reading serves both questions of a refusal."""

    async def keys(self) -> Keys:
        """The keys, made now if need be. Raises UpstreamFailure."""
        known, revisions = self._keys, self._shared.revisions
        if known is not None and revisions.is_outdated(known.revision):
            # Another account has found out that the site left this revision behind.
            known = self._keys = msgspec.structs.replace(known, revision=revisions.seen, revision_seen=True)
        return known or await self._flight.join(self._make)

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

    def blames_revision(self, keys: Keys) -> bool:
        """Whether a refusal is worth a repeat with the same form key: the operator's own, a revision unproven."""
        return self._shared.revisions.auto_fetch and keys.formkey == self._identity.formkey and not keys.revision_seen

    async def refetch_revision(self, stale: Keys, *, sparingly: bool, keys_next: bool) -> bool:
        """Look on the site's pages for a revision other than the refused one; True when there is one.

        ``sparingly``: all accounts may ask at once, so what one has found serves the others, and pages are read
        once a minute at most. ``keys_next``: without news ``refresh`` follows at once, on the same page. Raises
        UpstreamFailure when the page cannot be read.
        """
        revisions, home = self._shared.revisions, None
        if not revisions.auto_fetch:
            return False
        if self._keys is not None and self._keys is not stale:
            return self._keys.revision != stale.revision
        async with revisions.lock:
            found = revisions.seen if sparingly else None
            if found in (None, stale.revision):
                if sparingly and not revisions.may_refetch(self._shared.clock.monotonic()):
                    return False
                home = await self.read_home()
                found = await self._look(home)
        if found in (None, stale.revision):
            if keys_next and home is not None:
                self._home = self._shared.clock.monotonic(), home
            return False
        self._keys = msgspec.structs.replace(stale, revision=found, revision_seen=True)
        return True

    async def _make(self) -> Keys:
        key, facts = self._identity.formkey, None
        if key is None:
            facts = await self.read_home()
            key = await self._derive(facts, fresh=False)
        revision, seen = await self._revision(facts)
        self._keys = Keys(key, revision, seen)
        return self._keys

    async def _remake(self) -> Keys:
        known, self._home = self._home, None
        just_read = known is not None and self._shared.clock.monotonic() - known[0] < _HOME_FRESH
        facts = known[1] if known is not None and just_read else await self.read_home()
        key = await self._derive(facts, fresh=True)
        # The refusal may have been about a configured revision that the site has left behind.
        found = await self._look(facts) if self._shared.revisions.auto_fetch else None
        self._keys = Keys(key, found, True) if found else Keys(key, *await self._revision(facts))
        return self._keys

    async def _revision(self, facts: PageFacts | None) -> tuple[str | None, bool]:
        """The revision by precedence, and whether it was read from a page. ``facts``: the home page, if just read."""
        revisions = self._shared.revisions
        configured = self._identity.revision or revisions.default
        if configured and not revisions.is_outdated(configured):
            return configured, False
        if revisions.seen is None and revisions.auto_fetch:
            async with revisions.lock:
                if revisions.seen is None:
                    await self._look(facts or await self.read_home())
        if revisions.seen is None:
            raise UpstreamFailure(AdapterDrift("no site revision: none configured and none found on the page"))
        return revisions.seen, True

    async def _look(self, home: PageFacts) -> str | None:
        """The revision as the pages show it now: addresses, login page, app bundle, else the build id."""
        found = home["revision"]
        if found is None:
            try:
                found = (await self._read(self._shared.protocol.paths.login))["revision"]
            except UpstreamFailure as failure:
                # The login page may send a visitor with a session elsewhere; only a challenge matters here.
                if isinstance(failure.outcome, Challenged):
                    raise
        if found is None:
            found = (await self._bundle(home, fresh=False)).revision or home["build"]
        self._shared.revisions.seen = found or self._shared.revisions.seen
        return found

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
        facts["revision"] = page.revision_of(answer.headers, facts)
        shared.revisions.seen = facts["revision"] or shared.revisions.seen
        if (channel := channel_of(facts["tchannel"])) is not None:
            self._offered = channel
        return facts

    async def _derive(self, facts: PageFacts, *, fresh: bool) -> str:
        shared = self._shared
        if not facts["app_sources"]:
            raise UpstreamFailure(AdapterDrift("the page names no app bundle"))
        bundle = await self._bundle(facts, fresh=fresh)
        try:
            return await formkey.derive(
                shared.sandbox,
                facts,
                bundle.secret,
                bundle.seeded,
                user_agent=self._identity.user_agent,
                memory=shared.options.sandbox_memory,
                seconds=shared.options.sandbox_timeout,
            )
        except sandbox.SandboxTimeout:
            raise UpstreamFailure(Transient("the page scripts took too long", timeout=True)) from None
        except (formkey.FormkeyNotFound, sandbox.SandboxFailed) as error:
            raise UpstreamFailure(AdapterDrift(f"no form key: {error}")) from None

    async def _bundle(self, facts: PageFacts, *, fresh: bool) -> Bundle:
        """The app bundle of a page: of the scripts named like one, the first that holds a window secret."""
        bundle = Bundle(None, None)
        for source in facts["app_sources"]:
            bundle = await self._load_bundle(source, fresh=fresh)
            if bundle.secret is not None:
                break
        return bundle

    async def _load_bundle(self, source: str, *, fresh: bool) -> Bundle:
        """The bundle behind a script address of the page. ``fresh`` passes over what is known."""
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
        bundle = Bundle(page.window_secret(text), page.bundle_revision(text), formkey.seeded_calls(text))
        shared.bundles.put(url, bundle)
        return bundle
