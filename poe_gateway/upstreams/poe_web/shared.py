"""What all accounts of one adapter share: configuration, the edge, and what belongs to the site's build."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import msgspec

from poe_gateway.clock import Clock, Ids
from poe_gateway.upstreams.poe_web.edge import Edge
from poe_gateway.upstreams.poe_web.options import PoeOptions
from poe_gateway.upstreams.poe_web.protocol import ProtocolData
from poe_gateway.upstreams.poe_web.sandbox import Sandbox

_REFETCH_PAUSE = 60.0
"""Seconds between two refetches of the revision because of drift: drift hits all accounts at once."""
_BUNDLES = 8
_MISSED_PRICES = 3
_PRICE_RETRY = 20
_OUTDATED = 64


class Revisions:
    """The site revision: the gateway's default, and the one that was last seen on a page.

    An account's own revision goes before both; ``KeyRing`` applies that rule. A configured revision that the
    site has refused while it took the one on its page is passed over from then on, for all accounts.
    """

    def __init__(self, default: str | None, *, auto_fetch: bool) -> None:
        self.default = default
        self.auto_fetch = auto_fetch
        self.seen: str | None = None
        self.lock = asyncio.Lock()
        """Held while one account looks for the revision, so that the others wait for its result."""
        self._refetched_at: float | None = None
        self._outdated: OrderedDict[str, None] = OrderedDict()

    def succeed(self, old: str | None, new: str | None) -> None:
        """The site took ``new`` right after it had refused the same request with ``old``."""
        if not self.auto_fetch or old is None or new is None or old == new:
            return
        # A site may go back to an earlier build.
        self._outdated.pop(new, None)
        self._outdated[old] = None
        while len(self._outdated) > _OUTDATED:
            self._outdated.popitem(last=False)

    def is_outdated(self, revision: str | None) -> bool:
        """Whether the site has left this revision behind and a page has shown another one."""
        return revision in self._outdated and self.seen not in (None, revision)

    def may_refetch(self, now: float) -> bool:
        """Whether drift is a reason to look again; True at most once a minute. ``now`` is monotonic."""
        if self._refetched_at is not None and now - self._refetched_at < _REFETCH_PAUSE:
            return False
        self._refetched_at = now
        return True


class PriceWatch:
    """How long a price is worth waiting for: a site that told none for several answers gets a full wait only now and
    then, until it tells one again.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._missed = 0

    @property
    def patience(self) -> float:
        """Seconds after the end of an answer."""
        hopeful = self._missed < _MISSED_PRICES or self._missed % _PRICE_RETRY == 0
        return self._patience if hopeful else 0.05 * self._patience

    def note(self, *, told: bool) -> None:
        """An answer ended with or without its price."""
        self._missed = 0 if told else self._missed + 1


class Bundle(msgspec.Struct, frozen=True):
    """What is used of an app bundle: the window secret (as code), the revision, and seeded calls it may hold."""

    secret: str | None
    revision: str | None
    seeded: tuple[str, ...] = ()


class Bundles:
    """The last few app bundles by address. The address changes with the build, so all accounts share them."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Bundle] = OrderedDict()

    def get(self, url: str) -> Bundle | None:
        return self._known.get(url)

    def put(self, url: str, bundle: Bundle) -> None:
        self._known[url] = bundle
        self._known.move_to_end(url)
        while len(self._known) > _BUNDLES:
            self._known.popitem(last=False)


class Shared:
    """Handed to every connection. ``protocol`` may be replaced while the process runs."""

    def __init__(
        self,
        *,
        edge: Edge,
        clock: Clock,
        ids: Ids,
        base_url: str,
        ws_base_url: str | None,
        options: PoeOptions,
        protocol: ProtocolData,
        revisions: Revisions,
    ) -> None:
        self.edge = edge
        self.prices = PriceWatch(options.cost_wait)
        self.clock = clock
        self.ids = ids
        self.base_url = base_url.rstrip("/")
        self.ws_base_url = ws_base_url.rstrip("/") if ws_base_url else None
        self.options = options
        self.protocol = protocol
        self.revisions = revisions
        self.bundles = Bundles()
        self.sandbox = Sandbox(
            at_once=options.sandboxes, timeout=options.sandbox_timeout, answer_bytes=2 * options.page_bytes
        )

    def url(self, path: str) -> str:
        return self.base_url + path
