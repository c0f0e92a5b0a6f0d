"""The shelf: what a request goes on from, what is kept, and whose it is. On the store in memory."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from poe_gateway.auth.keys import Principal
from poe_gateway.chat.events import ChatEvent, ImageMade, ReasoningDelta, TextDelta, ToolCallDelta
from poe_gateway.chat.history import answered, digests, new_turns
from poe_gateway.chat.request import ChatRequest, ToolCall
from poe_gateway.chat.responses.echo import echo_of
from poe_gateway.clock import Ids, SystemClock
from poe_gateway.conversations.memory import MemoryKept
from poe_gateway.conversations.shelf import Shelf
from poe_gateway.errors import InvalidRequest, NotFound, RequestTooLarge, Unavailable
from poe_gateway.vault import Vault, new_key
from tests.support.responses import asked, head_of, reply_of

ANN, BOB = Principal(key_id="key_ann", name="ann", org="one"), Principal(key_id="key_bob", name="bob", org="one")
DAY = 86_400.0
CALL = ToolCallDelta(({"index": 0, "id": "c1", "function": {"name": "add", "arguments": "{}"}},))


class Sky(SystemClock):
    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> Any:
        return super().now() + timedelta(seconds=self.ahead)


class Ground:
    """A shelf with its store, and a caller who asks and is answered."""

    def __init__(self, **terms: Any) -> None:
        self.sky = Sky()
        self.store = MemoryKept(self.sky)
        self.keys = (new_key(),)
        self.ids = Ids(7)
        self.told: list[str] = []
        self.shelf = self.opened_with(*self.keys, **terms)

    def opened_with(self, *keys: str, **terms: Any) -> Shelf:
        given = {"store": self.store, "vault": Vault(keys), "ids": self.ids, "ttl": 30 * DAY, "lost": self.told.append}
        return Shelf(**{**given, **terms})

    async def ask(self, caller: Principal = ANN, *events: ChatEvent, **body: Any) -> tuple[str, ChatRequest]:
        """The id of the answer, and the request as it was sent on."""
        request = await self.shelf.recall(caller, asked(**{"store": True, **body}))
        head = head_of(request, self.ids.new("resp", 24))
        reply = reply_of(head, events or [TextDelta("A")])
        assert await self.shelf.keep(caller, reply) is echo_of(request).store
        return head.id, request


def turns(request: ChatRequest) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in request.messages]


async def test_a_conversation_goes_on() -> None:
    ground = Ground()
    first, _ = await ground.ask(ANN, TextDelta("one"), input="1?", instructions="Count.")
    second, request = await ground.ask(ANN, TextDelta("two"), input="2?", previous_response_id=first)
    assert turns(request) == [("user", "1?"), ("assistant", "one"), ("user", "2?")], "instructions are not carried over"
    _, request = await ground.ask(ANN, input="3?", instructions="Rhyme.", previous_response_id=second)
    assert turns(request) == [
        ("system", "Rhyme."),
        ("user", "1?"),
        ("assistant", "one"),
        ("user", "2?"),
        ("assistant", "two"),
        ("user", "3?"),
    ]
    assert ground.store.table[second][0].path == (first,)


async def test_a_conversation_may_go_on_in_two_ways() -> None:
    ground = Ground()
    first, _ = await ground.ask(input="1?")
    left, _ = await ground.ask(input="L?", previous_response_id=first)
    await ground.ask(input="R?", previous_response_id=first)
    _, request = await ground.ask(input="L2?", previous_response_id=left)
    assert [text for role, text in turns(request) if role == "user"] == ["1?", "L?", "L2?"]


async def test_calls_and_their_outputs_go_on() -> None:
    ground = Ground()
    tools = [{"type": "function", "name": "add"}]
    events: list[ChatEvent] = [ReasoningDelta("hm"), TextDelta("I add."), CALL]
    first, _ = await ground.ask(ANN, *events, tools=tools)
    output = {"type": "function_call_output", "call_id": "c1", "output": "2"}
    _, request = await ground.ask(input=[output], previous_response_id=first, tools=tools)
    assert request.messages[1].tool_calls == (ToolCall("c1", "add", "{}"),)
    assert request.messages[1].extra == {"reasoning_content": "hm"}
    assert request.messages[2].tool_call_id == "c1"
    with pytest.raises(InvalidRequest) as caught:
        await ground.ask(input=[{**output, "call_id": "c2"}], previous_response_id=first)
    assert caught.value.param == "input[0].call_id"


async def test_pictures_that_were_made_are_not_told_again() -> None:
    ground = Ground()
    first, _ = await ground.ask(ANN, TextDelta("Here:"), ImageMade(base64="QUJD"), input="Draw.")
    _, request = await ground.ask(input="Another.", previous_response_id=first)
    assert turns(request) == [("user", "Draw."), ("assistant", "Here:"), ("user", "Another.")]
    with pytest.raises(InvalidRequest):
        await ground.ask(input=[{"type": "item_reference", "id": first.replace("resp", "ig")}])


async def test_the_session_goes_on_with_its_conversation() -> None:
    """The upstream's conversation is found again, and only the new turn is sent there."""
    ground = Ground()
    first, asked_first = await ground.ask(ANN, TextDelta("one"), input="1?")
    assert asked_first.session_id is not None and not asked_first.session_explicit
    _, other = await ground.ask(input="1?")
    assert other.session_id != asked_first.session_id
    _, second = await ground.ask(input="2?", previous_response_id=first, store=False, user="u")
    assert (second.session_id, second.session_explicit) == (asked_first.session_id, False)
    rest = new_turns(second, (*digests(asked_first.messages), answered("one")))
    assert rest is not None and [message.text for message in rest] == ["2?"]


