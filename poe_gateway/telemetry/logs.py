"""Logs: one line per record on standard output, JSON or, on a terminal, readable text.

Everything passes one chain whose last step before rendering masks secrets: structlog's loggers, the standard
library's (uvicorn, asyncio, drivers), Python warnings, and the telemetry records.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, MutableMapping
from typing import Any, BinaryIO, Literal

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from poe_gateway.telemetry.redaction import redact_field, redact_text

Format = Literal["auto", "json", "text"]
Write = Callable[[bytes], None]

_QUIET = {
    "uvicorn.access": None,  # RequestFinished says it better
    "aiohttp.access": None,
    "pymongo": logging.WARNING,  # below that it prints commands with their documents
    "apscheduler": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "asyncio": logging.WARNING,
}
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127) if code not in (9, 10)}


def configure(log_format: Format = "auto", level: str = "INFO", stream: BinaryIO | None = None) -> None:
    """Sends all logging of the process through the one chain. May be called again (tests, reload).

    ``auto`` is text when ``stream`` (default: standard output) is a terminal. ``level``: DEBUG … ERROR.
    """
    out = stream if stream is not None else sys.stdout.buffer
    text = log_format == "text" or (log_format == "auto" and out.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    sink = _Sink(out)
    chain = [*_preparation(), _render_text if text else _render_json]
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, *chain],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,
    )
    _adopt_standard_library(_Funnel(chain, sink), number)


def get_logger(name: str, **fields: Any) -> structlog.typing.FilteringBoundLogger:
    """A logger whose lines carry ``logger=name`` and ``fields``."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(logger_name=name, **fields)
    return logger


def redact_event(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """The masking step of the chain."""
    return {name: redact_field(name, value) for name, value in event.items()}


def _preparation() -> list[structlog.typing.Processor]:
    return [
        structlog.processors.format_exc_info,  # before the masking: a traceback may quote a secret
        redact_event,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
    ]


def _render_json(_: WrappedLogger, __: str, event: EventDict) -> bytes:
    line = {
        "ts": event.pop("ts", None),
        "level": event.pop("level", None),
        "logger": event.pop("logger_name", None),
        "msg": event.pop("event", ""),
        **event,
    }
    try:
        return orjson.dumps(line, default=_safe, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # a lone surrogate, a number beyond 64 bits: dull, but never lost
        return orjson.dumps({str(name): _safe(value) for name, value in line.items()})


def _render_text(logger: WrappedLogger, name: str, event: EventDict) -> bytes:
    shown = {key: value if key == "exception" else _flat(value) for key, value in event.items()}
    rendered = _CONSOLE(logger, name, shown)
    return rendered.encode("utf-8", "backslashreplace")


_CONSOLE = structlog.dev.ConsoleRenderer(
    colors=False, timestamp_key="ts", exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
)


def _flat(value: Any) -> Any:
    """Control characters made visible: a logged text must not steer the terminal."""
    return value.translate(_CONTROLS) if isinstance(value, str) else value


def _safe(value: Any) -> str:
    return redact_text(str(value)).encode("utf-8", "backslashreplace").decode()


class _Sink:
    """Whole lines to one binary stream, from any thread. Stands in as structlog's innermost logger."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._flush_due = False

    def msg(self, line: bytes) -> None:
        with self._lock:
            self._out.write(line + b"\n")
            if self._flush_due:
                return
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                self._out.flush()
                return
            self._flush_due = True
        # Lines of one turn of the event loop go out together: a system call for each would cost more than the line.
        loop.call_soon(self._flush)

    def _flush(self) -> None:
        with self._lock:
            self._flush_due = False
            self._out.flush()

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


class _Funnel(logging.Handler):
    """Feeds the standard library's records to the chain."""

    def __init__(self, chain: list[Any], sink: _Sink) -> None:
        super().__init__()
        self._chain = chain
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event: MutableMapping[str, Any] = {
                "event": record.getMessage(),
                "level": record.levelname.lower(),
                "logger_name": record.name,
                **structlog.contextvars.get_contextvars(),
            }
            if record.exc_info:
                event["exc_info"] = record.exc_info
            line: Any = event
            for step in self._chain:
                line = step(None, record.levelname.lower(), line)
            self._sink.msg(line)
        except Exception:  # noqa: BLE001 - the usual report prints the arguments, unmasked
            self._sink.msg(b'{"level":"error","logger":"poe_gateway.telemetry","msg":"a log record was unreadable"}')


def _adopt_standard_library(funnel: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    root.handlers = [funnel]
    root.setLevel(level)
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(logging.NOTSET)  # one level for all: the root's
    for name, least in _QUIET.items():
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = least is not None
        if least is not None:
            logger.setLevel(max(least, level))
