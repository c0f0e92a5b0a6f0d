"""One message and its answer: send, read what is pushed, fall back to re-reading the chat, wind up.

The order of events is that of ``chat.events``; failures are ``UpstreamFailure`` with the message's fate.
"""

from __future__ import annotations

import asyncio
import string
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from poe_gateway.chat.events import Bound, ChatEvent, Finished, Measured, TextDelta
from poe_gateway.chat.request import ChatRequest
from poe_gateway.pool.outcome import AdapterDrift, Challenged, Depleted, RateLimited, Rejected, Transient, Unauthorized
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.poe_web import naming, outcomes, pictures, wire
from poe_gateway.upstreams.poe_web.attachments import AttachmentError, File, decode_data_url
from poe_gateway.upstreams.poe_web.connection import Connection
from poe_gateway.upstreams.poe_web.frames import PushEvent, chat_number
from poe_gateway.upstreams.poe_web.messages import SendAnswer, Update, pick_reply, send_answer
from poe_gateway.upstreams.poe_web.outcomes import Refusal
from poe_gateway.upstreams.poe_web.reply import Reply
from poe_gateway.upstreams.poe_web.router import Mailbox, Resync
from poe_gateway.upstreams.poe_web.transcript import fold

FetchImage = Callable[[str], Awaitable[File]]
"""Fetches an image by address, guarded against internal ones; raises AttachmentError."""

_LETTERS = string.ascii_letters + string.digits


