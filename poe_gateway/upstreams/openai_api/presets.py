"""Providers that are known by name: their addresses, and what of the API is special there. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """One known provider. ``addresses``: base address by region, ``""`` for the only or usual one; empty when the
    operator must tell it. ``own_address``: people run it themselves, so ``base_url`` may go with it."""

    addresses: Mapping[str, str] = {}
    keyless: bool = False
    """It may be asked without a key."""
    own_address: bool = False
    balance: Literal["points", "money"] | None = None
    """What its balance is counted in, where it tells one."""
    draws_in_chats: tuple[tuple[str, ...], ...] = ()
    """Pictures are asked for by chats, with the first of these modalities, else the second; empty ones are not sent."""
    every_model: str = ""
    """Query by which its list of models holds those too that do not answer in words."""
    limit: Literal["max_tokens", "max_completion_tokens"] | None = None
    """The only name by which it takes a limit of an answer's tokens; None: it takes either."""
    cache_marks: bool = False
    """It knows ``cache_control`` of content parts; others may refuse a request for it."""
    rates_by_model: bool = False
    """It limits the rate of each model by itself."""
    quota_is_rate: bool = False
    """By ``insufficient_quota`` it means the tokens of a minute, not the end of the money."""


_DASHSCOPE = Preset(
    addresses={
        "": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "intl": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "us": "https://dashscope-us.aliyuncs.com/compatible-mode/v1",
        "cn": "https://dashscope.aliyuncs.com/compatible-mode/v1",
    },
    limit="max_tokens",
    cache_marks=True,
    rates_by_model=True,
    quota_is_rate=True,
)

PRESETS: Mapping[str, Preset] = {
    "poe": Preset(addresses={"": "https://api.poe.com/v1"}, balance="points", draws_in_chats=((),)),
    "openai": Preset(addresses={"": "https://api.openai.com/v1"}, limit="max_completion_tokens", rates_by_model=True),
    "openrouter": Preset(
        addresses={"": "https://openrouter.ai/api/v1"},
        balance="money",
        draws_in_chats=(("image", "text"), ("image",)),
        every_model="output_modalities=all",
        cache_marks=True,
        rates_by_model=True,
    ),
    "dashscope": _DASHSCOPE,
    "qwen": _DASHSCOPE,
    "ollama": Preset(addresses={"": "http://localhost:11434/v1"}, keyless=True, own_address=True, limit="max_tokens"),
    "vllm": Preset(keyless=True, own_address=True),
}


def presets_with(addresses: Mapping[str, str] | None) -> Mapping[str, Preset]:
    """The presets, those named in ``addresses`` leading elsewhere, whatever the region."""
    moved = {
        name: msgspec.structs.replace(PRESETS[name], addresses=dict.fromkeys({"", *PRESETS[name].addresses}, address))
        for name, address in (addresses or {}).items()
    }
    return {**PRESETS, **moved}
