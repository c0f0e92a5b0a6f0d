"""The event-stream parser: the same events however the bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poe_gateway.upstreams.sse import SSEParser, SSEvent, TooLong


def parse(stream: bytes, cuts: list[int] | None = None) -> list[SSEvent]:
    parser, events, start = SSEParser(), [], 0
    for cut in sorted({cut % (len(stream) + 1) for cut in cuts or []} | {len(stream)}):
        events += parser.feed(stream[start:cut])
        start = cut
    return events + parser.close()


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [SSEvent("a"), SSEvent("b")]),
        (b"data: a\r\n\r\ndata: b\r\r", [SSEvent("a"), SSEvent("b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [SSEvent("a")]),
        (b": ping\n\ndata:a\n: more\ndata:  b\nid: 3\nretry: 5\n\n", [SSEvent("a\n b")]),
        (b"event: error\ndata: {}\n\ndata: x\n\n", [SSEvent("{}", "error"), SSEvent("x")]),
        (b"data\n\n", [SSEvent("")]),
        (b"event: lonely\n\n\n\n", []),
        (b"data: [DONE]", [SSEvent("[DONE]")]),
        (b"data: a\n", [SSEvent("a")]),
        (b"data: \xff\n\n", [SSEvent("\ufffd")]),
        (b"", []),
    ],
)
def test_the_format(stream, events):
    assert parse(stream) == events
    assert parse(stream, list(range(len(stream)))) == events, "byte by byte"


LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
EVENT = st.lists(LINE, min_size=1, max_size=3)
END = st.sampled_from(["\n", "\r\n", "\r"])


@given(
    st.lists(st.tuples(EVENT, END, st.booleans()), max_size=6),
    st.lists(st.integers(0, 2_000), max_size=20),
)
def test_no_cut_changes_an_event(events, cuts):
    text = ""
    for data, end, comment in events:
        text += f": comment{end}" if comment else ""
        text += "".join(f"data: {line}{end}" for line in data) + end
    stream = text.encode()
    assert parse(stream, cuts) == [SSEvent("\n".join(data)) for data, _, _ in events]


@given(
    st.lists(st.sampled_from([b"data: x", b"\n", b"\r", b":", b"\xc3", b"\xa4", b"event:e", b"\xef\xbb\xbf"])),
    st.data(),
)
def test_any_bytes_give_the_same_events_whole_and_in_pieces(parts, data):
    stream = b"".join(parts)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    assert parse(stream, cuts) == parse(stream)


def test_an_endless_event_is_refused():
    parser = SSEParser(limit=100)
    with pytest.raises(TooLong):
        for _ in range(20):
            parser.feed(b"data: 1234567")
    parser = SSEParser(limit=100)
    with pytest.raises(TooLong):
        for _ in range(20):
            parser.feed(b"data: 1234567\n")
