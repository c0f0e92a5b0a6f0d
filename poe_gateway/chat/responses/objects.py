"""The response object, its output items and usage as they stand on the wire. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from poe_gateway.chat.dialect import Head, Reply
from poe_gateway.chat.events import FinishReason, ImageMade
from poe_gateway.chat.responses.echo import Item, echo_of
from poe_gateway.chat.sse import sendable
from poe_gateway.chat.usage import Usage
from poe_gateway.errors import GatewayError

Status = Literal["in_progress", "completed", "incomplete"]
_CUT: dict[FinishReason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
_RATE_LIMITED = 429


def item_id(kind: str, response_id: str, nth: int = 0) -> str:
    """The id of an item of a response: a reference to it tells whose it is."""
    mark = response_id.partition("_")[2] or response_id
    return f"{kind}_{mark}_{nth}" if nth else f"{kind}_{mark}"


def response_of(item: str) -> str:
    """The id of the response that an item's id tells; something unknown for foreign ids."""
    mark = item.partition("_")[2].partition("_")[0]
    return f"resp_{mark}"


def response(head: Head, status: str, output: list[Item]) -> dict[str, Any]:
    """The object before its answer is complete; ``finished`` and ``failed`` fill in the rest."""
    echo = echo_of(head.request)
    return {
        "id": head.id,
        "object": "response",
        "created_at": head.created,
        "status": status,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": head.model,
        "output": output,
        "store": echo.store,
        "usage": None,
        **echo.form,
    }


def finished(reply: Reply, output: list[Item]) -> dict[str, Any]:
    """The object of a whole answer."""
    cut = _CUT.get(reply.finish)
    told = response(reply.head, "completed" if cut is None else "incomplete", output)
    if cut is None:
        told["completed_at"] = reply.head.created + int(reply.seconds)
    else:
        told["incomplete_details"] = {"reason": cut}
    told["store"] = reply.kept
    told["usage"] = usage(reply.usage)
    return told


def failed(head: Head, output: list[Item], error: GatewayError) -> dict[str, Any]:
    """The object of an answer that broke off. ``code`` is from the API's closed list."""
    told = response(head, "failed", output)
    code = "server_error"
    if error.status == _RATE_LIMITED:
        code = "rate_limit_exceeded"
    elif error.status < 500:
        code = "invalid_prompt"
    told["error"] = {
        "code": code,
        "message": sendable(error.message),
        "type": error.type,
        "param": sendable(error.param),
    }
    told["store"] = False
    return told


def usage(used: Usage) -> dict[str, Any]:
    """``usage`` with every field that the API requires, and ours."""
    return {
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": {"cached_tokens": used.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": used.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
        "total_tokens": used.total_tokens,
        **used.extras(),
    }


def last_status(finish: FinishReason) -> Status:
    """Of the item in which an answer ended."""
    return "incomplete" if finish in _CUT else "completed"


class CallIds:
    """Ids of calls by which they can be answered: none is empty, none stands twice."""

    def __init__(self, response_id: str) -> None:
        self._response = response_id
        self._used: set[str] = set()

    def new(self, given: str) -> str:
        """The model's own id where it serves."""
        chosen = given
        while not chosen or chosen in self._used:
            chosen = item_id("call", self._response, len(self._used) + 1)
            if chosen in self._used:
                chosen += "_"
        self._used.add(chosen)
        return chosen


def output(reply: Reply) -> list[Item]:
    """The items of a whole answer: thinking, message, calls, pictures."""
    items: list[Item] = []
    head = reply.head
    if reply.reasoning or reply.signature:
        summary = echo_of(head.request).summary
        items.append(thought(item_id("rs", head.id), reply.reasoning, summary, reply.signature, "completed"))
    if reply.text or reply.refusal:
        content = [text_part(reply.text, reply.logprobs or ())] if reply.text else []
        if reply.refusal:
            content.append(refusal_part(reply.refusal))
        items.append(message(item_id("msg", head.id), content, "completed"))
    ids = CallIds(head.id)
    for nth, made in enumerate(reply.tool_calls):
        items.append(call(item_id("fc", head.id, nth), ids.new(made.id), made.name, made.arguments, "completed"))
    items += [picture(item_id("ig", head.id, nth), image) for nth, image in enumerate(reply.images)]
    if items and items[-1]["type"] != "image_generation_call":
        items[-1]["status"] = last_status(reply.finish)
    return items


def message(item: str, content: list[dict[str, Any]], status: Status) -> Item:
    """What the assistant says."""
    return {"id": item, "type": "message", "status": status, "role": "assistant", "content": content}


def text_part(text: str, logprobs: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
    """A piece of a message."""
    said = [logprob(each) for each in logprobs]
    return {"type": "output_text", "text": sendable(text), "annotations": [], "logprobs": said}


def refusal_part(text: str) -> dict[str, Any]:
    """What is said instead of an answer."""
    return {"type": "refusal", "refusal": sendable(text)}


def thought(item: str, text: str, summary: bool, signature: str | None, status: Status) -> Item:
    """The model's thinking."""
    told: Item = {"id": item, "type": "reasoning", "summary": [], "status": status}
    if text and summary:
        told["summary"] = [{"type": "summary_text", "text": sendable(text)}]
    elif text:
        told["content"] = [{"type": "reasoning_text", "text": sendable(text)}]
    if signature is not None:
        told["encrypted_content"] = signature
    return told


def call(item: str, call_id: str, name: str, arguments: str, status: Status) -> Item:
    """A call of a function."""
    return {
        "id": item,
        "type": "function_call",
        "status": status,
        "call_id": sendable(call_id),
        "name": sendable(name),
        "arguments": sendable(arguments),
    }


def picture(item: str, image: ImageMade, status: Status = "completed") -> Item:
    """A picture. ``url`` is ours: the API knows pictures by their bytes only."""
    told: Item = {"id": item, "type": "image_generation_call", "status": status, "result": image.base64}
    if image.url is not None:
        told["url"] = sendable(image.url)
    if image.revised_prompt is not None:
        told["revised_prompt"] = sendable(image.revised_prompt)
    return told


def logprob(entry: dict[str, Any]) -> dict[str, Any]:
    """A token's probability in chat completions' shape, in the full form that this API requires."""
    alike = entry.get("top_logprobs")
    others = [_token(each) for each in alike if isinstance(each, dict)] if isinstance(alike, list) else []
    return {**_token(entry), "top_logprobs": others}


def _token(entry: dict[str, Any]) -> dict[str, Any]:
    token, given = sendable(str(entry.get("token", ""))) or "", entry.get("bytes")
    return {
        "token": token,
        "bytes": given if isinstance(given, list) else list(token.encode()),
        "logprob": entry.get("logprob", 0.0),
    }
