"""Records as lines of a file: ``<checksum> <seq> <json>``, and what a sequence of lines tells. Pure.

A line without its end was never finished: whoever wrote it was not told that it is kept. A finished line whose
checksum is wrong was kept and then damaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from zlib import crc32

import msgspec

from poe_gateway.metering.rows import Intent, Outcome, Record
from poe_gateway.metering.store import Entry

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Record)
_SUM = 9
"""Characters of the checksum and the blank behind it."""


class Damaged(Exception):
    """A finished line that is not what was written."""


class Damage(msgspec.Struct, frozen=True):
    """What is left of a record that cannot be read."""

    line: bytes


def frame(seq: int, record: Record) -> bytes:
    """One line. It holds no line break but its last character."""
    try:
        body = b"%d %b" % (seq, _ENCODER.encode(record))
    except UnicodeEncodeError:
        body = b"%d %b" % (seq, _ENCODER.encode(_cleaned(msgspec.to_builtins(record))))
    return b"%08x %b\n" % (crc32(body), body)


def unframe(line: bytes) -> tuple[int, Record]:
    """Raises Damaged."""
    body = line[_SUM:-1]
    try:
        if line[-1:] != b"\n" or line[_SUM - 1 : _SUM] != b" " or line[: _SUM - 1] != b"%08x" % crc32(body):
            raise Damaged
        seq, _, text = body.partition(b" ")
        return int(seq), _DECODER.decode(text)
    except (ValueError, msgspec.MsgspecError):
        raise Damaged from None


class Story:
    """Reads the lines of one spool in their order and tells which attempts ended how."""

    def __init__(self, spool: str, last: int = 0) -> None:
        """``last``: seq that is known to be used, even if its record is gone."""
        self.spool = spool
        self.last = last
        """Highest seq so far; nobody may use it, or a lower one, for another record."""
        self.open: dict[int, Intent] = {}
        """Attempts without an end, by the seq of their intent."""

    def entries(self, lines: Iterable[bytes], after: int = 0) -> Iterator[Entry | Damage]:
        """What is to be shipped with a seq above ``after``."""
        for line in lines:
            try:
                seq, record = unframe(line)
            except Damaged:
                self.last += 1  # it had one
                yield Damage(line)
                continue
            self.last = max(self.last, seq)
            if isinstance(record, Intent):
                self.open[seq] = record
                continue
            opened, intent = 0, None
            if isinstance(record, Outcome):
                opened = opened_by(record.row)
                intent = self.open.pop(opened, None)
            if seq > after:
                yield Entry(self.spool, seq, record, opened, intent)


def opened_by(row_id: str) -> int:
    """The seq of the intent in a row's id."""
    return int(row_id.rpartition("-")[2])


def _cleaned(value: object) -> object:
    """The value without half surrogate pairs, which no JSON can hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(each) for each in value]
    return value
