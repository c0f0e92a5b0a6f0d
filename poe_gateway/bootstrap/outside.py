"""The way out: what may be connected to, the upstreams that connect, and the credentials that they are handed."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from poe_gateway.accounts.references import References, files_from
from poe_gateway.api.asgi import StartFailed
from poe_gateway.bootstrap.lifetime import Ending
from poe_gateway.clock import Clock, Ids
from poe_gateway.outbound.allowed import Allowed, of_addresses, read_allowed
from poe_gateway.outbound.fetch import ImageFetcher
from poe_gateway.outbound.guard import Guard
from poe_gateway.settings import Settings
from poe_gateway.settings.lookup import Lookup
from poe_gateway.storage.account_admin import MongoAccountAdmin
from poe_gateway.telemetry.events import Notice
from poe_gateway.telemetry.hub import Telemetry
from poe_gateway.upstreams.base import Upstream
from poe_gateway.upstreams.http import new_session
from poe_gateway.upstreams.keychain import Keychain
from poe_gateway.upstreams.registry import build_upstreams
from poe_gateway.vault import Vault


class Outside(msgspec.Struct, frozen=True, kw_only=True):
    """``allowed``: what may be connected to although it is not public, whatever the routing file says; ``guard``: also
    what that file leads to. ``references`` finds keys that are named instead of stored."""

    allowed: Allowed
    guard: Guard
    pictures: ImageFetcher
    """For callers' addresses."""
    upstreams: Mapping[str, Upstream]
    references: References
    keychain: Keychain

    async def forget(self, account_id: str) -> None:
        """Drop what is kept in memory of an account's credentials and connections."""
        self.keychain.forget(account_id)
        for upstream in self.upstreams.values():
            await upstream.forget(account_id)


def open_outside(
    settings: Settings,
    *,
    book: MongoAccountAdmin,
    vault: Vault,
    clock: Clock,
    ids: Ids,
    telemetry: Telemetry,
    ending: Ending,
) -> Outside:
    """Nothing is connected to yet. Raises StartFailed."""
    file = settings.routing.routes_file
    references = References(Lookup(settings.config_file), files_from(file.parent if file is not None else None))

    def refused(where: str) -> None:
        message = "a connection into a private network was refused; see OUTBOUND_ALLOW"
        telemetry.emit(Notice(level="warning", message=message, fields={"where": where}))

    allowed = _allowed(settings)
    guard = Guard(allowed, refused=refused)
    http = new_session(guard=guard)
    ending.close(http.close)
    # Callers' addresses: what the operator's own settings lead to is not for them.
    pictures = ImageFetcher(Guard(read_allowed(settings.routing.outbound_allow)))
    ending.close(pictures.close)
    upstreams = build_upstreams(
        session=http,
        clock=clock,
        ids=ids,
        poe_base_url=settings.poe.base_url,
        poe_ws_base_url=settings.poe.ws_base_url,
        poe_revision=settings.poe.revision or None,
        poe_auto_fetch_revision=settings.poe.auto_fetch_revision,
        images=pictures,
    )
    for upstream in upstreams.values():
        ending.close(upstream.close)
    return Outside(
        allowed=allowed,
        guard=guard,
        pictures=pictures,
        upstreams=upstreams,
        references=references,
        keychain=Keychain(book, vault, clock, references.resolved),
    )


def _allowed(settings: Settings) -> Allowed:
    """What the settings lead to. Raises StartFailed."""
    own = [each for each in (settings.poe.base_url, settings.poe.ws_base_url) if each is not None]
    own += [each.base_url for each in settings.routing.providers if each.base_url is not None]
    try:
        return read_allowed(settings.routing.outbound_allow) | of_addresses(own)
    except ValueError as error:
        raise StartFailed(f"The gateway cannot start. OUTBOUND_ALLOW: {error}.") from None