async def test_a_session_that_the_caller_names_is_his() -> None:
    ground = Ground()
    first, request = await ground.ask(metadata={"session_id": "mine"})
    assert (request.session_id, request.session_explicit) == ("mine", True)
    _, request = await ground.ask(previous_response_id=first)
    assert (request.session_id, request.session_explicit) == ("mine", False)
    _, request = await ground.ask(previous_response_id=first, metadata={"session_id": "new"})
    assert (request.session_id, request.session_explicit) == ("new", True)
    _, request = await ground.ask(user="u")
    assert request.session_id == "u"


async def test_what_is_not_to_be_kept_costs_nothing() -> None:
    ground = Ground()
    ground.store.away = True
    request = asked()
    assert await ground.shelf.recall(ANN, request) is request
    assert not await ground.shelf.keep(ANN, reply_of(head_of(request), [TextDelta("A")]))
    assert ground.told == []


async def test_to_others_it_does_not_exist() -> None:
    ground = Ground()
    first, _ = await ground.ask(ANN)
    for previous in (first, "resp_unknown", "", "\x00"):
        if previous:
            with pytest.raises(InvalidRequest) as caught:
                await ground.ask(BOB, previous_response_id=previous)
            assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")
        with pytest.raises(NotFound):
            await ground.shelf.find(BOB, previous)
        with pytest.raises(NotFound):
            await ground.shelf.drop(BOB, previous)
    with pytest.raises(NotFound):
        await ground.ask(BOB, input=[{"type": "item_reference", "id": first.replace("resp", "msg")}])
    assert (await ground.shelf.find(ANN, first)).response["id"] == first


async def test_it_stays_as_long_as_it_is_gone_on_from() -> None:
    ground = Ground()
    first, _ = await ground.ask(input="1?")
    second, _ = await ground.ask(input="2?", previous_response_id=first)
    ground.sky.ahead = 20 * DAY
    third, _ = await ground.ask(input="3?", previous_response_id=second)
    alone, _ = await ground.ask()
    ground.sky.ahead = 45 * DAY
    _, request = await ground.ask(input="4?", previous_response_id=third)
    assert [text for role, text in turns(request) if role == "user"] == ["1?", "2?", "3?", "4?"]
    ground.sky.ahead = 51 * DAY
    with pytest.raises(NotFound):
        await ground.shelf.find(ANN, alone)
    await ground.shelf.find(ANN, first)
    ground.sky.ahead = 76 * DAY
    for gone in (first, third):
        with pytest.raises(InvalidRequest):
            await ground.ask(previous_response_id=gone)


