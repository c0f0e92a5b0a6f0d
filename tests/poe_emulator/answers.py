"""One answer in the making: events over the account's channels, points taken, the slot given back."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import mimetypes
from dataclasses import dataclass, field
from typing import Any

from . import following
from .accounts import Account
from .behaviour import Behaviour
from .chats import Chat, Message, global_id
from .connections import Connection
from .pushes import Channel, event
from .site import Site

_jobs = itertools.count(900_000_000)


def answer_text(behaviour: Behaviour, chat: Chat, query: str) -> str:
    """The whole final text; deterministic, so that a test can tell cut and crossed answers."""
    if behaviour.answer is not None:
        return behaviour.answer * behaviour.repeat
    if behaviour.recall:
        return "recall: " + " | ".join(chat.asked_since_break())
    if chat.bot.draws:
        shown = f"![{query[:20]}]({picture_url(query)})\n\n\n{picture_url(query)}"
        return "" if behaviour.attach else shown
    return "\n".join([f"echo: {query}"] * behaviour.repeat)


def picture_url(name: str) -> str:
    """Where a picture (or another file) of that name would lie."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return f"https://pictures.example.test/base/image/{digest}?w=1024&h=1024"


def steps(text: str, chunks: int, *, replaced: bool) -> list[str]:
    """The growing texts shown before the final one, the first of them empty."""
    shown = [text[: len(text) * at // max(chunks, 1)] for at in range(max(chunks, 1))]
    if replaced:
        half = max(1, len(shown) // 2)
        shown[:half] = ["Let me think about that" + "." * (at + 1) for at in range(half)]
    return shown


@dataclass(eq=False, slots=True)
class Answer:
    """A running answer. It occupies one of the account's slots from `begin` until `_end`."""

    site: Site
    account: Account
    chat: Chat
    human: Message
    behaviour: Behaviour
    new_chat: bool
    channel: Channel
    """Where its caller listens."""
    connection: Connection
    """By which its caller sent the message."""
    go: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the mutation has been answered (or at once, for early events)."""
    reply: Message = field(init=False)
    job_id: int = field(default_factory=lambda: next(_jobs))
    task: asyncio.Task[None] | None = None
    _held: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reply = Message(author=self.chat.bot.codename, text="", state="incomplete")

    def begin(self) -> None:
        account, site = self.account, self.site
        account.running[self.reply.message_id] = self
        site.running += 1
        site.note_running(account)
        self.chat.messages.append(self.reply)
        self.task = site.spawn(self._run())

    def is_attended(self) -> bool:
        """Whether its caller exists: of a process that was killed neither connection is left, and the site goes on."""
        return self.connection.is_held() or any(socket.connection.is_held() for socket in self.channel.sockets)

    def cancel(self) -> None:
        """The viewer stops it: state cancelled, messageCancelled pushed, the slot is free."""
        if self.reply.state != "incomplete" or self.reply.message_id not in self.account.running:
            return
        self._end()
        if self.task is not None:
            self.task.cancel()
        self.reply.state = "cancelled"
        self.reply.cancelled_at = len(self.reply.text)
        self.account.stats.answers_cancelled += 1
        self._flush()
        if not self.behaviour.lost:
            data = self.reply.node()
            self.account.push([("messageCancelled", event("messageCancelled", self.chat.chat_id, data))])
        if self.account.cancelled_cost:
            self._charge(self.account.cancelled_cost)

    def _end(self) -> None:
        if self.account.running.pop(self.reply.message_id, None) is not None:
            self.site.running -= 1

    async def _run(self) -> None:
        try:
            await self.go.wait()
            await asyncio.sleep(self.behaviour.first_delay)
            self._announce()
            await self._stream()
            self._finish()
        finally:
            self._end()
            self._flush()

    def _announce(self) -> None:
        script, chat = self.behaviour, self.chat
        if chat.pending_title is not None:
            chat.title, chat.pending_title = chat.pending_title, None
            self._tell_title()
        if script.human:
            self._emit_message(self.human)
        if script.noise:
            self._emit("jobStarted", chat.chat_id, {"jobId": self.job_id, "state": "running"})
            self._emit("messageReadV2", chat.chat_id, {"messageId": self.human.message_id})
        if script.chat_break:
            self._emit_message(Message(author="chat_break", text=""))
        for at in range(script.status_lines):
            self._emit_message(Message(author="pacarana", text=f"Searching ({at + 1})...", state="incomplete"))

    async def _stream(self) -> None:
        script, account = self.behaviour, self.account
        asked = self.chat.asked_since_break()
        how = following.how_of(account.follows, asked)
        followed = following.answer(how, asked) if how else None
        text = answer_text(script, self.chat, self.human.text) if followed is None else followed
        for at, shown in enumerate(steps(text, script.chunks, replaced=script.replace), start=1):
            self.reply.text = shown
            if script.noise and at % 2 == 0:
                self._emit("viewerStateUpdated", account.uid, {"viewer": {"uid": account.uid}})
            self._emit_message(self.reply)
            if at == 1 and self.new_chat and not script.late_title:
                self._tell_title()
            if at == script.silent_after:
                account.silence_sockets()
            if at == script.drop_after:
                account.drop_sockets()
            if at == script.refetch_after:
                account.refetch_channels()
            await asyncio.sleep(script.chunk_delay)
        self.reply.text = text

    def _finish(self) -> None:
        script, reply, chat = self.behaviour, self.reply, self.chat
        if script.late_title:
            chat.pending_title = self.human.text[:40] if self.new_chat else "Renamed late"
        if script.ending == "truncated":
            reply.text = reply.text[: max(1, len(reply.text) // 2)]
            return
        if script.ending == "error":
            reply.state, reply.state_text = script.error_state, script.error_text
            self._end()
            self._emit_message(reply)
            return
        reply.state = "complete"
        if name := script.attach:
            reply.files.append((name, picture_url(name), mimetypes.guess_type(name)[0] or ""))
        self._end()
        self.account.stats.answers_completed += 1
        self._emit_message(reply)
        self._charge(chat.bot.price if script.cost is None else script.cost)
        for at in range(script.followups):
            reply.followups.append(f"Suggestion {at + 1}?")
            self._emit_message(reply)

    def _charge(self, points: int) -> None:
        chat, account = self.chat, self.account
        account.spend(points, chat.bot.handle, self.site.now())
        if not self.behaviour.job_events:
            return
        self._emit("jobUpdated", chat.chat_id, {"jobId": self.job_id, "state": "complete"})
        trigger = {
            "message": {
                "messageId": self.human.message_id,
                "chat": {"chatId": chat.chat_id, "id": chat.node_id, "chatCode": chat.code},
            }
        }
        cost = {"id": global_id("Job", self.job_id), "totalCostPoints": points, "trigger": trigger}
        self._emit("jobCostUpdated", self.job_id, cost)
        self._flush()

    def _tell_title(self) -> None:
        chat = self.chat
        chat.title = chat.title or self.human.text[:40] or "New chat"
        data = {"chatId": chat.chat_id, "id": chat.node_id, "title": chat.title}
        self._emit("chatTitleUpdated", chat.chat_id, data)

    def _emit_message(self, message: Message) -> None:
        self._emit("messageAdded", self.chat.chat_id, message.node())

    def _emit(self, subscription: str, subject: object, data: dict[str, Any]) -> None:
        if self.behaviour.lost:
            return
        self._held.append((subscription, event(subscription, subject, data)))
        if len(self._held) >= self.behaviour.batch:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self.account.push(self._held)
            self._held = []