class Exchange:
    """One message on one connection. Use ``events()`` once."""

    def __init__(
        self,
        connection: Connection,
        model: str,
        request: ChatRequest,
        bound: Mapping[str, Any] | None,
        fetch_image: FetchImage | None = None,
    ) -> None:
        self._connection = connection
        protocol = connection.shared.protocol
        self._bot = protocol.codename(model)
        self._handle = naming.handle_of(request.model, model, protocol)
        self._request = request
        self._drawing = request.operation == "image"
        """Only pictures are wanted: what the bot says about them is not told."""
        self._fetch_image = fetch_image
        self._options = connection.shared.options
        self._clock = connection.shared.clock
        self._chat_id = chat_number(bound.get("chatId")) if bound else None
        code = bound.get("chatCode") if bound else None
        self._chat_code: str | None = code if isinstance(code, str) else None
        self._new = self._chat_id is None
        self._ephemeral = self._new and request.session_id is None
        self._running = False
        """The site may be working on an answer: leaving now means cancelling it."""
        self._box: Mailbox | None = None
        self._reply = Reply(connection.shared.protocol, connection.router.finished)

    async def events(self) -> AsyncGenerator[ChatEvent, None]:
        """The answer. Closing the iterator early cancels it upstream."""
        router = self._connection.router
        query, tokens = await self._prepare()
        router.begin_send()
        sending = True
        try:
            if self._chat_id is not None:
                self._open_box(self._chat_id)
            sent = await self._send(query, tokens)
            box = self._box or self._open_box(self._adopt(sent))
            router.end_send()
            sending = False
            self._running = True
            self._reply.accepted(sent.human, sent.reply)
            state: dict[str, Any] = {"chatId": self._chat_id, "chatCode": self._chat_code, "bot": self._bot}
            yield Bound(state)
            for event in self._apply(sent.reply):
                yield event
            async with aclosing(self._read(box)) as answer:
                async for event in answer:
                    yield event
            for event in self._closing():
                yield event
            yield Finished()
        finally:
            if sending:
                router.end_send()
            await self._wind_up()

    # ------------------------------------------------------------ sending

    async def _prepare(self) -> tuple[str, list[str]]:
        """Query text and upload tokens, with the connection ready. All failures: NOT_SENT."""
        query = fold(self._request.messages)
        files = await self._files()
        if not query.strip() and not files:
            raise UpstreamFailure(Rejected(public="The message is empty."))
        await self._connection.ready()
        try:
            return query, [await self._connection.site.upload(file) for file in files]
        except UpstreamFailure as failure:
            raise UpstreamFailure(failure.outcome, Fate.NOT_SENT) from None

    async def _files(self) -> list[File]:
        images = [image for message in self._request.messages for image in message.images]
        try:
            if len(images) > self._options.images:
                raise AttachmentError(f"at most {self._options.images} images are possible")
            files = []
            for index, image in enumerate(images):
                if image.url[:5].lower() == "data:":
                    files.append(decode_data_url(image.url, index=index, limit=self._options.image_bytes))
                elif self._fetch_image is not None:
                    files.append(await self._fetch_image(image.url))
                else:
                    raise AttachmentError("only data: URLs are supported for images on this upstream so far")
            return files
        except AttachmentError as error:
            raise UpstreamFailure(Rejected(public=str(error), status=400, code="invalid_image")) from None

    def _open_box(self, chat_id: int) -> Mailbox:
        self._box = self._connection.router.open(chat_id, new=self._new)
        if self._box is None:
            raise UpstreamFailure(RateLimited(detail="a message of this chat is still being answered"))
        return self._box

    async def _send(self, query: str, tokens: list[str]) -> SendAnswer:
        """Send the message by the bot's mapped name, else once by its handle; see ``naming``."""
        try:
            return await self._send_once(query, tokens)
        except UpstreamFailure as failure:
            if not naming.may_be_the_name(failure):
                raise
            refusal = failure
        found = await self._look_up()
        handle = found if isinstance(found, str) else self._handle
        if handle != self._bot and naming.may_try_again(refusal):
            mapped, self._bot = self._bot, handle
            try:
                return await self._send_once(query, tokens)
            except UpstreamFailure as failure:
                if not naming.may_be_the_name(failure) or failure.fate is not Fate.NOT_SENT:
                    raise
                self._bot = mapped
        if found is naming.Lookup.UNKNOWN:
            self._running = False
            raise UpstreamFailure(naming.no_such_model(self._request.model))
        raise refusal

    async def _look_up(self) -> str | naming.Lookup:
        try:
            return await naming.look_up(self._connection.site, self._handle)
        except UpstreamFailure as failure:
            # The message itself was answered already; this says what the account has come to since.
            raise UpstreamFailure(failure.outcome, Fate.UNKNOWN if self._running else Fate.NOT_SENT) from None

    async def _send_once(self, query: str, tokens: list[str]) -> SendAnswer:
        """Send the message; the site's acceptance. Raises UpstreamFailure with the message's fate."""
        connection, rng = self._connection, self._connection.shared.ids.rng
        size = connection.shared.protocol.send.nonce_length
        variables = wire.send_variables(
            connection.shared.protocol.send,
            chat_id=self._chat_id,
            bot=self._bot,
            query=query,
            client_nonce="".join(rng.choices(_LETTERS, k=size)),
            chat_nonce="".join(rng.choices(_LETTERS, k=size)),
            sdid=connection.sdid,
            file_tokens=tokens,
        )
        call = connection.site.call("send", variables, ready=connection.ready, once=True)
        task = asyncio.get_running_loop().create_task(call)
        try:
            data = await asyncio.shield(task)
        except asyncio.CancelledError:
            # The message is on its way: what it starts must be stopped once the site has named it.
            connection.errands.spawn(self._stop_orphan(task))
            raise
        except UpstreamFailure as failure:
            self._running = failure.fate is Fate.UNKNOWN and self._chat_id is not None
            raise
        return self._accepted(data)

    def _accepted(self, data: dict[str, Any]) -> SendAnswer:
        connection, sent = self._connection, send_answer(data)
        if sent is None:
            raise Refusal(AdapterDrift("the answer to the message has another shape"), Fate.UNKNOWN)
        failure = outcomes.send_failure(
            sent.status,
            sent.status_message,
            connection.shared.protocol,
            model=self._request.model,
            next_grant_at=connection.next_grant_at,
        )
        if failure is not None:
            if self._new and sent.chat_id is not None:
                connection.delete_later(sent.chat_id)
            raise Refusal(failure, Fate.NOT_SENT)
        return sent

    def _adopt(self, sent: SendAnswer) -> int:
        """The new chat of an accepted message."""
        if sent.chat_id is None:
            raise UpstreamFailure(AdapterDrift("the message was taken but no chat was named"), Fate.UNKNOWN)
        self._chat_id, self._chat_code = sent.chat_id, sent.chat_code
        return sent.chat_id

    # ------------------------------------------------------------ reading

    async def _read(self, box: Mailbox) -> AsyncGenerator[ChatEvent, None]:
        """Texts and figures until the answer is complete and its price known (or not worth waiting for)."""
        options, reply = self._options, self._reply
        started = progressed = self._clock.monotonic()
        reread_at = started + options.silence
        done_at: float | None = None
        # The connection may have closed while the site was answering: nobody will tell this mailbox.
        self._connection.site.check_open(Fate.ACCEPTED)
        while True:
            now = self._clock.monotonic()
            if reply.done:
                self._running = False
                done_at = now if done_at is None else done_at
                prices = self._connection.shared.prices
                if reply.points is not None or now - done_at >= prices.patience:
                    prices.note(told=reply.points is not None)
                    return
                wake = done_at + prices.patience
            else:
                limit = min(
                    progressed + (options.stall if reply.begun else options.first_event),
                    started + options.answer_timeout,
                )
                if now >= limit:
                    raise UpstreamFailure(Transient("the answer does not go on", timeout=True), Fate.ACCEPTED)
                wake = min(reread_at, limit)
            item = await box.get(wake - now)
            now = self._clock.monotonic()
            if isinstance(item, UpstreamFailure):
                raise item
            if isinstance(item, PushEvent):
                for event in self._apply_event(item):
                    yield event
                if reply.moved():
                    progressed, reread_at = now, now + options.silence
                if reply.wants_reread:
                    reread_at = min(reread_at, now + options.job_grace)
            elif not reply.done and (isinstance(item, Resync) or now >= reread_at):
                silent = item is None and not reply.wants_reread
                for event in self._apply(await self._reread(), reread=True):
                    yield event
                if reply.moved():
                    progressed = self._clock.monotonic()
                    if silent:
                        self._connection.socket.suspect()
                reread_at = self._clock.monotonic() + (options.job_grace if reply.wants_reread else options.silence)

    async def _reread(self) -> Update | None:
        """The answer as the chat has it now; None when the chat cannot be read or does not hold it yet."""
        reply = self._reply
        try:
            nodes = await self._connection.read_chat(self._box.chat_id if self._box else 0, self._chat_code)
        except UpstreamFailure as failure:
            if isinstance(failure.outcome, Challenged | Unauthorized):
                raise UpstreamFailure(failure.outcome, Fate.ACCEPTED) from None
            return None
        protocol = self._connection.shared.protocol
        return pick_reply(
            nodes,
            reply_id=reply.reply_id,
            human_id=reply.human_id,
            not_bots=(*protocol.ignored_authors, *protocol.tool_authors),
            done=self._connection.router.finished,
        )

    def _apply_event(self, event: PushEvent) -> list[ChatEvent]:
        known = self._reply.points
        text = self._checked(lambda: self._reply.take_event(event))
        events: list[ChatEvent] = [text] if text is not None else []
        if self._reply.points is not None and self._reply.points != known:
            events.append(Measured(points=self._reply.points))
        return events

    def _apply(self, update: Update | None, *, reread: bool = False) -> list[ChatEvent]:
        text = self._checked(lambda: self._reply.take(update, reread=reread))
        return [text] if text is not None else []

    def _checked(self, step: Callable[[], ChatEvent | None]) -> ChatEvent | None:
        """One step of the reply; a failure that ends it leaves nothing running."""
        try:
            text = step()
            return None if self._drawing else text
        except UpstreamFailure as failure:
            self._running = False
            if isinstance(failure.outcome, Depleted):
                grant = self._connection.next_grant_at
                raise UpstreamFailure(Depleted(grant, failure.outcome.detail), failure.fate) from None
            raise

    def _closing(self) -> list[ChatEvent]:
        """What an answer holds beside its text: its pictures where those are wanted, else all that hangs on it.

        Raises UpstreamFailure when a picture is wanted and there is none: the bot does not draw, or would not.
        """
        text, attached = self._reply.text, self._reply.attachments
        if not self._drawing:
            appendix = pictures.appendix(text, attached)
            return [TextDelta(appendix)] if appendix else []
        made = pictures.made(text, attached)
        if not made:
            raise UpstreamFailure(pictures.no_picture(text), Fate.ACCEPTED)
        return list(made)

    # ------------------------------------------------------------ the end

    async def _wind_up(self) -> None:
        """Close the mailbox; cancel what still runs; delete a chat that nobody will continue."""
        if self._box is not None:
            self._connection.router.close(self._box.chat_id, self._reply.message_ids())
        if self._chat_id is None or self._connection.site.challenged:
            return
        if not self._running:
            if self._ephemeral:
                self._connection.delete_later(self._chat_id)
            return
        self._running = False
        task = self._connection.errands.spawn(self._stop(self._chat_id))
        # A short wait, so that the account's slot is free upstream when its lease ends here.
        await asyncio.wait([task], timeout=self._options.cancel_timeout)

    async def _stop(self, chat_id: int) -> None:
        await self._connection.cancel(chat_id, self._reply.reply_id, len(self._reply.text))
        if self._ephemeral:
            self._connection.delete_later(chat_id)

    async def _stop_orphan(self, task: asyncio.Task[dict[str, Any]]) -> None:
        """Wait for the answer to a send whose caller has left, and stop what it started."""
        done, _ = await asyncio.wait([task], timeout=self._options.orphan_timeout)
        if not done:
            task.cancel()
            return
        try:
            sent = self._accepted(task.result())
        except (UpstreamFailure, asyncio.CancelledError):
            return
        chat_id = self._chat_id if self._chat_id is not None else sent.chat_id
        if chat_id is not None:
            known = sent.human.message_id if sent.human is not None else None
            self._connection.router.close(chat_id, [known] if known else [])
            await self._stop(chat_id)
