"""One chain for everything that is logged; its lines are JSON (or text) and carry no secret."""

import io
import json
import logging
import warnings
from datetime import UTC, datetime

import pytest
import structlog

from poe_gateway.telemetry import Telemetry, logs
from poe_gateway.telemetry.events import (
    AccountChanged,
    AttemptFinished,
    DutyFinished,
    LedgerDrift,
    LedgerSnapshot,
    Notice,
    RequestFinished,
)
from poe_gateway.telemetry.lines import LogListener
from poe_gateway.telemetry.redaction import forget_secrets, register_secret


@pytest.fixture
def out():
    """A stream that the process logs to as JSON; logging is put back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.BytesIO()
    logs.configure("json", "INFO", stream)
    register_secret("canary-4711")
    yield stream
    forget_secrets()
    logging.captureWarnings(False)
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


def lines(stream) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_time_level_logger_message_and_fields_in_this_order(out):
    logs.get_logger("room").info("hello", request_id="req_1", n=3)
    (line,) = lines(out)
    assert list(line) == ["ts", "level", "logger", "msg", "request_id", "n"]
    assert datetime.fromisoformat(line["ts"]).tzinfo is not None
    assert (line["level"], line["logger"], line["msg"]) == ("info", "room", "hello")


def test_levels_are_obeyed_by_both_kinds_of_logger(out):
    logs.get_logger("room").debug("no")
    logging.getLogger("lib").debug("no")
    logging.getLogger("lib").warning("yes %s", 1)
    assert [line["msg"] for line in lines(out)] == ["yes 1"]


def test_uvicorn_and_warnings_come_through_and_the_access_log_does_not(out):
    logging.getLogger("uvicorn.error").info("Started", extra={"color_message": "x"})
    logging.getLogger("uvicorn.access").info("GET / 200")
    logging.getLogger("pymongo.command").info("insert credentials")
    warnings.warn("careful", UserWarning, stacklevel=1)
    told = lines(out)
    assert [line["logger"] for line in told] == ["uvicorn.error", "py.warnings"]
    assert not logging.getLogger("uvicorn.access").propagate


def test_context_is_carried(out):
    with structlog.contextvars.bound_contextvars(request_id="req_9"):
        logs.get_logger("room").info("a")
        logging.getLogger("lib").warning("b")
    assert [line["request_id"] for line in lines(out)] == ["req_9", "req_9"]


def test_secrets_leave_by_no_door(out):
    log = logs.get_logger("room")
    log.info("x canary-4711", a={"b": ["canary-4711"]}, authorization="canary-4711 other", n=5)
    logging.getLogger("lib").warning("says %s", "canary-4711")
    for logger in (log, logging.getLogger("lib")):
        try:
            raise ValueError("canary-4711")
        except ValueError:
            logger.exception("failed")
    hub = Telemetry(LogListener())
    hub.emit(
        Notice(level="warning", message="canary-4711", fields={"p_b": "v", "event": "dropped", "x": "canary-4711"})
    )
    hub.emit(RequestFinished(request_id="r", route="/x", status=200, seconds=1, model="canary-4711"))
    text = out.getvalue().decode()
    assert "canary" not in text
    assert len(lines(out)) == 6
    assert text.count("ValueError: ***") == 2


@pytest.mark.parametrize("value", ["\ud800", 2**70, object(), {1: 2}, {"a": {"\udfff": 1}}, b"\xff"])
def test_no_value_breaks_a_line(out, value):
    logs.get_logger("room").info("odd", value=value)
    assert lines(out)[0]["msg"] == "odd"


def test_a_record_that_cannot_be_formatted_is_reported_without_its_arguments(out, capsys):
    funnel = next(handler for handler in logging.getLogger().handlers if isinstance(handler, logs._Funnel))
    funnel.handle(logging.LogRecord("lib", logging.WARNING, "f.py", 1, "%d", ("canary-4711",), None))
    assert lines(out)[0]["msg"] == "a log record was unreadable"
    assert "canary" not in capsys.readouterr().err


def test_text_is_one_readable_line_without_control_characters(out):
    stream = io.BytesIO()
    logs.configure("text", "INFO", stream)
    logs.get_logger("room").info("hello \x1b[31m canary-4711", request_id="req_1")
    text = stream.getvalue().decode()
    assert "hello \\x1b[31m ***" in text
    assert "request_id=req_1" in text
    assert text.count("\n") == 1
    assert "\x1b" not in text


def test_auto_is_json_unless_a_terminal_listens(out):
    stream = io.BytesIO()
    logs.configure("auto", "info", stream)
    logs.get_logger("room").info("hello")
    assert lines(stream)[0]["msg"] == "hello"


def test_records_become_lines(out):
    listener = LogListener()
    listener(
        AttemptFinished(request_id="r", attempt=1, account_id="a", provider="mock", model="m", outcome="Succeeded")
    )
    listener(AttemptFinished(request_id="r", attempt=1, account_id="a", provider="mock", model="m", outcome="Depleted"))
    listener(
        RequestFinished(
            request_id="r", route="/v1/chat/completions", status=200, seconds=1.23456789, candidates={"eligible": 2}
        )
    )
    listener(
        AccountChanged(
            account_id="a",
            provider="mock",
            old_state="active",
            new_state="cooldown",
            cause="errors",
            until=datetime(2026, 1, 1, tzinfo=UTC),
        )
    )
    listener(DutyFinished(name="reset", ok=False, seconds=1, detail="why"))
    attempt, request, account, duty = lines(out)
    assert (attempt["level"], attempt["outcome"]) == ("warning", "Depleted")
    assert request["seconds"] == 1.234568
    assert request["candidates"] == {"eligible": 2}
    assert "error_code" not in request and "raw_cost" not in request
    assert account["until"] == "2026-01-01T00:00:00+00:00"
    assert duty["level"] == "error"


def test_money_is_told_as_decimal_text(out):
    listener = LogListener()
    paid = RequestFinished(
        request_id="r", route="/x", status=200, seconds=1, unit="USD", raw_cost=1_250_000, billed_cost=0
    )
    listener(paid)
    listener(LedgerDrift(account_id="a", provider="openai_api", kind="foreign", points=40, entries=1))
    listener(LedgerDrift(account_id="a", provider="openai_api", kind="corrected", points=4, entries=1))
    listener(LedgerSnapshot(waiting=3))
    request, foreign, corrected = lines(out)
    assert (request["raw_cost"], request["billed_cost"], request["unit"]) == ("0.0125", "0", "USD")
    assert (foreign["level"], foreign["points"], corrected["level"]) == ("warning", 40, "info")
