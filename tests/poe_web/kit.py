"""What the tests of the adapter share: an impatient adapter in front of the emulated site, and a way to ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from poe_gateway.chat.events import Bound, ChatEvent, Finished, Measured, TextDelta, TextReplaced
from poe_gateway.chat.request import ChatRequest, Message, TextPart
from poe_gateway.clock import Ids, SystemClock
from poe_gateway.upstreams.base import AccountRef, UpstreamFailure
from poe_gateway.upstreams.http import new_session
from poe_gateway.upstreams.poe_web import PoeOptions, PoeWeb

QUICK = PoeOptions(
    request_timeout=5.0,
    silence=0.4,
    stall=1.5,
    first_event=2.0,
    cost_wait=0.4,
    job_grace=0.1,
    reconnect_delay=0.02,
    reconnect_delay_max=0.1,
    cancel_timeout=2.0,
)


def ref(account: Any, *, rev: int = 0, drop: tuple[str, ...] = (), **more: Any) -> AccountRef:
    """The emulated account as the gateway would hand it over."""
    cookies = account.cookies
    credentials = {
        "poe_p_b": cookies["p-b"],
        "p_lat": cookies["p-lat"],
        "user_agent": account.user_agent,
        **({"poe_cf_clearance": cookies["cf_clearance"]} if "cf_clearance" in cookies else {}),
        **more,
    }
    for name in drop:
        credentials.pop(name)
    return AccountRef(
        id=account.email, name=account.email, offer="poe_web", credentials=credentials, credential_rev=rev
    )


def user(text: str, *parts: Any) -> Message:
    return Message("user", (TextPart(text), *parts))


def request(*messages: Message | str, session: str | None = None) -> ChatRequest:
    turns = tuple(user(message) if isinstance(message, str) else message for message in messages)
    return ChatRequest(model="GPT-4o-Mini", messages=turns, session_id=session)


class Said:
    """Everything one answer consisted of."""

    def __init__(self) -> None:
        self.events: list[ChatEvent] = []
        self.failure: UpstreamFailure | None = None

    @property
    def text(self) -> str:
        text = ""
        for event in self.events:
            if isinstance(event, TextDelta):
                text += event.text
            elif isinstance(event, TextReplaced):
                text = event.text
        return text

    @property
    def bound(self) -> Mapping[str, Any] | None:
        return next((event.state for event in self.events if isinstance(event, Bound)), None)

    @property
    def points(self) -> int | None:
        return next((event.points for event in reversed(self.events) if isinstance(event, Measured)), None)

    @property
    def finished(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Finished)

    @property
    def outcome(self) -> Any:
        return self.failure.outcome if self.failure else None

    @property
    def fate(self) -> str | None:
        return self.failure.fate if self.failure else None


async def ask(
    poe: PoeWeb,
    account: AccountRef,
    what: str | ChatRequest,
    *,
    bound: Mapping[str, Any] | None = None,
    model: str = "GPT-4o-Mini",
    session: str | None = None,
) -> Said:
    """One whole exchange; a failure is kept, not raised."""
    said = Said()
    asked = request(what, session=session) if isinstance(what, str) else what
    try:
        async for event in poe.chat(account, model, asked, bound):
            said.events.append(event)
    except UpstreamFailure as failure:
        said.failure = failure
    return said


@asynccontextmanager
async def adapter(emulator: Any, *, options: PoeOptions = QUICK, **more: Any) -> AsyncIterator[PoeWeb]:
    """An adapter for the emulated site; closed at the end."""
    poe = PoeWeb(
        session=new_session,
        clock=SystemClock(),
        ids=Ids(),
        base_url=emulator.base_url,
        ws_base_url=emulator.ws_base_url,
        options=options,
        **more,
    )
    try:
        yield poe
    finally:
        await poe.close()


def tuned(**changes: Any) -> PoeOptions:
    return msgspec.structs.replace(QUICK, **changes)
