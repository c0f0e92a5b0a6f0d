"""How one answer (or one request) is made to go: a frozen script, from Python, over control or by marker.

A marker is written into the query itself, ``[[name]]`` or ``[[name:value]]``, so that a test which only
reaches the gateway's public API can still choose what the site does. Markers are looked for in the whole
query; later ones win.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

Ending = Literal["complete", "truncated", "error"]

ERROR_STATES = ("error_user_message_too_long", "error_insufficient_fund", "error_unknown")
STATUSES = (
    "reached_limit",
    "too_many_tokens",
    "no_access",
    "rate_limit_exceeded",
    "concurrent_messages",
    "unsupported_file_type",
    "file_too_large",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What happens to one message. Delays are seconds; `*_after` counts answer updates."""

    chunks: int = 4
    """Updates that carry a growing text before the final one."""
    chunk_delay: float = 0.005
    first_delay: float = 0.01
    """From the mutation's answer to the first event."""
    answer: str | None = None
    """Fixed text instead of ``echo: <query>``; "" is an empty answer."""
    repeat: int = 1
    """The answer text, this many times (long answers)."""
    attach: str = ""
    """A file of this name hangs on the answer. Of a bot that draws: its picture, which is not in the text then."""
    recall: bool = False
    """Answer with the human messages since the last chat break, to prove that a chat was continued."""
    replace: bool = False
    """The first half of the updates shows another text, which is then replaced."""
    ending: Ending = "complete"
    error_state: str = "error_unknown"
    error_text: str = "Something went wrong on our side."
    status: str = "success"
    """Status in the mutation's answer; anything but success means that no answer is produced."""
    status_message: str = ""
    missing_chat: bool = False
    """The mutation succeeds but names no chat, and nothing is stored."""
    fault: str = ""
    """A `Fault.kind` for the send itself: the message is not accepted."""
    fault_after: str = ""
    """The same, but the message was accepted and is being answered."""
    early: bool = False
    """Events are pushed before the mutation is answered."""
    hold: float = 0.0
    """Seconds by which the mutation's answer is kept back."""
    lost: bool = False
    """Nothing is pushed; the finished answer can only be read from the chat."""
    silent_after: int | None = None
    """Sockets go silent (open, delivering nothing) after so many updates."""
    drop_after: int | None = None
    """Sockets are cut after so many updates."""
    refetch_after: int | None = None
    """refetchChannel is pushed, and the channel expires, after so many updates."""
    batch: int = 1
    """Events per frame."""
    noise: bool = True
    """Uninteresting subscriptions between the interesting ones."""
    human: bool = True
    """The human message is pushed as well."""
    chat_break: bool = False
    status_lines: int = 0
    """Status lines by author pacarana before the answer."""
    late_title: bool = False
    """chatTitleUpdated is kept back and pushed as first event of the chat's next turn."""
    followups: int = 0
    """Suggested replies, sent as further messageAdded after complete."""
    job_events: bool = True
    cost: int | None = None
    """Points taken instead of the bot's price."""

    @classmethod
    def from_json(cls, values: dict[str, Any], base: Behaviour | None = None) -> Behaviour:
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise ValueError(f"no such behaviour: {', '.join(sorted(unknown))}")
        return replace(base or cls(), **values)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def with_markers(self, query: str) -> Behaviour:
        changed = self
        for name, value in _MARKER.findall(query):
            changed = _apply(changed, name.replace("_", "-"), value)
        return changed


@dataclass(slots=True)
class Fault:
    """A request that goes wrong before the site looks at it.

    kind: ``http:<status>``, ``challenge`` (header and page), ``challenge:title`` (page only),
    ``challenge:503`` (old JavaScript challenge), ``filtered`` (the same page for this one request: a filter took
    offence at its text, the account is not challenged; also ``filtered:title``), ``server-error``, ``not-success``,
    ``reset`` (connection reset), ``empty`` (200 without a body), ``html`` (200 with a web page), ``hang:<seconds>``
    (late, then as usual).
    where: an operation name, or page, settings, upload, socket; "" = any request.
    times: how many requests it strikes; None = until removed.
    """

    kind: str
    where: str = ""
    times: int | None = 1


_MARKER = re.compile(r"\[\[([a-z][a-z0-9_-]*)(?::([^\]]*))?\]\]")


def _apply(base: Behaviour, name: str, value: str) -> Behaviour:
    match name:
        case "chunks":
            return replace(base, chunks=int(value))
        case "delay":
            return replace(base, chunk_delay=float(value))
        case "first":
            return replace(base, first_delay=float(value))
        case "say":
            return replace(base, answer=value)
        case "empty":
            return replace(base, answer="")
        case "repeat":
            return replace(base, repeat=int(value))
        case "attach":
            return replace(base, attach=value or "picture.png")
        case "recall":
            return replace(base, recall=True)
        case "replace":
            return replace(base, replace=True)
        case "truncate":
            return replace(base, ending="truncated")
        case "error":
            return replace(base, ending="error", error_state=value or "error_unknown")
        case "status":
            return replace(base, status=value, status_message=f"refused by script: {value}")
        case "missing-chat":
            return replace(base, missing_chat=True)
        case "http":
            return replace(base, fault=f"http:{value or 500}")
        case "challenge":
            return replace(base, fault=f"challenge:{value}" if value else "challenge")
        case "server-error" | "not-success":
            return replace(base, fault=name)
        case "fault":
            return replace(base, fault=value)
        case "fault-after":
            return replace(base, fault_after=value)
        case "reset":
            return replace(base, fault_after="reset") if value == "after" else replace(base, fault="reset")
        case "early":
            return replace(base, early=True, hold=float(value) if value else 0.05)
        case "hold":
            return replace(base, hold=float(value))
        case "lost":
            return replace(base, lost=True)
        case "silent":
            return replace(base, silent_after=int(value or 1))
        case "drop":
            return replace(base, drop_after=int(value or 1))
        case "refetch":
            return replace(base, refetch_after=int(value or 1))
        case "batch":
            return replace(base, batch=int(value or 3))
        case "quiet":
            return replace(base, noise=False)
        case "break":
            return replace(base, chat_break=True)
        case "status-lines":
            return replace(base, status_lines=int(value or 2))
        case "late-title":
            return replace(base, late_title=True)
        case "followups":
            return replace(base, followups=int(value or 3))
        case "no-job":
            return replace(base, job_events=False)
        case "cost":
            return replace(base, cost=int(value))
        case _:
            return base
