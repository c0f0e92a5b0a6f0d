"""The spool keeps what it has taken: through kill -9, torn and damaged lines, full disks and new files."""

from __future__ import annotations

import os
import random
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poe_gateway.metering import spool as disk
from poe_gateway.metering.frames import Damage, Damaged, Story, frame, unframe
from poe_gateway.metering.rows import Correction, Intent, Outcome, Record
from poe_gateway.metering.spool import Spool, SpoolFailed, Unreadable
from poe_gateway.metering.store import Entry

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def intent(text: str = "req_1", **more: object) -> Intent:
    fields = {"attempt": 1, "at": NOW, "org": "org_1", "key_id": "key_1", "provider": "mock", "offer": "mock:demo"}
    fields |= {"account_id": "acct_1", "model": "demo", "target": "demo"} | more
    return Intent(request_id=text, **fields)


def correction(text: str) -> Correction:
    return Correction(row="spool_x-1", at=NOW, reason=text)


def make(directory: Path, name: str = "spool_a", segment: int = disk.SEGMENT) -> Spool:
    return Spool.create(directory, name, segment)


def told(folder: Path) -> list[Entry | Damage]:
    return list(Story(folder.name).entries(disk.lines(disk.segments(folder))))


def texts(folder: Path) -> list[str]:
    return [each.record.reason for each in told(folder) if isinstance(each, Entry)]


WRITTEN: list[Record] = [intent("é\n\u2028"), correction("a"), correction("línea\r\n"), correction("c" * 50)]
LINES = [frame(seq, record) for seq, record in enumerate(WRITTEN, 1)]


def test_every_cut_leaves_the_records_before_it(tmp_path: Path) -> None:
    whole = b"".join(LINES)
    file = tmp_path / "0000000000000001.log"
    for cut in range(len(whole) + 1):
        file.write_bytes(whole[:cut])
        kept = sum(len(b"".join(LINES[:number])) <= cut for number in range(1, len(LINES) + 1))
        found = list(disk.lines([(1, file)]))
        assert found == LINES[:kept]
        assert [unframe(line)[1] for line in found] == WRITTEN[:kept]


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, len(b"".join(LINES)) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_harms_its_own_record_only_and_is_told(position: int, byte: int) -> None:
    whole = bytearray(b"".join(LINES))
    if whole[position] == byte:
        return
    whole[position] = byte
    lines = bytes(whole).replace(b"\n", b"\n\0").split(b"\0")
    good, bad = [], 0
    for line in lines:
        try:
            good.append(unframe(line))
        except Damaged:
            bad += bool(line)
    assert bad >= 1
    assert all(each in list(enumerate(WRITTEN, 1)) for each in good)
    assert len(good) >= len(WRITTEN) - 2  # the end of a line belongs to two of them


def test_damage_in_the_middle_is_handed_out_and_the_rest_is_read(tmp_path: Path) -> None:
    spool = make(tmp_path)
    for text in "abc":
        spool.append(correction(text))
    file = disk.segments(spool.folder)[0][1]
    file.write_bytes(file.read_bytes().replace(b'"reason":"b"', b'"reason":"x"'))
    found = told(spool.folder)
    spool.close()
    assert [type(each) for each in found] == [Entry, Damage, Entry]
    assert b'"reason":"x"' in found[1].line
    kept = disk.set_aside(tmp_path, spool.name, [found[1].line, b"torn"])
    disk.set_aside(tmp_path, spool.name, [b"more"])
    assert kept.read_bytes() == found[1].line + b"torn\nmore\n"