async def test_what_went_on_from_a_deleted_response_goes_on() -> None:
    ground = Ground()
    first, _ = await ground.ask(ANN, TextDelta("one"), input="1?")
    second, _ = await ground.ask(previous_response_id=first, input="2?")
    await ground.shelf.drop(ANN, first)
    third, request = await ground.ask(previous_response_id=second, input="3?")
    assert [text for role, text in turns(request) if role == "user"] == ["1?", "2?", "3?"]
    await ground.shelf.drop(ANN, second)
    _, request = await ground.ask(previous_response_id=third, input="4?", store=False)
    assert [text for role, text in turns(request) if role == "user"] == ["1?", "2?", "3?", "4?"]
    await ground.shelf.drop(ANN, third)
    assert ground.store.table == {}, "the words go with the last that goes on from them"


async def test_a_deleted_response_is_not_there_any_more() -> None:
    ground = Ground()
    first, _ = await ground.ask(input="1?")
    await ground.ask(previous_response_id=first)
    await ground.shelf.drop(ANN, first)
    for call in (
        ground.shelf.find(ANN, first),
        ground.shelf.drop(ANN, first),
        ground.shelf.recall(ANN, asked(input=[{"type": "item_reference", "id": first.replace("resp", "msg")}])),
    ):
        with pytest.raises(NotFound):
            await call  # type: ignore[misc]
    with pytest.raises(InvalidRequest) as caught:
        await ground.ask(previous_response_id=first)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


async def test_what_goes_on_from_a_response_that_was_deleted_meanwhile_cannot_be_continued() -> None:
    ground = Ground()
    first, _ = await ground.ask(input="1?")
    request = await ground.shelf.recall(ANN, asked(store=True, previous_response_id=first))
    await ground.shelf.drop(ANN, first)
    head = head_of(request, ground.ids.new("resp", 24))
    assert await ground.shelf.keep(ANN, reply_of(head, [TextDelta("A")]))
    assert (await ground.shelf.find(ANN, head.id)).response["id"] == head.id
    with pytest.raises(InvalidRequest) as caught:
        await ground.ask(previous_response_id=head.id)
    assert caught.value.code == "previous_response_not_found"


async def test_nothing_is_said_outside_of_the_seal() -> None:
    ground = Ground()
    first, _ = await ground.ask(
        ANN,
        TextDelta("canary-answer"),
        input="canary-input",
        instructions="canary-instructions",
        metadata={"session_id": "canary-session"},
        user="canary-user",
    )
    assert b"canary" not in repr(ground.store.table[first]).encode()


async def test_sealed_by_an_older_key_it_still_opens() -> None:
    ground = Ground()
    first, _ = await ground.ask()
    newer = new_key()
    ground.shelf = ground.opened_with(newer, *ground.keys)
    second, _ = await ground.ask(previous_response_id=first)
    assert ground.store.table[second][0].kid != ground.store.table[first][0].kid
    ground.shelf = ground.opened_with(newer)
    with pytest.raises(NotFound):
        await ground.shelf.find(ANN, first)
    with pytest.raises(InvalidRequest):
        await ground.ask(previous_response_id=second)


@pytest.mark.parametrize("how", ["of another response", "of another key", "broken"])
async def test_what_was_tampered_with_is_not_there(how: str) -> None:
    ground = Ground()
    first, _ = await ground.ask(ANN, input="mine")
    other, _ = await ground.ask(BOB if how == "of another key" else ANN, input="his")
    kept, until = ground.store.table[first]
    seal = b"gAAAAAbroken" if how == "broken" else ground.store.table[other][0].sealed
    ground.store.table[first] = (replace(kept, sealed=seal), until)
    with pytest.raises(NotFound):
        await ground.shelf.find(ANN, first)
    with pytest.raises(InvalidRequest):
        await ground.ask(previous_response_id=first)


