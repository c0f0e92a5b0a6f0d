"""``options`` and the other knobs of Ollama's requests, in the names of OpenAI's chat completions. Pure."""

from __future__ import annotations

from typing import Any

from poe_gateway.chat.fields import Body, flag, integer, number
from poe_gateway.chat.request import OutputFormat
from poe_gateway.errors import InvalidRequest

DONE = "done_reason"
"""Key of ``ChatRequest.echo``: how the answer to a request that loads says that it is over."""
_MACHINE = frozenset(
    {
        "embedding_only",
        "f16_kv",
        "logits_all",
        "low_vram",
        "main_gpu",
        "num_batch",
        "num_ctx",
        "num_gpu",
        "num_keep",
        "num_thread",
        "numa",
        "use_mlock",
        "use_mmap",
        "vocab_only",
    }
)
"""How a model is loaded on one's own machine."""
_NAMES = {"num_predict": "max_tokens", "repeat_penalty": "repetition_penalty"}
_UNSAID: dict[str, float] = {
    "min_p": 0,
    "mirostat": 0,
    "repeat_penalty": 1,
    "tfs_z": 1,
    "top_k": 0,
    "typical_p": 1,
}
"""Values that switch an option off."""
_NUMBERS = frozenset(
    {*_UNSAID, "temperature", "top_p", "presence_penalty", "frequency_penalty", "mirostat_tau", "mirostat_eta"}
)
_EFFORTS = ("low", "medium", "high")
_MOST_TOKENS = 2**31 - 1


def parameters(body: Body) -> dict[str, Any]:
    """Sampling parameters of ``options``, ``think`` and ``logprobs``. Raises InvalidRequest naming the field."""
    options = body.get("options")
    if options is None:
        options = {}
    if not isinstance(options, dict):
        raise InvalidRequest("'options' must be an object.", param="options")
    found: dict[str, Any] = {}
    for name in options:
        value = _option(options, name)
        if value is not None:
            found[_NAMES.get(name, name)] = value
    return found | _thinking(body) | _logprobs(body)


def _option(options: Body, name: str) -> Any:
    """The value of one option; None: it says nothing."""
    where = "options."
    if name in _MACHINE:
        return None
    if name == "stop":
        return _stop(options["stop"])
    if name == "num_predict":
        most = integer(options, name, least=-2, most=_MOST_TOKENS, where=where)
        return most if most is not None and most > 0 else None
    if name == "seed":
        seed = integer(options, name, least=-(2**63), most=2**63 - 1, where=where)
        return seed if seed is not None and seed >= 0 else None
    if name in _NUMBERS:
        value = number(options, name, where=where)
        return None if value is not None and value == _UNSAID.get(name) else value
    return options[name]


def _stop(value: Any) -> list[str] | None:
    entries = [value] if isinstance(value, str) else value
    if entries is None:
        return None
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise InvalidRequest("'options.stop' must be a string or a list of strings.", param="options.stop")
    return [entry for entry in entries if entry] or None


def _thinking(body: Body) -> dict[str, Any]:
    """``think`` as ``reasoning_effort``: true asks for a middling one."""
    think = body.get("think")
    if think is None:
        return {}
    if isinstance(think, bool):
        return {"reasoning_effort": "medium" if think else "none"}
    if isinstance(think, str) and think in _EFFORTS:
        return {"reasoning_effort": think}
    raise InvalidRequest(f"'think' must be true, false, or one of {', '.join(_EFFORTS)}.", param="think")


def _logprobs(body: Body) -> dict[str, Any]:
    if not flag(body, "logprobs"):
        return {}
    most = integer(body, "top_logprobs", least=0, most=20)
    return {"logprobs": True} | ({"top_logprobs": most} if most else {})


def output_format(value: Any) -> OutputFormat | None:
    """``format``: ``json``, or a JSON schema. Raises InvalidRequest."""
    if value is None or value == "":
        return None
    if value == "json":
        return OutputFormat(kind="json_object")
    if isinstance(value, dict):
        return OutputFormat(kind="json_schema", schema=value)
    raise InvalidRequest("'format' must be 'json' or a JSON schema.", param="format")
