"""The answer to one message as it takes shape: updates in, texts out. No I/O; failures are raised.

Fed with pushed events and with what a re-read of the chat shows; both may overlap, repeat, or be about
something else.
"""

from __future__ import annotations

from collections.abc import Container

from poe_gateway.chat.events import TextDelta, TextReplaced
from poe_gateway.pool.outcome import Transient
from poe_gateway.upstreams.base import Fate, UpstreamFailure
from poe_gateway.upstreams.poe_web.delta import GrowingText
from poe_gateway.upstreams.poe_web.frames import MESSAGE_EVENTS, PushEvent
from poe_gateway.upstreams.poe_web.messages import Update, cost_points, is_older, trigger_of, update_of
from poe_gateway.upstreams.poe_web.outcomes import state_failure
from poe_gateway.upstreams.poe_web.pictures import Attachment
from poe_gateway.upstreams.poe_web.protocol import ProtocolData

_CUT_OFF_AFTER = 2
"""Re-reads that find the answer unfinished although its job has ended, after which it counts as cut off."""

TextEvent = TextDelta | TextReplaced


class Reply:
    """State of one answer. ``finished`` holds the ids of messages of earlier turns."""

    def __init__(self, protocol: ProtocolData, finished: Container[str]) -> None:
        self._protocol = protocol
        self._finished = finished
        self._growing = GrowingText()
        self._attachments: dict[str, Attachment] = {}
        self._ids: set[str] = set()
        self._job: str | None = None
        self._job_over = False
        self._empty_rereads = 0
        self._stuck_rereads = 0
        self._moved = False
        self.human: Update | None = None
        """The message that this answers, once the site has confirmed it. What is older belongs to earlier turns."""
        self.reply_id: str | None = None
        self.begun = False
        """Some text was seen, status lines of tools included."""
        self.done = False
        self.points: int | None = None
        self.wants_reread = False
        """Something does not add up; the chat itself knows."""

    def accepted(self, human: Update | None, reply: Update | None) -> None:
        """The site has taken the message; ``reply`` is the bot's, when the site named it in the same breath."""
        self.human = human
        if reply is not None and reply.message_id is not None:
            self._ids.add(reply.message_id)

    @property
    def human_id(self) -> str | None:
        return self.human.message_id if self.human is not None else None

    @property
    def text(self) -> str:
        return self._growing.text

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """What hangs on the answer, in the order in which it was seen."""
        return tuple(self._attachments.values())

    def moved(self) -> bool:
        """Whether anything was learned since the last call."""
        moved, self._moved = self._moved, False
        return moved

    def message_ids(self) -> list[str]:
        """All messages of this turn: what still comes for them is late."""
        return [*self._ids, *([self.human_id] if self.human_id else [])]

    def take_event(self, event: PushEvent) -> TextEvent | None:
        """One pushed event. Raises UpstreamFailure (ACCEPTED) when the answer failed."""
        match event.kind:
            case "messageCancelled":
                self._take_cancelled(event)
            case "jobStarted":
                self._job = self._job or _job_id(event)
            case "jobUpdated":
                self._take_job(event)
            case "jobCostUpdated":
                self._take_cost(event)
            case "messageAttachmentAdded":
                self._take_attached(event)
            case kind if kind in MESSAGE_EVENTS:
                known_only = event.chat_id is None or kind in ("messageTextUpdated", "messageStateUpdated")
                return self.take(update_of(event.data), known_only=known_only)
        return None

    def take(self, update: Update | None, *, known_only: bool = False, reread: bool = False) -> TextEvent | None:
        """The newest known form of a message; only that of the bot counts.

        ``known_only``: nothing says whose it is, so only the message already known is believed.
        ``reread``: it was looked up in the chat, None = it is not there.
        """
        if update is None:
            if reread:
                self._unfinished()
            return None
        message_id, author = update.message_id, update.author
        if author in self._protocol.ignored_authors or message_id in self._finished:
            return None
        if message_id is not None and message_id == self.human_id:
            return None
        if self._is_of_earlier_turn(update):
            if reread:
                self._unfinished()
            return None
        if author in self._protocol.tool_authors:
            self._sign_of_life(message_id)
            return None
        if known_only and (message_id is None or message_id != self.reply_id):
            return None
        if update.text or update.attachments:
            self._sign_of_life(message_id)
        elif message_id is not None:
            self._ids.add(message_id)
        self.reply_id = message_id or self.reply_id
        return self._grow(update, reread=reread)

    def _is_of_earlier_turn(self, update: Update) -> bool:
        """Late events of an earlier turn may come when nobody here remembers it: after a restart, for one."""
        if update.message_id in self._finished:
            return True
        if self.human is None or update.message_id in self._ids or update.message_id in (None, self.reply_id):
            return False
        return is_older(update, self.human)

    def _sign_of_life(self, message_id: str | None) -> None:
        self.begun = self._moved = True
        if message_id is not None:
            self._ids.add(message_id)

    def _grow(self, update: Update, *, reread: bool) -> TextEvent | None:
        before = self.text
        if update.state is not None:
            failure = state_failure(update.state, self._protocol, None)
            if failure is not None:
                raise UpstreamFailure(failure, Fate.ACCEPTED)
        event = self._growing.advance(update.text) if update.text is not None else None
        self._attach(update)
        if update.state is not None and self._protocol.states.get(update.state) == "done":
            self._complete(reread=reread)
        elif reread:
            self._moved = self.text != before
            self._unfinished()
        return event

    def _complete(self, *, reread: bool) -> None:
        """The site calls the answer complete; an empty one is looked at again before it counts as failed."""
        if self.text.strip() or self._attachments:
            self.done, self.wants_reread = True, False
            return
        self.wants_reread = True
        if reread:
            raise UpstreamFailure(Transient("empty answer"), Fate.ACCEPTED)

    def _unfinished(self) -> None:
        """A re-read shows that the answer is not complete: wrong only when its job has ended."""
        if not self._job_over:
            self.wants_reread = False
            return
        self._stuck_rereads += 1
        if self._stuck_rereads >= _CUT_OFF_AFTER:
            raise UpstreamFailure(Transient("the answer was cut off"), Fate.ACCEPTED)

    def _attach(self, update: Update) -> None:
        self._attachments.update({attachment.url: attachment for attachment in update.attachments})

    def _take_attached(self, event: PushEvent) -> None:
        """Files may be told apart from the text; nothing but the message's id says whose they are."""
        update = update_of(event.data)
        if update is not None and update.attachments and update.message_id in self._ids:
            self._sign_of_life(update.message_id)
            self._attach(update)

    def _take_cancelled(self, event: PushEvent) -> None:
        update = update_of(event.data)
        message_id = update.message_id if update else None
        if self.done or (update is not None and self._is_of_earlier_turn(update)):
            return
        if event.chat_id is None and message_id != self.reply_id:
            return
        raise UpstreamFailure(Transient("the answer was cancelled on the site"), Fate.ACCEPTED)

    def _take_job(self, event: PushEvent) -> None:
        """The end of a job is a hint: events of an earlier turn's job come late, and say the same."""
        state = event.data.get("state")
        ended = isinstance(state, str) and (
            state.lower() in self._protocol.job_done_states or state.lower().startswith(("error", "fail"))
        )
        job = _job_id(event)
        if not ended or self.done or (self._job is not None and job is not None and job != self._job):
            return
        self.wants_reread = True
        self._job_over = self._job is not None and job == self._job

    def _take_cost(self, event: PushEvent) -> None:
        trigger = trigger_of(event.data)
        if trigger is not None and self._is_of_earlier_turn(trigger):
            return
        if (points := cost_points(event.data)) is not None:
            self.points = points


def _job_id(event: PushEvent) -> str | None:
    value = event.data.get("jobId", event.data.get("id"))
    return str(value) if isinstance(value, str | int) else None
