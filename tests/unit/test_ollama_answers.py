"""Answers in Ollama's dialect: whole, as lines, and as its own client reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.chat.dialect import Dialect
from poe_gateway.chat.events import (
    ChatEvent,
    Finished,
    ImageMade,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TextReplaced,
    ToolCallDelta,
)
from poe_gateway.chat.ollama import OllamaChat, OllamaEmbed, OllamaEmbeddings, OllamaGenerate
from poe_gateway.chat.ollama.answers import moment
from poe_gateway.chat.request import ToolCall
from poe_gateway.chat.usage import Usage
from poe_gateway.errors import InvalidRequest, UpstreamTimeout
from tests.unit.replies import head_of, reply_to

CHAT, GENERATE, EMBED, OLD_EMBED = OllamaChat(), OllamaGenerate(), OllamaEmbed(), OllamaEmbeddings()
ASKED = CHAT.parse(b'{"model":"m","messages":[{"role":"user","content":"hello"}]}')
CALL = ToolCall("call_1", "look", '{"at":\n "it"}')
PICTURE, LINK = ImageMade(base64="QUJD"), ImageMade(url="https://pictures.test/a")
FIGURES = {
    "done": True,
    "total_duration": 1_500_000_000,
    "load_duration": 0,
    "prompt_eval_count": 7,
    "prompt_eval_duration": 0,
    "eval_count": 5,
    "eval_duration": 1_500_000_000,
}
SAYING = {"model": "GPT-4o", "created_at": "2023-11-14T22:13:20Z"}


def whole(dialect: Dialect, **fields: Any) -> dict[str, Any]:
    answer: dict[str, Any] = orjson.loads(dialect.whole(reply_to(ASKED, **fields)))
    return answer


def lines(dialect: Dialect, events: Sequence[ChatEvent], **fields: Any) -> list[dict[str, Any]]:
    writer = dialect.writer(head_of(ASKED))
    reply = reply_to(ASKED, **fields)
    raw = writer.begin() + b"".join(map(writer.event, events)) + writer.end(Finished(reply.finish), reply)
    assert raw.endswith(b"\n")
    return [orjson.loads(line) for line in raw[:-1].split(b"\n")]


def test_a_whole_answer() -> None:
    message = {"role": "assistant", "content": "Hi."}
    assert whole(CHAT, text="Hi.") == {**SAYING, **FIGURES, "message": message, "done_reason": "stop"}
    assert whole(GENERATE, text="Hi.") == {**SAYING, **FIGURES, "response": "Hi.", "done_reason": "stop"}


@pytest.mark.parametrize(
    ("finish", "told"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "stop"), ("content_filter", "content_filter")],
)
def test_why_it_ended(finish: str, told: str) -> None:
    assert whole(CHAT, finish=finish)["done_reason"] == told
    assert lines(GENERATE, [], finish=finish)[-1]["done_reason"] == told


def test_everything_that_an_answer_may_hold() -> None:
    token = {"token": "Hi", "logprob": -0.1, "bytes": None, "top_logprobs": []}
    answer = whole(
        CHAT,
        text="Hi.",
        refusal=" No.",
        reasoning="Hm.",
        tool_calls=(CALL,),
        images=(PICTURE, LINK),
        logprobs=(token,),
        usage=Usage(prompt_tokens=1, completion_tokens=2, counted="tokenizer", points=30),
    )
    assert answer["message"] == {
        "role": "assistant",
        "content": "Hi. No.\n\n![](https://pictures.test/a)",
        "thinking": "Hm.",
        "images": ["QUJD"],
        "tool_calls": [{"id": "call_1", "function": {"name": "look", "arguments": {"at": "it"}}}],
    }
    assert answer["logprobs"] == [token] and answer["points"] == 30 and answer["counted_by"] == "tokenizer"
    generated = whole(GENERATE, text="Hi.", reasoning="Hm.", tool_calls=(CALL,), images=(PICTURE,))
    assert generated["response"] == "Hi." and generated["thinking"] == "Hm." and generated["image"] == "QUJD"
    assert generated["tool_calls"][0]["function"]["name"] == "look"


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("", {}),
        ("{}", {}),
        ('{"n": 123456789012345678901234567890}', {"n": 123456789012345678901234567890}),
        ("[1]", {"invalid_json": "[1]"}),
        ("null", {"invalid_json": "null"}),
        ('{"at": ', {"invalid_json": '{"at": '}),
        ("[" * 100_000, {"invalid_json": "[" * 100_000}),
    ],
    ids=range(7),
)
def test_arguments_are_an_object_whatever_the_model_wrote(written: str, told: dict[str, Any]) -> None:
    import json

    raw = CHAT.whole(reply_to(ASKED, tool_calls=(ToolCall("c", "f", written),)))
    assert json.loads(raw)["message"]["tool_calls"][0]["function"]["arguments"] == told


def test_a_stream() -> None:
    events: list[ChatEvent] = [
        ReasoningDelta("Hm."),
        TextDelta("H"),
        TextDelta(""),
        TextDelta("i", ({"token": "i"},)),
        TextReplaced("Hi."),
        RefusalDelta("No."),
        PICTURE,
        LINK,
    ]
    said = lines(CHAT, events, text="Hi.")
    assert all(SAYING.items() <= line.items() for line in said)
    assert [line["message"] for line in said[:-1]] == [
        {"role": "assistant", "content": "", "thinking": "Hm."},
        {"role": "assistant", "content": "H"},
        {"role": "assistant", "content": "i"},
        {"role": "assistant", "content": "."},
        {"role": "assistant", "content": "No."},
        {"role": "assistant", "content": "", "images": ["QUJD"]},
        {"role": "assistant", "content": "\n\n![](https://pictures.test/a)"},
    ]
    assert [line["done"] for line in said] == [False] * 7 + [True] and said[2]["logprobs"] == [{"token": "i"}]
    empty = {"role": "assistant", "content": ""}
    assert said[-1] == {**SAYING, **FIGURES, "message": empty, "done_reason": "stop"}


def test_calls_are_told_whole_before_the_last_line() -> None:
    fragment = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at":'}}
    said = lines(CHAT, [TextDelta("Let me look."), ToolCallDelta((fragment,))], tool_calls=(CALL,), finish="tool_calls")
    assert [line["message"].get("tool_calls") for line in said] == [
        None,
        [{"id": "call_1", "function": {"name": "look", "arguments": {"at": "it"}}}],
        None,
    ]
    assert [line["done"] for line in said] == [False, False, True]


EVENTS = st.one_of(
    st.builds(TextDelta, st.text()),
    st.builds(TextReplaced, st.text()),
    st.builds(ReasoningDelta, st.text()),
    st.builds(RefusalDelta, st.text()),
)


@given(st.lists(EVENTS, max_size=8))
def test_any_answer_is_lines_of_which_the_last_is_done(events: list[ChatEvent]) -> None:
    for dialect in (CHAT, GENERATE):
        said = lines(dialect, events)
        assert [line["done"] for line in said] == [False] * (len(said) - 1) + [True]


@given(st.lists(st.text(min_size=1), max_size=6))
def test_pieces_make_the_text(pieces: list[str]) -> None:
    assert "".join(line["response"] for line in lines(GENERATE, list(map(TextDelta, pieces)))) == "".join(pieces)


def test_a_break_is_a_line_with_the_error() -> None:
    line = orjson.loads(CHAT.writer(head_of(ASKED)).broken(UpstreamTimeout("Too slow.")))
    assert line == {"error": "Too slow.", "code": "upstream_timeout"}


def test_vectors() -> None:
    vectors = ((0.25, -1.0), (3.0, 0.5))
    request = EMBED.parse(b'{"model":"e","input":["a","b"]}')
    assert orjson.loads(EMBED.whole(reply_to(request, vectors=vectors))) == {
        "model": "GPT-4o",
        "embeddings": [[0.25, -1.0], [3.0, 0.5]],
        "total_duration": 1_500_000_000,
        "load_duration": 0,
        "prompt_eval_count": 7,
    }
    assert orjson.loads(OLD_EMBED.whole(reply_to(request, vectors=vectors[:1]))) == {"embedding": [0.25, -1.0]}
    with pytest.raises(InvalidRequest):
        EMBED.writer(head_of(request))


@pytest.mark.parametrize(
    ("second", "told"),
    [(0, "1970-01-01T00:00:00Z"), (-5, "1970-01-01T00:00:00Z"), (10**18, "9999-12-31T23:59:59Z")],
)
def test_moments(second: int, told: str) -> None:
    assert moment(second) == told


def site(http: httpx.Request) -> httpx.Response:
    """The dialects in front of an answer that holds everything."""
    dialect = {each.route: each for each in (CHAT, GENERATE, EMBED, OLD_EMBED)}[http.url.path]
    request = dialect.parse(http.content)
    vectors = tuple((float(len(text)), 0.5) for text in request.inputs)
    calls = (CALL,) if request.tools else ()
    reply = reply_to(request, text="Hi.", reasoning="Hm.", tool_calls=calls, vectors=vectors)
    if not request.stream:
        return httpx.Response(200, content=dialect.whole(reply))
    writer = dialect.writer(head_of(request))
    body = writer.begin() + b"".join(map(writer.event, [ReasoningDelta("Hm."), TextDelta("H"), TextDelta("i.")]))
    return httpx.Response(200, content=body + writer.end(Finished(), reply))


class TestOllamasOwnClient:
    """The package ``ollama`` sends and reads."""

    @pytest.fixture
    def client(self) -> Any:
        ollama = pytest.importorskip("ollama")
        return ollama.Client("http://gateway.test", transport=httpx.MockTransport(site))

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
    def test_chat(self, client: Any, stream: bool) -> None:
        asked = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "options": {"num_ctx": 4096}}
        answer = client.chat(**asked, stream=stream, think=True)
        said = list(answer) if stream else [answer]
        assert "".join(each.message.content for each in said) == "Hi."
        assert "".join(each.message.thinking or "" for each in said) == "Hm."
        assert said[-1].done and said[-1].done_reason == "stop" and said[-1].eval_count == 5

    def test_tools(self, client: Any) -> None:
        def look(at: str) -> str:
            """Look at something.

            Args:
                at: what to look at
            """
            return at

        answer = client.chat(model="m", messages=[{"role": "user", "content": "look"}], tools=[look])
        (call,) = answer.message.tool_calls
        assert call.function.name == "look" and look(**call.function.arguments) == "it"
        answered = {"role": "tool", "tool_name": "look", "content": "it"}
        assert client.chat(model="m", messages=[answer.message, answered]).message.content == "Hi."

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
    def test_generate(self, client: Any, stream: bool) -> None:
        answer = client.generate("m", "hello", images=[b"\x89PNG\r\n\x1a\n.."], format="json", stream=stream)
        said = list(answer) if stream else [answer]
        assert "".join(each.response for each in said) == "Hi." and said[-1].total_duration == 1_500_000_000

    def test_embeddings(self, client: Any) -> None:
        assert client.embed("e", ["a", "bc"], dimensions=2).embeddings == [[1.0, 0.5], [2.0, 0.5]]
        assert client.embeddings("e", "abc").embedding == [3.0, 0.5]
