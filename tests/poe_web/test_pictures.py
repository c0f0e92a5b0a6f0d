"""Pictures that bots make, and files that hang on their answers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.chat.events import ImageMade, TextDelta
from poe_gateway.chat.request import ChatRequest
from poe_gateway.dispatch.fitting import fit
from poe_gateway.errors import InvalidRequest
from poe_gateway.pool.outcome import Rejected
from poe_gateway.upstreams.base import Fate
from poe_gateway.upstreams.poe_web import PoeWeb
from poe_gateway.upstreams.poe_web.frames import PushEvent
from poe_gateway.upstreams.poe_web.messages import update_of
from poe_gateway.upstreams.poe_web.pictures import Attachment, appendix, attachments, made, no_picture
from poe_gateway.upstreams.poe_web.protocol import load_protocol
from poe_gateway.upstreams.poe_web.reply import Reply
from tests.poe_emulator.answers import picture_url
from tests.poe_web.kit import Said, ask, ref, user
from tests.poe_web.test_files import PNG

A, B = "https://pictures.test/base/image/a?w=1&h=2", "https://pictures.test/b.jpg"


def drawing(text: str, *images: Any, model: str = "Painter") -> ChatRequest:
    return ChatRequest(model=model, messages=(user(text, *images),), operation="image")


def urls(said: Said) -> list[str | None]:
    return [event.url for event in said.events if isinstance(event, ImageMade)]


async def draw(poe: PoeWeb, emulator: Any, text: str, *images: Any, model: str = "Painter") -> Said:
    return await ask(poe, ref(emulator.accounts[0]), drawing(text, *images, model=model), model=model)


@pytest.mark.parametrize(
    "prompt",
    ["a red cat", "a red cat [[lost]]", "a red cat [[replace]]", "a red cat [[early]]", "a red cat [[batch:9]]"],
)
async def test_the_picture_of_an_answer_is_told_and_nothing_else(poe: PoeWeb, emulator: Any, prompt: str) -> None:
    said = await draw(poe, emulator, prompt)
    assert said.finished and said.text == ""
    assert urls(said) == [picture_url(prompt)]
    assert emulator.stats.reasons() == []


async def test_the_price_of_a_picture_is_told(poe: PoeWeb, emulator: Any) -> None:
    assert (await draw(poe, emulator, "a red cat")).points == 150


@pytest.mark.parametrize("how", ["", " [[lost]]"])
async def test_a_picture_that_hangs_on_the_message_is_told(poe: PoeWeb, emulator: Any, how: str) -> None:
    said = await draw(poe, emulator, f"a red cat [[attach:cat.webp]]{how}")
    assert said.finished and urls(said) == [picture_url("cat.webp")]
    assert next(event.media_type for event in said.events if isinstance(event, ImageMade)) == "image/webp"


async def test_pictures_to_be_edited_are_uploaded(poe: PoeWeb, emulator: Any) -> None:
    said = await draw(poe, emulator, "make it blue", PNG)
    assert said.finished and urls(said) == [picture_url("make it blue")]
    assert emulator.accounts[0].stats.uploads == 1


async def test_a_bot_that_only_talks_is_the_callers_choice(poe: PoeWeb, emulator: Any) -> None:
    said = await draw(poe, emulator, "a red cat", model="GPT-4o-Mini")
    assert isinstance(said.outcome, Rejected) and said.fate is Fate.ACCEPTED
    assert said.outcome.code == "no_image" and said.outcome.status == 400 and said.outcome.model is None
    assert said.outcome.public == "The model made no picture. It answered: echo: a red cat"
    assert not said.finished and urls(said) == []


def test_what_bots_that_draw_can_be_asked_for() -> None:
    asked = drawing("a red cat", PNG)
    harmless = msgspec.structs.replace(asked, parameters={"n": 1, "size": "auto", "user": "u"})
    assert not fit(asked, PoeWeb.capabilities).emulated and not fit(harmless, PoeWeb.capabilities).dropped
    for name, value in (("n", 2), ("size", "1024x1024"), ("mask", "data:image/png;base64,AAAA")):
        with pytest.raises(InvalidRequest) as caught:
            fit(msgspec.structs.replace(asked, parameters={name: value}), PoeWeb.capabilities)
        assert caught.value.param == name


async def test_in_a_chat_the_text_of_a_bot_that_draws_stays_as_it_is(poe: PoeWeb, emulator: Any) -> None:
    said = await ask(poe, ref(emulator.accounts[0]), "a red cat", model="Painter")
    url = picture_url("a red cat")
    assert said.finished and said.text == f"![a red cat]({url})\n\n\n{url}" and urls(said) == []


@pytest.mark.parametrize("how", ["", "[[lost]]"])
async def test_what_hangs_on_an_answer_is_appended_to_its_text(poe: PoeWeb, emulator: Any, how: str) -> None:
    prompt = f"write it down [[attach:note.pdf]]{how}"
    said = await ask(poe, ref(emulator.accounts[0]), prompt)
    assert said.finished and said.text == f"echo: {prompt}\n\n[note.pdf]({picture_url('note.pdf')})"
    assert isinstance(said.events[-2], TextDelta)


async def test_an_answer_of_files_alone_is_an_answer(poe: PoeWeb, emulator: Any) -> None:
    said = await ask(poe, ref(emulator.accounts[0]), "[[empty]] only this [[attach:cat.png]]")
    assert said.finished and said.text == f"![cat.png]({picture_url('cat.png')})"


def test_files_that_are_told_apart_from_the_message_are_taken() -> None:
    reply = Reply(load_protocol(), set())
    reply.take(update_of({"messageId": 7, "author": "painter", "text": "Here:", "state": "incomplete"}))
    hung = [{"name": "cat.png", "url": A}]
    for message in (8, 7, 7):
        reply.take_event(PushEvent("messageAttachmentAdded", 1, {"messageId": message, "attachments": hung}))
        assert [each.url for each in reply.attachments] == ([A] if message == 7 else [])
    reply.take(update_of({"messageId": 7, "author": "painter", "text": "Here:", "state": "complete"}))
    assert reply.done


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("no picture here", []),
        (f"![a cat]({A})", [A]),
        (f"Here:\n\n![]({A})\n\n{A}", [A]),
        (f"![one]({A}) and ![two]({B} 'title')", [A, B]),
        (f"![one](<{A}>) ![again]({A})", [A]),
        (f"![image.png][ref1]\n\n[ref1]: {A}\n", [A]),
        (f"![x][Ref] ![y]({B})\n[ref]: <{A}>", [A, B]),
        (f"[a link]({A})", []),
        (f"![plain](http{A[5:]})", []),
        ("![script](javascript:alert(1)) ![data](data:image/png;base64,AAAA)", []),
        ("![x][nowhere]", []),
        (f"![a [[b] c]({A})", [A]),
        (f"![two\nlines]({A})", [A]),
        (f"![data](data:,x) [a link]({A})", []),
        (f"![data](data:,x)\n\n[a link]({A})", []),
        (f"![too long]({A}{'a' * 5000})", []),
    ],
    ids=range(17),
)
def test_pictures_of_a_text(text: str, found: list[str]) -> None:
    assert [image.url for image in made(text, ())] == found


@pytest.mark.parametrize(
    ("node", "picture", "media_type"),
    [
        ({"name": "a.png", "url": B, "mimeType": "image/jpeg"}, True, "image/jpeg"),
        ({"name": "a", "url": A, "file": {"mimeType": "image/webp; x=1"}}, True, "image/webp"),
        ({"name": "a", "file": {"url": A, "contentType": "IMAGE/PNG"}}, True, "image/png"),
        ({"name": "a", "url": A}, True, ""),
        ({"name": "a.gif", "url": "https://files.test/x"}, True, ""),
        ({"name": "a.pdf", "url": "https://files.test/x"}, False, ""),
        ({"name": "a.png", "url": A, "mimeType": "video/mp4"}, False, "video/mp4"),
        ({"name": "a.png", "url": "https://[broken/a.png"}, True, ""),
    ],
    ids=range(8),
)
def test_files_of_a_message(node: dict[str, Any], picture: bool, media_type: str) -> None:
    (attachment,) = attachments([node])
    assert attachment.is_picture is picture and attachment.media_type == media_type
    assert bool(made("", (attachment,))) is picture


@pytest.mark.parametrize(
    "value",
    [
        None,
        "x",
        {},
        [None],
        [{}],
        [{"name": "a"}],
        [{"url": 1}],
        [{"url": "ftp://x/y"}],
        [{"url": "https://" + "x" * 5000}],
    ],
    ids=range(9),
)
def test_what_is_no_file_is_passed_over(value: Any) -> None:
    assert attachments(value) == ()


def test_links_cannot_be_broken_out_of() -> None:
    evil = Attachment("https://files.test/a)b(c d", "x](https://elsewhere.test)[y\nz", "text/plain")
    assert appendix("Said.", (evil,)) == "\n\n[x (https://elsewhere.test) y z](https://files.test/a%29b%28c%20d)"


def test_long_words_of_a_bot_are_cut() -> None:
    assert len(no_picture("word " * 1000).public) < 400


@given(st.text(alphabet="![]()<>: \nhttps/a.png", max_size=200))
def test_any_text_is_read(text: str) -> None:
    assert all(image.url and image.url.startswith("https://") for image in made(text, ()))


@pytest.mark.parametrize("piece", ["![", "![](https://a", "[a]: ", "![a][", "![a](<https://", "\n\n", "]("])
def test_long_nonsense_is_read_in_one_go(piece: str) -> None:
    made(piece * 50_000, ())
