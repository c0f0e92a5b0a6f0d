"""The HTTP half of one account's connection: GraphQL calls, uploads, pages, and the data of its push channel.

Every request of the account passes ``_request``: own cookies, own user agent, and the gate that closes for
good when a bot challenge is seen. Whether the account gets another connection after that is ``connection``'s rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

import orjson

from poe_gateway.pool.outcome import AdapterDrift, Challenged, Failure, Rejected, Transient, Unauthorized
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.poe_web import outcomes, wire
from poe_gateway.upstreams.poe_web.attachments import File, upload_token
from poe_gateway.upstreams.poe_web.flight import SingleFlight
from poe_gateway.upstreams.poe_web.identity import Identity
from poe_gateway.upstreams.poe_web.keys import KeyRing, Keys
from poe_gateway.upstreams.poe_web.outcomes import Answer, Refusal, StaleKeys
from poe_gateway.upstreams.poe_web.protocol import Signs
from poe_gateway.upstreams.poe_web.settings import channel_of
from poe_gateway.upstreams.poe_web.shared import Shared
from poe_gateway.upstreams.poe_web.wire import Channel


@contextmanager
def _nothing_sent() -> Iterator[None]:
    """Failures in here happen before the request itself, or after its sure refusal."""
    try:
        yield
    except UpstreamFailure as failure:
        raise UpstreamFailure(failure.outcome, Fate.NOT_SENT) from None


Ready = Callable[[], Awaitable[None]]
_SHUT = Challenged("closed after a bot challenge")
"""What whoever comes to the closed gate is told; ``Site.met`` is what the site itself said."""


def _refusal(answer: Answer, failure: Failure | StaleKeys, signs: Signs) -> bool:
    """Whether the site has surely not done what it was asked."""
    return isinstance(failure, StaleKeys) or outcomes.message_fate(answer, failure, signs) is Fate.NOT_SENT


class Site:
    """Requests of one account. ``on_challenge`` is called once, synchronously, when the gate closes."""

    def __init__(self, shared: Shared, identity: Identity, on_challenge: Callable[[], None]) -> None:
        self.shared = shared
        self.identity = identity
        self.channel: Channel | None = None
        self.met: Challenged | None = None
        """The challenge that closed the gate."""
        self.met_at = 0.0
        """Monotonic second of it."""
        self._on_challenge = on_challenge
        self._closed: Failure | None = None
        self._ring = KeyRing(shared, identity, self._page, self._asset)
        self._turn = asyncio.Lock()
        self._channel_flight: SingleFlight[Channel] = SingleFlight()

    # ------------------------------------------------------------ the gate

    @property
    def challenged(self) -> bool:
        return self.met is not None

    def check_open(self, fate: Fate = Fate.NOT_SENT) -> None:
        """Raises UpstreamFailure when no request may go out any more."""
        if self._closed is not None:
            raise UpstreamFailure(self._closed, fate)

    def close(self) -> None:
        """No more requests; a challenge stays the reason."""
        self._closed = self._closed or Transient("the connection was dropped")

    def challenge(self, outcome: Challenged) -> UpstreamFailure:
        """Close the gate; returns what to raise."""
        if not self.challenged:
            self.met, self.met_at = outcome, self.shared.clock.monotonic()
            self._closed = _SHUT
            self._on_challenge()
        return UpstreamFailure(outcome, Fate.NOT_SENT)

    # ------------------------------------------------------------ calls

    async def call(
        self, operation: str, variables: Mapping[str, Any], *, ready: Ready | None = None, once: bool = False
    ) -> dict[str, Any]:
        """One GraphQL operation; the ``data`` of its answer. Raises UpstreamFailure.

        A refusal of the keys is repeated with another revision, when the page shows one, and once with fresh keys.
        ``ready`` is awaited before each try (default: a channel is known). ``once``: the request changes something
        and is never repeated after a transport error; its failure then carries the message's fate.
        """
        revised = refreshed = False
        before: Keys | None = None
        while True:
            with _nothing_sent():
                await (ready or self.ensure_channel)()
                keys = await self._ring.keys()
            answer = await self._post(operation, variables, keys, once=once)
            result = outcomes.envelope(answer, self.shared.protocol.signs, self.shared.clock.now())
            if isinstance(result, dict):
                if before is not None:
                    self.shared.revisions.succeed(before.revision, keys.revision)
                return result
            before = before or keys
            if not revised:
                revised = True
                if await self._newer_revision(result, answer, keys):
                    continue
            if not isinstance(result, StaleKeys):
                raise self._failure(result, answer)
            if refreshed:
                raise UpstreamFailure(result.final, Fate.NOT_SENT)
            refreshed = revised = True
            with _nothing_sent():
                await self._refresh(keys)

    async def upload(self, file: File) -> str:
        """Upload one file; its token. Raises UpstreamFailure."""
        protocol, refreshed = self.shared.protocol, False
        while True:
            await self.ensure_channel()
            keys = await self._ring.keys()
            headers = wire.render_headers(
                protocol.headers.upload,
                {
                    "origin": protocol.origin,
                    "formkey": keys.formkey,
                    "channel": self.channel.channel if self.channel else None,
                    "revision": keys.revision,
                },
            )
            url = self.shared.url(protocol.paths.upload)
            answer = await self._request("POST", url, headers, file, seconds=self.shared.options.upload_timeout)
            failure = outcomes.status_failure(answer, protocol.signs, self.shared.clock.now())
            refused = isinstance(failure, StaleKeys) or answer.status == 401
            if refused and not refreshed:
                refreshed = True
                await self._refresh(keys)
                continue
            if answer.status in (400, 415, 422):
                failure = Rejected(public="The upstream refused the attachment.", status=400)
            if failure is not None:
                raise self._failure(failure.final if isinstance(failure, StaleKeys) else failure, answer)
            if (token := upload_token(answer.body)) is None:
                raise UpstreamFailure(AdapterDrift("the upload gave no token"))
            return token

    async def _refresh(self, keys: Keys) -> None:
        """Fresh keys, and the channel that came with their page: the old one may be what was refused."""
        await self._ring.refresh(keys)
        self.channel = self._ring.take_channel() or self.channel

    async def _newer_revision(self, failure: Failure | StaleKeys, answer: Answer, keys: Keys) -> bool:
        """Whether the page shows another revision, after an answer that may be about the one that was sent.

        What the site does with an old one is not known: 400, 401, 403 and "Server Error" all have to be reckoned
        with. All are refusals, so a repeat is safe. For 401 and 403 the page also tells whether the session is dead.
        """
        drift = isinstance(failure, AdapterDrift) and answer.status == 200
        if isinstance(failure, StaleKeys):
            if not self._ring.blames_revision(keys):
                return False
        elif not (answer.status in (401, 403) or drift) or not _refusal(answer, failure, self.shared.protocol.signs):
            return False
        try:
            newer = await self._ring.refetch_revision(keys, sparingly=drift, keys_next=isinstance(failure, StaleKeys))
        except UpstreamFailure as other:
            if isinstance(other.outcome, Challenged | Unauthorized):
                raise UpstreamFailure(other.outcome, Fate.NOT_SENT) from None
            return False
        # The channel that came with this page is not needed: the one in use is not what failed.
        self._ring.take_channel()
        return newer

    def _failure(self, failure: Failure, answer: Answer) -> UpstreamFailure:
        fate = outcomes.message_fate(answer, failure, self.shared.protocol.signs)
        said_no = answer.status == 200 and isinstance(failure, AdapterDrift) and fate is Fate.NOT_SENT
        return Refusal(failure, fate) if said_no else UpstreamFailure(failure, fate)

    async def _post(self, operation: str, variables: Mapping[str, Any], keys: Keys, *, once: bool) -> Answer:
        signed = wire.graphql(
            self.shared.protocol,
            operation,
            variables,
            formkey=keys.formkey,
            channel=self.channel.channel if self.channel else None,
            revision=keys.revision,
        )
        url = self.shared.url(self.shared.protocol.paths.graphql)
        return await self._request("POST", url, signed.headers, signed.body, repeatable=not once)

    # ------------------------------------------------------------ the channel's data

    async def ensure_channel(self) -> None:
        """Have channel data, from the page if that was loaded anyway. Raises UpstreamFailure."""
        if self.channel is None:
            await self._ring.keys()
            self.channel = self.channel or self._ring.take_channel()
        if self.channel is None:
            await self.renew_channel()

    async def renew_channel(self) -> Channel:
        """Ask the site for a new channel: the settings first, the page when they do not tell."""
        return await self._channel_flight.join(self._fetch_channel)

    async def _fetch_channel(self) -> Channel:
        protocol = self.shared.protocol
        headers = wire.render_headers(protocol.headers.json, {"origin": protocol.origin})
        answer = await self._request("GET", self.shared.url(protocol.paths.settings), headers, repeatable=True)
        failure = outcomes.status_failure(answer, protocol.signs, self.shared.clock.now())
        found: Channel | None = None
        if failure is None:
            try:
                document = orjson.loads(answer.body)
            except orjson.JSONDecodeError:
                document = None
            found = channel_of(document.get("tchannelData")) if isinstance(document, dict) else None
        elif not isinstance(failure, StaleKeys | AdapterDrift | Unauthorized):
            raise UpstreamFailure(failure)
        if found is None:
            # Newer clients take it from the page; the page also says for certain whether the session is dead.
            await self._ring.read_home()
            found = self._ring.take_channel()
        if found is None:
            verdict: Failure = AdapterDrift("neither settings nor page tell the push channel")
            if isinstance(failure, Unauthorized):
                verdict = failure
            elif isinstance(failure, StaleKeys) and answer.status == 403:
                verdict = failure.final
            raise UpstreamFailure(verdict)
        self.channel = found
        return found

    # ------------------------------------------------------------ requests

    async def _page(self, path: str) -> Answer:
        headers = wire.render_headers(self.shared.protocol.headers.page, {"origin": self.shared.protocol.origin})
        answer = await self._request(
            "GET", self.shared.url(path), headers, limit=self.shared.options.page_bytes, repeatable=True
        )
        return self._plain(answer)

    async def _asset(self, url: str, own: bool) -> Answer:
        headers = wire.render_headers(self.shared.protocol.headers.asset, {"origin": self.shared.protocol.origin})
        limit = self.shared.options.page_bytes
        return self._plain(await self._request("GET", url, headers, limit=limit, cookies=own, repeatable=True))

    def _plain(self, answer: Answer) -> Answer:
        """The answer to a plain GET, if it is one. There are no keys that could be stale."""
        failure = outcomes.status_failure(answer, self.shared.protocol.signs, self.shared.clock.now())
        if isinstance(failure, StaleKeys):
            failure = failure.final if answer.status == 403 else AdapterDrift(f"the page answers {answer.status}")
        if failure is not None:
            raise UpstreamFailure(failure)
        if not answer.body:
            raise UpstreamFailure(Transient("empty page"))
        return answer

    async def _request(
        self,
        method: Literal["GET", "POST"],
        url: str,
        headers: dict[str, str],
        body: bytes | File | None = None,
        *,
        seconds: float | None = None,
        limit: int | None = None,
        cookies: bool = True,
        repeatable: bool = False,
    ) -> Answer:
        """Send one request as this account. Raises UpstreamFailure on challenges and transport errors only."""
        headers = {**headers, "User-Agent": self.identity.user_agent}
        async with self.turn():
            return await self._in_turn(method, url, headers, body, seconds, limit, cookies, repeatable)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One request of the account after the other: the answer to each may be the challenge that forbids the next.

        Who has waited for long goes ahead all the same: a request that hangs must not hold up the account.
        """
        waited = True
        try:
            async with asyncio.timeout(self.shared.options.turn_wait):
                await self._turn.acquire()
        except TimeoutError:
            waited = False
        try:
            self.check_open()
            yield
        finally:
            if waited:
                self._turn.release()

    async def _in_turn(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | File | None,
        seconds: float | None,
        limit: int | None,
        cookies: bool,
        repeatable: bool,
    ) -> Answer:
        while True:
            self.check_open()
            if cookies:
                headers["Cookie"] = self.identity.cookie_header
            try:
                answer, set_cookies = await self.shared.edge.request(
                    method, url, headers=headers, body=body, seconds=seconds, limit=limit
                )
                break
            except UpstreamFailure as failure:
                # A connection kept alive may be gone by the time it is used again.
                broke = isinstance(failure.outcome, Transient) and not failure.outcome.timeout
                if not repeatable or not broke:
                    raise
                repeatable = False
        if outcomes.is_challenge(answer, self.shared.protocol.signs):
            raise self.challenge(Challenged(f"bot challenge (status {answer.status})"))
        if cookies:
            for cookie in set_cookies:
                self.identity.absorb(cookie.name, cookie.value, expired=cookie.expired)
        return answer
