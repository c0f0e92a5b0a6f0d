"""Sampling parameters that an upstream does not follow: which change nothing, which are emulated, which are refused.

Names are those of OpenAI's chat completions. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from poe_gateway.errors import InvalidRequest

_HARMLESS = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prediction",
    }
)
"""They tell about the caller, or how to keep and speed up things; no answer depends on them."""
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "temperature": (1,),
    "top_p": (1,),
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "top_k": (0, -1),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "echo": (False,),
    "modalities": (["text"],),
    "verbosity": ("medium",),
    "parallel_tool_calls": (True,),
    "size": ("auto",),
    "quality": ("auto",),
    "background": ("auto",),
    "moderation": ("auto",),
    "encoding_format": ("float",),
    "reasoning_effort": ("none",),
    "thinking": ({"type": "disabled"}, {"type": "adaptive"}),
    "speed": ("standard",),
}
"""Values that ask for what happens anyway."""
STOP = "stop"
LIMITS = ("max_completion_tokens", "max_tokens")
_MOST_STOPS = 16
_LONGEST_STOP = 1024


def changes_nothing(name: str, value: object) -> bool:
    """Whether the answer would be the same without it."""
    if value is None or name in _HARMLESS:
        return True
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in _NEUTRAL.get(name, ()))


def stop_sequences(value: Any) -> tuple[str, ...]:
    """``stop``: a text or several. Raises InvalidRequest."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > _MOST_STOPS:
        raise InvalidRequest(f"'stop' must be a string, or a list of at most {_MOST_STOPS}.", param=STOP)
    if not all(isinstance(text, str) and 0 < len(text) <= _LONGEST_STOP for text in texts):
        raise InvalidRequest(f"'stop' takes strings of 1 to {_LONGEST_STOP} characters.", param=STOP)
    return tuple(dict.fromkeys(texts))


def token_limit(name: str, value: Any) -> int:
    """``max_tokens`` or its newer name. Raises InvalidRequest."""
    if type(value) is not int or value < 1:
        raise InvalidRequest(f"'{name}' must be a whole number above 0.", param=name)
    return value
