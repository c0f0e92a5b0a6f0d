"""Tokens of texts, prompts, images and answers: counted by a vocabulary, and estimated by length."""

from __future__ import annotations

import base64
import struct
import subprocess
import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.chat import estimate
from poe_gateway.chat.request import ChatRequest, ImagePart, Message, OutputFormat, TextPart, Tool, ToolCall
from poe_gateway.chat.tokens import Tokenizer, answer_tokens, prompt_tokens
from poe_gateway.chat.tokens.images import image_tokens, size_of, tiles
from poe_gateway.chat.tokens.tokenizer import EXACT

WORDS = Tokenizer()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "description": "Where"}}, "required": ["city"]}
TEXTS = st.text(max_size=200)
ANYTHING = st.text(alphabet=st.characters(categories=("Cs", "L", "N", "P", "Z", "So")), max_size=60)


def request(*turns: Message, **fields: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=turns, **fields)


def user(text: str, **fields: Any) -> Message:
    return Message("user", (TextPart(text),), **fields)


# Known lengths, by OpenAI's own tokenizer.


@pytest.mark.parametrize(
    ("encoding", "text", "tokens"),
    [
        ("o200k_base", "", 0),
        ("o200k_base", "hello world", 2),
        ("o200k_base", "tiktoken is great!", 6),
        ("cl100k_base", "tiktoken is great!", 6),
        ("cl100k_base", "antidisestablishmentarianism", 6),
        ("o200k_base", "お誕生日おめでとう", 8),
        ("cl100k_base", "お誕生日おめでとう", 9),
        ("o200k_base", "2 + 2 = 4", 7),
        ("o200k_base", "<|endoftext|>", 7),
    ],
    ids=["nothing", "two", "o200k", "cl100k", "long-word", "japanese-o200k", "japanese-cl100k", "sum", "special"],
)
def test_texts_have_the_tokens_that_openai_counts(encoding: str, text: str, tokens: int) -> None:
    assert Tokenizer(encoding).count(text) == tokens


@given(ANYTHING)
def test_every_text_can_be_counted_lone_surrogates_too(text: str) -> None:
    assert (WORDS.count(text) == 0) == (text == "")
    assert WORDS.count(text) <= 4 * len(text)


