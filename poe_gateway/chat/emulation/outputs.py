"""The JSON that an answer must be, out of what a model wrote. Pure."""

from __future__ import annotations

from typing import Any

from poe_gateway.chat.emulation import reading, validation
from poe_gateway.chat.request import OutputFormat


def read(text: str, output: OutputFormat) -> tuple[str | None, str]:
    """The JSON as the model wrote it; None, and what is wrong, when there is none that fits. Raises SchemaError."""
    problem = ""
    for value, written in reading.found(text):
        faults = _faults(value, output)
        if not faults:
            return _sendable(value, written), ""
        problem = problem or f"the JSON is not valid: {'; '.join(faults)}"
    return None, problem or _syntax(text)


def _faults(value: Any, output: OutputFormat) -> list[str]:
    if output.schema is None:
        return [] if isinstance(value, dict) else ["it must be a JSON object"]
    return validation.faults(output.schema, value)


def _sendable(value: Any, written: str) -> str:
    """As it is written, if that can be sent: half a surrogate pair cannot."""
    try:
        written.encode()
    except UnicodeEncodeError:
        return reading.dumps(value)
    return written


def _syntax(text: str) -> str:
    try:
        reading.whole(text)
    except reading.NotJSON as error:
        return f"it is no JSON: {error}"
    return "it is no JSON object"
