"""The hub and its recorder."""

import logging

from poe_gateway.telemetry import Recorder, Telemetry
from poe_gateway.telemetry.events import LoopLag, Notice


def test_every_listener_hears_every_record_in_order():
    first, second = Recorder(), Recorder()
    hub = Telemetry(first)
    hub.add(second)
    hub.emit(LoopLag(seconds=0.1))
    hub.emit(Notice(level="info", message="hello"))
    assert list(first.records) == list(second.records)
    assert second.of(LoopLag) == [LoopLag(seconds=0.1)]


def test_a_failing_listener_is_counted_logged_once_and_harms_nobody(caplog):
    def broken(record):
        raise RuntimeError("canary-secret-text")

    heard = Recorder()
    hub = Telemetry(broken, heard)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            hub.emit(LoopLag(seconds=1))
    assert len(heard.records) == 3
    assert sum(hub.failures.values()) == 3
    assert len(caplog.records) == 1
    assert "canary" not in caplog.text


def test_a_recorder_forgets_the_oldest():
    recorder = Recorder(limit=2)
    for seconds in range(3):
        recorder(LoopLag(seconds=seconds))
    assert [record.seconds for record in recorder.of(LoopLag)] == [1, 2]