def test_odd_text_is_kept_as_far_as_possible() -> None:
    assert unframe(frame(1, correction("half \ud83d pair")))[1].reason == "half ? pair"


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """As on a full disk: writes beyond ``size`` are cut short, then refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("left", [0, 1, 30])
def test_a_full_disk_leaves_no_half_record(tmp_path: Path, left: int) -> None:
    spool = make(tmp_path)
    assert spool.append(correction("before")) == 1
    file = disk.segments(spool.folder)[0][1]
    with files_up_to(file.stat().st_size + left):
        for _ in range(2):
            with pytest.raises(SpoolFailed):
                spool.append(correction("lost"))
    assert spool.append(correction("after")) == 2
    assert texts(spool.folder) == ["before", "after"]
    spool.close()


def test_what_a_failed_write_left_is_cut_before_the_next(tmp_path: Path) -> None:
    """Even where it could not be cut at once."""
    spool = make(tmp_path)
    spool.append(correction("before"))
    file = disk.segments(spool.folder)[0][1]
    good, spool._fd = spool._fd, os.open(file, os.O_RDONLY)
    with pytest.raises(SpoolFailed):
        spool.append(correction("lost"))
    os.close(spool._fd)
    spool._fd = good
    with file.open("ab") as other:
        other.write(b"half a rec")
    spool.append(correction("after"))
    assert texts(spool.folder) == ["before", "after"]
    spool.close()


def test_new_files_begin_with_what_is_open_and_old_ones_go(tmp_path: Path) -> None:
    spool = make(tmp_path, segment=1000)
    long = spool.append(intent("long"))
    spool.open[long] = intent("long")
    while len(disk.segments(spool.folder)) < 4:
        spool.append(correction("short"))
    disk.trim(spool.folder, spool.last)
    [(first, _)] = disk.segments(spool.folder)
    assert 1 < first <= spool.last
    end = Outcome(row=f"{spool.name}-{long}", at=NOW, status="succeeded")
    seq = spool.append(end)
    assert told(spool.folder)[-1] == Entry(spool.name, seq, end, long, intent("long"))
    spool.close()


def test_a_file_goes_only_when_all_in_it_is_shipped(tmp_path: Path) -> None:
    spool = make(tmp_path, segment=500)
    while len(disk.segments(spool.folder)) < 3:
        spool.append(correction("x"))
    firsts = [first for first, _ in disk.segments(spool.folder)]
    disk.trim(spool.folder, firsts[1] - 2)
    assert [first for first, _ in disk.segments(spool.folder)] == firsts
    disk.trim(spool.folder, firsts[1] - 1)
    assert [first for first, _ in disk.segments(spool.folder)] == firsts[1:]
    spool.close()


def test_a_new_file_that_cannot_be_made_does_not_stop_the_old_one(tmp_path: Path) -> None:
    spool = make(tmp_path, segment=300)
    spool.append(correction("y" * 300))
    spool.folder.rename(tmp_path / "moved")  # new files fail, the open one goes on
    assert spool.append(correction("z")) == 2
    (tmp_path / "moved").rename(spool.folder)
    assert spool.append(correction("w")) == 3
    assert texts(spool.folder)[1:] == ["z", "w"]
    assert len(disk.segments(spool.folder)) == 2
    spool.close()


def test_only_the_owner_may_look(tmp_path: Path) -> None:
    spool = make(tmp_path / "spool")
    spool.append(correction("x"))
    disk.remember(spool.folder, 1)
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert spool.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in spool.folder.iterdir()} == {0o600}
    spool.close()


def test_the_lock_tells_the_living_from_the_dead(tmp_path: Path) -> None:
    spool = make(tmp_path)
    assert disk.claim(spool.folder) is None
    spool.close()
    lock = disk.claim(spool.folder)
    assert lock is not None
    assert disk.claim(spool.folder) is None
    os.close(lock)
    assert disk.spools(tmp_path) == [spool.folder]


def test_a_spool_of_another_format_is_left_alone(tmp_path: Path) -> None:
    spool = make(tmp_path)
    spool.close()
    (spool.folder / "lock").write_bytes(b"poe_gateway spool 2\n")
    with pytest.raises(Unreadable):
        disk.claim(spool.folder)


def test_a_removal_that_was_broken_off_is_finished(tmp_path: Path) -> None:
    (tmp_path / "spool_empty").mkdir()
    assert disk.claim(tmp_path / "spool_empty") is None
    assert disk.spools(tmp_path) == []
    (tmp_path / "spool_odd").mkdir()
    (tmp_path / "spool_odd" / "0000000000000001.log").touch()
    with pytest.raises(Unreadable):
        disk.claim(tmp_path / "spool_odd")


def test_what_was_begun_and_never_finished_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".new-spool_a").mkdir()
    (tmp_path / ".new-spool_b").mkdir()
    (tmp_path / ".new-spool_b" / "lock").touch()
    assert disk.spools(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolFailed):
        make(tmp_path / "file" / "spool")


def test_what_is_remembered_may_be_lost(tmp_path: Path) -> None:
    assert disk.remembered(tmp_path) == 0
    disk.remember(tmp_path, 17)
    assert disk.remembered(tmp_path) == 17
    (tmp_path / "shipped").write_bytes(b"")
    assert disk.remembered(tmp_path) == 0


def _write_for_ever(directory: Path, name: str, pipe: int) -> None:
    """Tells the seq of each record after its write has returned."""
    spool = make(directory, name, segment=3000)
    while True:
        seq = spool.append(intent(f"{name} {spool.last + 1}"))
        spool.open[seq] = intent(f"{name} {seq}")
        spool.open.pop(seq - 5, None)
        os.write(pipe, b"%d\n" % seq)


def test_kill_9_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    rng = random.Random(4)
    for life in range(40):
        name = f"spool_{life}"
        heard, pipe = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _write_for_ever(tmp_path, name, pipe)
            finally:
                os._exit(1)
        os.close(pipe)
        with os.fdopen(heard, "rb") as lines:
            told_first = [int(lines.readline()) for _ in range(rng.randint(1, 300))]
            os.kill(child, signal.SIGKILL)
            returned = told_first + [int(line) for line in lines if line.endswith(b"\n")]
        os.waitpid(child, 0)
        lock = disk.claim(tmp_path / name)
        assert lock is not None
        os.close(lock)
        story = Story(name)
        assert list(story.entries(disk.lines(disk.segments(tmp_path / name)))) == []
        assert returned == list(range(1, len(returned) + 1))
        assert set(returned) <= story.open.keys()
        assert story.last <= len(returned) + 1  # the one whose write came through and was not told of
        assert all(each.request_id == f"{name} {seq}" for seq, each in story.open.items())