@pytest.mark.parametrize("times", [1, 2, 7])
def test_a_long_text_is_counted_by_a_sample(times: int) -> None:
    line = "The quick brown fox jumps over the lazy dog, 42 times.\n"
    whole = line * (times * EXACT // len(line) + 1)
    exact = WORDS.count(line) * (len(whole) // len(line))
    assert len(whole) > EXACT and abs(WORDS.count(whole) - exact) < 0.02 * exact


def test_it_counts_in_a_process_that_can_open_neither_sockets_nor_files_of_its_own() -> None:
    script = """
import sys
from poe_gateway.chat.tokens import Tokenizer
def refuse(event, args):
    if event.startswith("socket.") or (event == "open" and "poe_gateway" not in str(args[0])):
        raise PermissionError(event)
sys.addaudithook(refuse)
print(Tokenizer().count("hello world"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("2", "")


# Prompts.


def test_the_framing_of_messages_is_openais() -> None:
    # The example of OpenAI's cookbook, whose API tells 124 tokens for it.
    system = "You are a helpful, pattern-following assistant that translates corporate jargon into plain English."
    example = [
        Message("system", (TextPart(system),)),
        Message("system", (TextPart("New synergies will help drive top-line growth."),), name="example_user"),
        Message("system", (TextPart("Things working well together will increase revenue."),), name="example_assistant"),
        Message(
            "system",
            (
                TextPart(
                    "Let's circle back when we have more bandwidth to touch base on opportunities for increased "
                    "leverage."
                ),
            ),
            name="example_user",
        ),
        Message(
            "system",
            (TextPart("Let's talk later when we're less busy about how to do better."),),
            name="example_assistant",
        ),
        user("This late pivot means we don't have time to boil the ocean for the client deliverable."),
    ]
    assert prompt_tokens(request(*example), WORDS.count) == 124


def test_tools_schemas_calls_and_names_count() -> None:
    bare = prompt_tokens(request(user("Hi")), WORDS.count)
    tool = Tool(name="weather", description="The weather of a city", parameters=SCHEMA)
    calls = (ToolCall("call_1", "weather", '{"city":"Oslo"}'),)
    form = OutputFormat(kind="json_schema", name="answer", schema=SCHEMA)
    fuller = [
        request(user("Hi"), tools=(tool,)),
        request(user("Hi"), tools=(tool, Tool(name="time"))),
        request(user("Hi"), output=form),
        request(user("Hi", name="Ada")),
        request(user("Hi"), Message("assistant", (), tool_calls=calls)),
    ]
    counts = [prompt_tokens(each, WORDS.count) for each in fuller]
    assert all(count > bare for count in counts) and counts[1] > counts[0]
    schema = WORDS.count(orjson.dumps(SCHEMA).decode())
    assert counts[2] == bare + schema + WORDS.count("answer")
    assert prompt_tokens(request(user("Hi"), output=OutputFormat(kind="json_object")), WORDS.count) == bare


def test_embeddings_count_texts_and_ids_and_nothing_around_them() -> None:
    asked = request(user("hello world"), operation="embed", inputs=("hello world", (1, 2, 3)))
    assert prompt_tokens(asked, WORDS.count) == 5
    assert prompt_tokens(request(user("hello world"), operation="image"), WORDS.count) == 2


def test_a_huge_prompt_of_many_turns_is_counted_by_a_sample_too() -> None:
    counted: list[int] = []

    def count(text: str) -> int:
        counted.append(len(text))
        return WORDS.count(text)

    turn = user("The quick brown fox jumps over the lazy dog. " * 100)
    many = request(*[turn] * 100)
    total = prompt_tokens(many, count)
    assert len(counted) == 1 and abs(total - 100 * (WORDS.count(turn.text) + 4)) < 0.02 * total


def test_answers_count_texts_of_every_kind_and_calls() -> None:
    assert answer_tokens(["hello world", "", "hello"], [], WORDS.count) == 3
    assert answer_tokens([], [], WORDS.count) == 0
    call = ToolCall("call_1", "weather", '{"city":"Oslo"}')
    assert answer_tokens([""], [call], WORDS.count) > WORDS.count("weather" + call.arguments)


# What JSON cannot hold.

DEEP: dict[str, Any] = {"leaf": "word"}
for _ in range(5000):
    DEEP = {"properties": DEEP}


@pytest.mark.parametrize(
    "schema",
    [{"enum": ["\ud800"]}, {"const": 10**5000}, {"maximum": 2**80}, DEEP, {}, None],
    ids=["surrogate", "enormous", "beyond-64-bits", "deep", "empty", "none"],
)
def test_odd_schemas_are_counted(schema: dict[str, Any] | None) -> None:
    odd = request(user("Hi"), tools=(Tool(name="t", parameters=schema),))
    assert prompt_tokens(odd, WORDS.count) > 0 and estimate.prompt_tokens(odd) >= 2


# Estimates.


def test_estimates_are_a_quarter_of_the_characters_of_everything() -> None:
    image = Message("user", (TextPart("12345678"), ImagePart("https://example.com/a.png"), TextPart("1")))
    assert estimate.prompt_tokens(request(image)) == 3 + 85
    tool = Tool(name="four", description="four", parameters={})
    assert estimate.prompt_tokens(request(user("1234"), tools=(tool,))) == 1 + 3
    form = OutputFormat(kind="json_schema", schema={"type": "object"})
    assert estimate.prompt_tokens(request(user("1234"), output=form)) == 1 + 5
    call = Message("assistant", (), tool_calls=(ToolCall("id", "four", "1234"),))
    assert estimate.prompt_tokens(request(call)) == 2
    assert estimate.prompt_tokens(request(operation="embed", inputs=((1, 2, 3),))) == 3
    assert [estimate.tokens(count) for count in (0, 1, 4, 5)] == [0, 1, 1, 2]


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), TEXTS), max_size=5))
def test_the_estimate_of_common_words_is_no_more_than_a_few_times_off(turns: list[tuple[Any, str]]) -> None:
    plain = request(*[Message(role, (TextPart("word " * len(text)),)) for role, text in turns])
    counted, estimated = prompt_tokens(plain, WORDS.count), estimate.prompt_tokens(plain)
    assert estimated <= 2 * counted and counted <= 2 * estimated + 5 * len(turns) + 3


# Images.


def data(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x06\0\0\0" + b"\0" * 40


def jpeg(width: int, height: int, notes: int = 0) -> bytes:
    note = b"\xff\xe1" + struct.pack(">H", notes + 2) + b"\0" * notes if notes else b""
    tables = b"\xff\xc4" + struct.pack(">H", 5) + b"abc"
    return b"\xff\xd8" + note + tables + b"\xff\xff\xc2" + struct.pack(">HBHH", 17, 8, height, width) + b"\0" * 20


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0" * 20


def webp(kind: bytes, width: int, height: int) -> bytes:
    head = b"RIFF\0\0\0\0WEBP" + kind + b"\0\0\0\0"
    if kind == b"VP8X":
        return head + b"\0" * 4 + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    if kind == b"VP8L":
        return head + b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14)
    return head + b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)


@pytest.mark.parametrize(
    "content",
    [
        png(640, 480),
        jpeg(640, 480),
        jpeg(640, 480, notes=60_000),
        gif(640, 480),
        webp(b"VP8X", 640, 480),
        webp(b"VP8L", 640, 480),
        webp(b"VP8 ", 640, 480),
    ],
    ids=["png", "jpeg", "jpeg-with-notes", "gif", "webp-extended", "webp-lossless", "webp"],
)
def test_the_size_of_a_picture_is_read_from_its_beginning(content: bytes) -> None:
    assert size_of(data(content)) == (640, 480)
    assert image_tokens(ImagePart(data(content))) == 85 + 2 * 170


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [(1024, 1024, 765), (2048, 4096, 1105), (512, 512, 255), (513, 512, 425), (1, 1, 255), (1, 10**6, 85 + 4 * 170)],
    ids=["square", "tall", "one-tile", "two-tiles", "dot", "line"],
)
def test_tiles_are_openais(width: int, height: int, tokens: int) -> None:
    assert tiles(width, height) * 170 + 85 == tokens
    assert image_tokens(ImagePart(data(png(width, height)), "high")) == tokens
    assert image_tokens(ImagePart(data(png(width, height)), "low")) == 85


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png",
        "data:,",
        "data:image/png;base64,",
        "data:image/png;base64,@@@@",
        "data:image/png;base64,\u00fc\u00fc\u00fc\u00fc",
        data(b"\x89PNG\r\n\x1a\n"),
        data(png(0, 100)),
        data(jpeg(640, 480)[:12]),
        data(b"\xff\xd8" + b"\0" * 50),
        data(webp(b"VP8X", 9, 9)[:26]),
        data(webp(b"ALPH", 9, 9)),
        data(b"just text"),
    ],
    ids=[
        *("address", "empty-url", "empty", "no-base64", "no-ascii", "cut-png", "no-width", "cut-jpeg", "bad-jpeg"),
        *("cut-webp", "odd-webp", "text"),
    ],
)
def test_a_picture_of_unknown_size_counts_as_a_middling_one(url: str) -> None:
    assert size_of(url) is None and image_tokens(ImagePart(url)) == 765


@given(st.binary(max_size=80), st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF1234WEBPVP8X"]))
def test_no_bytes_break_the_reading_of_sizes(content: bytes, head: bytes) -> None:
    assert image_tokens(ImagePart(data(head + content))) >= 85
