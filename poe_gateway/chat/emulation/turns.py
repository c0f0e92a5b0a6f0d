"""The conversation as a model that only chats is given it: instructions, earlier calls and results as text. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b

from msgspec.structs import replace

from poe_gateway.chat import history
from poe_gateway.chat.emulation import instructions, markup, reading
from poe_gateway.chat.emulation.plan import Emulation
from poe_gateway.chat.request import ChatRequest, Message, Part, TextPart

_OWN_ID = re.compile(r"call_[0-9a-f]{20}_([0-9]{1,4})")


def call_id(request: ChatRequest, salt: str, place: int) -> str:
    """Id of a call of the answer to this request; ``salt`` is unlike for any other request, or empty.

    The place (from 0) is in it, since a result may come back without the call that it is of.
    """
    hasher = blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=10)
    if not salt:
        hasher.update("".join(history.digests(request.messages)).encode())
    return f"call_{hasher.hexdigest()}_{place}"


def asked(request: ChatRequest, emulation: Emulation) -> ChatRequest:
    """The request with everything emulated moved into its messages."""
    if not emulation.by_prompt:
        return request
    changes: dict[str, object] = {}
    messages = list(request.messages)
    if emulation.offer is not None:
        messages = _in_words(messages)
        changes |= {"tools": (), "tool_choice": None, "parallel_tool_calls": None}
    if emulation.output is not None:
        changes["output"] = None
    place = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    messages.insert(place, Message("system", (TextPart(instructions.told(emulation)),)))
    return replace(request, messages=tuple(messages), **changes)


def corrected(asked: ChatRequest, said: str, problem: str, emulation: Emulation, *, goes_on: bool) -> ChatRequest:
    """The second try after an answer that cannot be used. ``goes_on``: the upstream holds all turns so far."""
    turn = Message("user", (TextPart(instructions.correction(problem, emulation)),))
    if goes_on:
        return replace(asked, messages=(turn,))
    own = (Message("assistant", (TextPart(said),)),) if said.strip() else ()
    return replace(asked, messages=(*asked.messages, *own, turn))


def _in_words(messages: Iterable[Message]) -> list[Message]:
    """Calls as the model would have written them, results as turns of the user."""
    written: list[Message] = []
    known: dict[str, tuple[int, str]] = {}
    """Place and tool of the calls of the last turn that had any."""
    results: list[Message] = []
    for message in messages:
        if message.role == "tool":
            results.append(message)
            continue
        if results:
            written.append(_results(results, known))
            results = []
        if message.tool_calls:
            known = {call.id: (place, call.name) for place, call in enumerate(message.tool_calls)}
            written.append(_calls(message))
        else:
            written.append(message)
    if results:
        written.append(_results(results, known))
    return written


def _calls(message: Message) -> Message:
    lines = []
    for call in message.tool_calls:
        try:
            arguments = reading.whole(call.arguments or "{}")
        except reading.NotJSON:
            arguments = call.arguments
        lines.append(markup.call(call.name, arguments))
    text = "\n".join(lines)
    parts: tuple[Part, ...] = (*message.parts, TextPart(f"\n{text}" if message.text else text))
    return replace(message, parts=parts, tool_calls=())


def _results(results: list[Message], known: dict[str, tuple[int, str]]) -> Message:
    """Results that came together, in the order of their calls; pictures stay where they are."""
    placed: list[tuple[int, str, Message]] = []
    for at, message in enumerate(results):
        place, name = known.get(message.tool_call_id or "", (at, message.name or ""))
        own = _OWN_ID.fullmatch(message.tool_call_id or "") if message.tool_call_id not in known else None
        placed.append((place if own is None else int(own.group(1)), name, message))
    placed.sort(key=lambda each: each[0])
    parts: list[Part] = []
    for place, name, message in placed:
        between = "\n" if parts else ""
        parts.append(TextPart(between + markup.result_begin(place + 1, name)))
        parts.extend([markup.inside(part) for part in message.parts])
        parts.append(TextPart(markup.RESULT_END))
    return Message("user", tuple(parts))
