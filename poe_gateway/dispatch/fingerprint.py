"""The name of a body: the same for the same question to the same model, whoever asks and how often. Pure.

Made for every request, so it is one pass over the bytes. Nothing of the text can be read from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b

from msgspec import to_builtins

from poe_gateway.chat.request import ChatRequest, TextPart

_NOISE = frozenset(
    {
        "frequency_penalty",
        "logprobs",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "seed",
        "service_tier",
        "store",
        "temperature",
        "top_logprobs",
        "top_p",
    }
)
"""Parameters that do not change what is asked, only how it is sampled or kept: a repetition with another seed is the
same body."""


def fingerprint(request: ChatRequest, model_key: str) -> str:
    """32 hex characters over model, messages and the parameters that change what is asked.

    ``model_key`` is the planned model. Lengths go before texts, so that no text can imitate the seams.
    """
    hasher = blake2b(digest_size=16)
    update = hasher.update
    model = model_key.encode("utf-8", "surrogatepass")
    update(b"%d %b" % (len(model), model))
    for message in request.messages:
        update(b"m" + message.role.encode())
        for part in message.parts:
            if isinstance(part, TextPart):
                text = part.text.encode("utf-8", "surrogatepass")
                update(b"t%d " % len(text))
            else:
                text = part.url.encode("utf-8", "surrogatepass")
                detail = part.detail.encode("utf-8", "surrogatepass")
                update(b"i%d %d %b" % (len(text), len(detail), detail))
            update(text)
            if part.cache:
                update(b"c" + _fields(part.cache))
        if message.tool_calls or message.tool_call_id or message.name or message.extra:
            calls = [(call.id, call.name, call.arguments) for call in message.tool_calls]
            update(b"x" + _fields({**message.extra, "": (calls, message.tool_call_id, message.name)}))
    asked = {key: value for key, value in request.parameters.items() if key not in _NOISE}
    if request.tools or request.output is not None or request.tool_choice is not None:
        asked[""] = to_builtins((request.tools, request.tool_choice, request.output))
    if request.operation != "chat":
        asked["operation"] = request.operation
        asked["inputs"] = [list(each) for each in request.inputs if isinstance(each, tuple)]
    if asked:
        update(b"p" + _fields(asked))
    return hasher.hexdigest()


def _fields(values: Mapping[str, object]) -> bytes:
    """JSON in one spelling. Not orjson: callers may send numbers beyond 64 bits and lone surrogates."""
    try:
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    except RecursionError:
        # Nested as deeply as the parser allows: the names alone must do.
        return b"deep" + json.dumps(sorted(values)).encode()
