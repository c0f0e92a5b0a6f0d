"""An answer as it comes, and those who follow it."""

from __future__ import annotations

import asyncio

import pytest

from poe_gateway.errors import UpstreamFailed
from poe_gateway.idempotency.recording import Follower, Recording

SSE = [(b"content-type", b"text/event-stream; charset=utf-8")]
JSON = [(b"content-type", b"application/json")]


async def everything(follower: Follower) -> list[bytes]:
    pieces = []
    while True:
        piece, more = await follower.next()
        pieces.append(piece)
        if not more:
            return pieces
        follower.taken()


async def test_whoever_comes_late_gets_all_of_it() -> None:
    recording = Recording()
    early = asyncio.create_task(everything(recording.join()))
    recording.begin(200, JSON)
    await recording.add(b"a")
    middle = asyncio.create_task(everything(recording.join()))
    await asyncio.sleep(0)
    await recording.add(b"b")
    recording.end()
    assert await everything(recording.join()) == [b"a", b"b"]
    # Those who had the last piece before it was known to be the last get an empty one.
    assert b"".join(await early) == b"".join(await middle) == b"ab"


@pytest.mark.parametrize(
    "status, headers, pieces, good",
    [
        (200, JSON, [b"{}"], True),
        (201, JSON, [], True),
        (199, JSON, [b"{}"], False),
        (300, JSON, [b"{}"], False),
        (500, JSON, [b"{}"], False),
        (200, SSE, [b"data: {}\n\n", b"data: [DONE]\n\n"], True),
        (200, SSE, [b"data: {}\n\ndata: [DO", b"NE]\n\n"], True),
        (200, SSE, [b"data: {}\n\n"], False),
        (200, SSE, [], False),
        (200, SSE, [b'data: {"error":{}}\n\n', b"data: [DONE]\n\n"], False),
        (200, SSE, [b'data: {}\n\ndata: {"error":{}}\n\ndata: [DONE]\n\n'], False),
        (200, SSE, [b'data: {"text":"data: {\\"error\\":"}\n\n', b"data: [DONE]\n\n"], True),
        (200, JSON, [b'{"text": "\\ndata: {\\"error\\":"}'], True),
    ],
)
async def test_what_is_a_success(
    status: int, headers: list[tuple[bytes, bytes]], pieces: list[bytes], good: bool
) -> None:
    recording = Recording()
    recording.begin(status, headers)
    for piece in pieces:
        await recording.add(piece)
    assert not recording.good, "not before its end"
    assert recording.joinable
    recording.end()
    assert recording.good is good
    assert recording.joinable is good, "nobody joins a failure that is over"


async def test_a_failure_before_the_start_is_each_followers_own_to_tell() -> None:
    recording, error = Recording(), UpstreamFailed()
    recording.fail(error, b"")
    assert recording.error is error and recording.ended and not recording.whole and not recording.good
    recording.fail(UpstreamFailed(), b"")
    assert recording.error is error, "only the first"


async def test_a_stream_that_breaks_off_says_so_and_other_answers_are_cut() -> None:
    stream, answer = Recording(), Recording()
    stream.begin(200, SSE)
    answer.begin(200, JSON)
    await answer.add(b"{")
    for recording in (stream, answer):
        recording.fail(UpstreamFailed(), b'data: {"error":1}\n\n')
    assert await everything(stream.join()) == [b'data: {"error":1}\n\n'] and stream.whole and not stream.good
    assert not answer.whole


async def test_an_end_is_not_undone() -> None:
    recording = Recording()
    recording.begin(200, JSON)
    recording.end()
    recording.fail(UpstreamFailed(), b"x")
    assert recording.good and recording.pieces() == ()


async def test_beyond_the_bound_only_what_somebody_needs_is_kept() -> None:
    recording = Recording(limit=300)
    recording.begin(200, SSE)
    for _ in range(50):
        await recording.add(b"x" * 36)
    assert recording.overflown and not recording.joinable
    assert len(recording.pieces()) <= 3, "nobody follows"


async def test_small_pieces_count_too() -> None:
    recording = Recording(limit=1_000)
    recording.begin(200, SSE)
    for _ in range(50):
        await recording.add(b"x")
    assert recording.overflown


@pytest.mark.parametrize("leaves", [False, True])
async def test_the_run_waits_for_a_follower_that_is_a_whole_bound_behind(leaves: bool) -> None:
    recording = Recording(limit=300)
    quick, slow = recording.join(), recording.join()
    reading = asyncio.create_task(everything(quick))
    recording.begin(200, SSE)

    async def write() -> None:
        for number in range(20):
            await recording.add(b"%02d" % number + b"x" * 34)
        recording.end()

    writing = asyncio.create_task(write())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not writing.done() and len(recording.pieces()) == 4
    if leaves:
        slow.close()
        slow.close()
        await writing
    else:
        pieces = await everything(slow)
        assert [piece[:2] for piece in pieces if piece] == [b"%02d" % number for number in range(20)]
        await writing
    assert [piece[:2] for piece in await reading if piece] == [b"%02d" % number for number in range(20)]
    assert not recording.deserted
    quick.close()
    assert recording.deserted is leaves
