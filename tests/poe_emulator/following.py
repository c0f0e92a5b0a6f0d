"""A bot that does as it is told about tools and forms of answers: it knows only what stands in the messages.

Chosen by `Account.follows`, or by ``[[follow]]`` (``[[follow:clumsily]]``, ``[[follow:never]]``) in any message of the
chat. A clumsy bot answers badly until it is corrected; one that never learns goes on doing so.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

Follows = Literal["", "well", "clumsily", "never"]

_MARKER = re.compile(r"\[\[follow(?::(clumsily|never))?\]\]")
_TOOL = re.compile(r"^- ([\w.:-]+)(?:: .*)?\n  JSON schema of its arguments: (\{.*\})$", re.MULTILINE)
_FORM = re.compile(r"^(<\w+>)\{\"name\": .*\}(</\w+>)$", re.MULTILINE)
_SCHEMA = re.compile(r"^It must be valid by this JSON schema.*:\n(\{.*\})$", re.MULTILINE)
_RESULT = re.compile(r"<tool_result [^>]*>\n(.*?)\n</tool_result>", re.DOTALL)
_PLACE = re.compile(r"(?<=\s)[A-Z]\w+")


def how_of(standing: Follows, asked: list[str]) -> Follows:
    """Whether, and how well, the bot of a chat follows instructions."""
    for text in reversed(asked):
        if marker := _MARKER.search(text):
            return marker.group(1) or "well"  # type: ignore[return-value]
    return standing


def answer(how: Follows, asked: list[str]) -> str | None:
    """The answer to the newest of the human messages of a chat; None when there is nothing to be followed."""
    told, turn = "\n\n".join(asked), _turns(asked[-1])[-1]
    tools = dict(_TOOL.findall(told))
    wants_json = "one JSON object and nothing else" in told
    if not tools and not wants_json:
        return None
    corrected = turn.startswith("Your answer cannot be used")
    stumbles = how == "never" or (how == "clumsily" and not corrected)
    question = _question(asked)
    if tools and not _RESULT.search(turn):
        return _calls(tools, told, question, stumbles=stumbles)
    results = _RESULT.findall(turn)
    if wants_json:
        schema = _SCHEMA.search(told)
        value = _value(json.loads(schema.group(1)) if schema else {}, " ".join([*results, question]))
        written = json.dumps(value if schema else {"answer": question})
        return f"Here you are: {written[:-1]}" if stumbles else f"Here you are:\n```json\n{written}\n```"
    return f"The tools say: {' | '.join(results)}"


def _turns(query: str) -> list[str]:
    """The turns of a folded conversation, or of a message sent alone; instructions stand before the first."""
    first, *labelled = re.split(r"^(?:User|Assistant): ", query, flags=re.MULTILINE)
    return [turn.strip() for turn in labelled] or [first.split("\n\n")[-1]]


def _question(asked: list[str]) -> str:
    """The newest thing the human said that is neither a result nor a correction."""
    said = [turn for query in asked for turn in _turns(query)]
    ours = ("<tool_result", "Your answer cannot be used", "Let me look.", "Here you are")
    return next((turn for turn in reversed(said) if not turn.startswith(ours)), "")


def _calls(tools: dict[str, str], told: str, question: str, *, stumbles: bool) -> str:
    form = _FORM.search(told)
    if form is None:
        return "I was not told how to call a tool."
    begin, end = form.groups()
    name = next((each for each in tools if each in question), next(iter(tools)))
    schema = json.loads(tools[name])
    subjects = _PLACE.findall(question) or [question]
    if "several tools at once" not in told:
        subjects = subjects[:1]
    lines = []
    for subject in subjects:
        arguments = json.dumps(_value(schema, subject))
        lines.append(f'{begin}{{"name": "{name}", "arguments": {arguments[:-1] if stumbles else arguments}}}{end}')
    return "\n".join(["Let me look.", *lines])


def _value(schema: dict[str, Any], subject: str) -> Any:
    """Something that is valid by the schema, made of the subject."""
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: _value(each, subject) for name, each in schema.get("properties", {}).items()}
        case "array":
            return [_value(schema.get("items", {}), subject)]
        case "integer" | "number":
            return int(found.group()) if (found := re.search(r"\d+", subject)) else 1
        case "boolean":
            return True
        case _:
            return subject
