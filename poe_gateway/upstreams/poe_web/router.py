"""Who waits for which chat: pushed events on their way to messages in flight. Synchronous, no I/O.

The first events of a new chat can come before the site has told its number; they are kept for a while.
Events of messages that are over are dropped, so that none reaches the next turn of the chat.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Any

from poe_gateway.upstreams.base import UpstreamFailure
from poe_gateway.upstreams.poe_web.frames import PushEvent

_FINISHED_KEPT = 2048


class Resync:
    """The channel has a gap here: the chat must be re-read."""


Item = PushEvent | Resync | UpstreamFailure


class Mailbox:
    """The events of one message in flight, in order."""

    def __init__(self, chat_id: int) -> None:
        self.chat_id = chat_id
        self._items: asyncio.Queue[Item] = asyncio.Queue()

    def put(self, item: Item) -> None:
        self._items.put_nowait(item)

    async def get(self, seconds: float) -> Item | None:
        """The next item, or None after that many seconds without one."""
        try:
            return self._items.get_nowait()
        except asyncio.QueueEmpty:
            pass
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                return await self._items.get()
        except TimeoutError:
            return None


class Router:
    """Mailboxes by chat, and events that nobody waits for yet."""

    def __init__(self, *, early_chats: int, early_events: int, early_ttl: float) -> None:
        self._early_chats = early_chats
        self._early_events = early_events
        self._early_ttl = early_ttl
        self._open: dict[int, Mailbox] = {}
        self._early: OrderedDict[int, tuple[float, deque[PushEvent]]] = OrderedDict()
        self._known: OrderedDict[int, None] = OrderedDict()
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._sending = 0

    def __repr__(self) -> str:
        return f"Router(open={len(self._open)}, early={len(self._early)}, sending={self._sending})"

    @property
    def waiting(self) -> bool:
        """Whether any message is in flight."""
        return bool(self._open) or self._sending > 0

    @property
    def finished(self) -> OrderedDict[str, None]:
        """Ids of messages that are over."""
        return self._finished

    def begin_send(self) -> None:
        """A message goes out: the socket is needed even before its chat is known."""
        self._sending += 1

    def end_send(self) -> None:
        self._sending -= 1

    def open(self, chat_id: int, *, new: bool) -> Mailbox | None:
        """A mailbox for the chat; None when one is open already. A new chat's early events are in it."""
        if chat_id in self._open:
            return None
        box = self._open[chat_id] = Mailbox(chat_id)
        _, early = self._early.pop(chat_id, (0.0, ()))
        if new:
            for event in early:
                box.put(event)
        return box

    def close(self, chat_id: int, message_ids: list[str]) -> None:
        """The message is over: whatever still comes for it, or for the chat, is late."""
        self._open.pop(chat_id, None)
        _remember(self._known, chat_id)
        for message_id in message_ids:
            _remember(self._finished, message_id)

    def deliver(self, event: PushEvent, now: float) -> None:
        """Give an event to whom it concerns. ``now`` is monotonic."""
        if event.chat_id is None:
            self._deliver_by_message(event)
        elif (box := self._open.get(event.chat_id)) is not None:
            box.put(event)
        elif event.chat_id not in self._known and self._sending:
            self._keep(event.chat_id, event, now)

    def broadcast(self, item: Item) -> None:
        """Tell every message in flight."""
        for box in self._open.values():
            box.put(item)

    def _deliver_by_message(self, event: PushEvent) -> None:
        """Without a chat an event can only be told by its message id: each reader knows its own."""
        if "messageId" in event.data:
            self.broadcast(event)

    def _keep(self, chat_id: int, event: PushEvent, now: float) -> None:
        for known in [known for known, (since, _) in self._early.items() if now - since >= self._early_ttl]:
            del self._early[known]
        if chat_id not in self._early and len(self._early) >= self._early_chats:
            self._early.popitem(last=False)
        # A full deque loses its oldest event: texts are cumulative, the newest counts.
        _, events = self._early.setdefault(chat_id, (now, deque(maxlen=self._early_events)))
        events.append(event)


def _remember(memory: OrderedDict[Any, None], key: Any) -> None:
    memory[key] = None
    memory.move_to_end(key)
    while len(memory) > _FINISHED_KEPT:
        memory.popitem(last=False)
