"""What a model that only chats is told about tools and the form of its answer. Texts. Pure."""

from __future__ import annotations

from poe_gateway.chat.emulation.markup import CLOSING, OPENING
from poe_gateway.chat.emulation.plan import Emulation, Offer
from poe_gateway.chat.emulation.reading import dumps
from poe_gateway.chat.request import OutputFormat, Tool

_FORM = f"""\
To call a tool, write exactly this form, with the tags, without a code block:
{OPENING}{{"name": "<name of the tool>", "arguments": {{<its arguments>}}}}{CLOSING}
"arguments" is one JSON object that is valid by the JSON schema of the tool's arguments."""
_SEVERAL = "To call several tools at once, write several such calls one after another."
_ONE = "Write at most one call in an answer."
_AFTER = (
    "Write nothing after your calls, and never write a <tool_result> yourself: the results come in the next message, "
    "numbered in the order of your calls."
)
_FREE = "Call a tool only where it is needed. Otherwise, and once you have the results you need, answer in plain words."
_MUST = "You must call a tool now: an answer without a call is not accepted."
_NEVER = "Tools were called earlier in this conversation. Do not call any now: answer in plain words, without tags."


def told(emulation: Emulation) -> str:
    """The instructions for one request."""
    parts = []
    if emulation.offer is not None:
        parts.append(_tools(emulation.offer))
    if emulation.output is not None:
        when = (
            "Unless you call a tool, answer" if emulation.offer is not None and emulation.offer.callable else "Answer"
        )
        parts.append(_output(emulation.output, when))
    return "\n\n".join(parts)


def _tools(offer: Offer) -> str:
    if offer.mode == "none":
        return _NEVER
    lines = ["You can call these tools:", *(_tool(tool) for tool in offer.callable), _FORM]
    lines.append(_SEVERAL if offer.parallel else _ONE)
    lines.append(_AFTER)
    if offer.name is not None:
        lines.append(
            f"You must call the tool {dumps(offer.name)} now, and no other: an answer without it is not accepted."
        )
    else:
        lines.append(_MUST if offer.mode == "required" else _FREE)
    return "\n".join(lines)


def _tool(tool: Tool) -> str:
    about = f": {tool.description}" if tool.description else ""
    schema = tool.parameters if tool.parameters is not None else {"type": "object", "properties": {}}
    return f"- {tool.name}{about}\n  JSON schema of its arguments: {dumps(schema)}"


def _output(output: OutputFormat, when: str) -> str:
    text = f"{when} with one JSON object and nothing else: no words before or after it, no code block."
    if output.schema is None:
        return text
    about = f" ({output.description})" if output.description else ""
    return f'{text}\nIt must be valid by this JSON schema, "{output.name}"{about}:\n{dumps(output.schema)}'


def correction(problem: str, emulation: Emulation) -> str:
    """What is said after an answer that cannot be used."""
    lines = [f"Your answer cannot be used: {problem}."]
    offer = emulation.offer
    if offer is not None and offer.mode == "none" and emulation.output is None:
        lines.append("Answer again, in plain words and without tags.")
    elif offer is not None and offer.callable:
        lines.append(f"Answer again in full. A call has exactly this form: {_example(offer)}")
    else:
        lines.append("Answer again, with the whole corrected JSON and nothing else.")
    return "\n".join(lines)


def _example(offer: Offer) -> str:
    return f'{OPENING}{{"name": "{offer.callable[0].name}", "arguments": {{…}}}}{CLOSING}'