async def test_with_the_database_away_it_is_not_kept_and_nobody_is_told_that_it_is_not_there() -> None:
    ground = Ground()
    first, _ = await ground.ask()
    ground.store.away = True
    request = asked(store=True)
    assert not await ground.shelf.keep(ANN, reply_of(head_of(request), [TextDelta("A")]))
    assert ground.told == ["a response could not be kept"]
    for call in (
        ground.shelf.recall(ANN, asked(previous_response_id=first)),
        ground.shelf.recall(ANN, asked(input=[{"type": "item_reference", "id": "msg_x"}])),
        ground.shelf.find(ANN, first),
        ground.shelf.drop(ANN, first),
    ):
        with pytest.raises(Unavailable):
            await call  # type: ignore[misc]


async def test_a_conversation_has_an_end() -> None:
    ground = Ground(longest=2)
    first, _ = await ground.ask()
    second, _ = await ground.ask(previous_response_id=first)
    third, _ = await ground.ask(previous_response_id=second)
    with pytest.raises(RequestTooLarge) as caught:
        await ground.ask(previous_response_id=third)
    assert caught.value.param == "previous_response_id"
    weight = ground.store.table[second][0].weight
    assert weight == sum(len(ground.store.table[each][0].sealed) for each in (first, second))
    ground.shelf = ground.opened_with(*ground.keys, heaviest=weight)
    await ground.ask(previous_response_id=second)
    ground.shelf = ground.opened_with(*ground.keys, heaviest=weight - 1)
    with pytest.raises(RequestTooLarge):
        await ground.ask(previous_response_id=second)


async def test_an_answer_too_large_for_a_document_is_not_kept() -> None:
    ground = Ground()
    request = asked(store=True, input="x" * 12_000_000)
    assert not await ground.shelf.keep(ANN, reply_of(head_of(request), [TextDelta("A")]))
    assert ground.store.table == {}


async def test_items_may_be_named_instead_of_sent() -> None:
    ground = Ground()
    first, _ = await ground.ask(ANN, TextDelta("one"), CALL, input=[{"role": "user", "content": "1?", "id": "mine"}])
    mark = first.removeprefix("resp_")
    items: list[dict[str, Any]] = [
        {"role": "user", "content": "1?"},
        {"type": "item_reference", "id": f"msg_{mark}"},
        {"id": f"fc_{mark}"},
        {"type": "function_call_output", "call_id": "c1", "output": "2"},
    ]
    second, request = await ground.ask(input=items)
    assert turns(request) == [("user", "1?"), ("assistant", "one"), ("tool", "2")]
    assert request.messages[1].tool_calls == (ToolCall("c1", "add", "{}"),)
    kept = (await ground.shelf.find(ANN, second)).items
    assert [item["type"] for item in kept] == ["message", "message", "function_call", "function_call_output"]
    for unknown in (f"msg_{mark}_9", "msg_other", "mine", "x" * 256):
        with pytest.raises(NotFound) as caught:
            await ground.ask(input=[*items[:1], {"type": "item_reference", "id": unknown}])
        assert (caught.value.code, caught.value.param) == ("item_not_found", "input[1]")
        assert len(caught.value.message) < 300


async def test_every_item_of_the_input_has_an_id_of_its_own() -> None:
    ground = Ground()
    said = {"role": "user", "content": "x"}
    first, _ = await ground.ask(input=[{**said, "id": "a"}, {**said, "id": "a"}, said, said])
    ids = [item["id"] for item in (await ground.shelf.find(ANN, first)).items]
    assert ids[0] == "a" and len(set(ids)) == 4
