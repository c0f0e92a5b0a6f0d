"""What is told of a model beside its name: what it can do at its providers, and what it costs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal, InvalidOperation
from typing import Any, Literal

import msgspec

from poe_gateway.metering.pricing import PriceRule
from poe_gateway.upstreams.base import Capabilities

Support = Literal["native", "emulated"]

_EXACT = Context(prec=100)
_MILLION = 6
_SMALLEST, _LARGEST = -24, 15
"""Powers of ten between which a number is taken for a price."""
_FORMS = frozenset({"tools", "tool_choice", "parallel_tool_calls", "response_format", "structured_outputs"})
"""Parameters that are told as capabilities of their own."""
_OPERATIONS = {"text": "chat", "image": "image", "embedding": "embed", "embeddings": "embed"}
"""By what a model gives."""
_TOLD = {"prompt": "input", "completion": "output", "input_cache_read": "cached"}
"""A provider's prices per token, in its words and in ours."""


class ModelCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """The best of what the providers of a model can do. None: nothing is known, or it cannot be had."""

    operations: tuple[str, ...]
    """Of ``chat``, ``embed``, ``image``."""
    tools: Support | None
    structured_output: Support | None
    vision: bool | None
    streaming: bool
    parameters: tuple[str, ...] | None
    """Sampling parameters that are followed; None: whatever is given is passed on."""


class Price(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a caller pays at one provider: decimal numbers as text, of ``currency``, any markup included."""

    provider: str
    source: Literal["rule", "upstream"]
    """The operator's rule, or what the provider's own list says."""
    currency: str | None = None
    input: str | None = None
    """For a million tokens, as are ``output`` and ``cached``."""
    output: str | None = None
    cached: str | None = None
    request: str | None = None
    point: str | None = None
    """For one of the upstream's points."""
    image: str | None = None
    points: int | None = None
    """Points of the upstream that a message costs, roughly."""


def least(counts: Iterable[Any]) -> int | None:
    """The smallest of the known ones: what holds wherever a request goes."""
    known = [each for each in counts if isinstance(each, int) and not isinstance(each, bool) and each > 0]
    return min(known, default=None)


def merged(served: Sequence[tuple[Capabilities, Mapping[str, Any]]]) -> ModelCapabilities:
    """What a model can do, from its providers' capabilities and from what each of them tells of it."""
    each = [_capabilities(can, details) for can, details in served]
    visions = [one.vision for one in each]
    followed = [one.parameters for one in each]
    return ModelCapabilities(
        operations=tuple(sorted({operation for one in each for operation in one.operations})),
        tools=_best([one.tools for one in each]),
        structured_output=_best([one.structured_output for one in each]),
        vision=True if True in visions else None if None in visions else False,
        streaming=any(one.streaming for one in each),
        parameters=None if None in followed else tuple(sorted({name for names in followed for name in names or ()})),
    )


def _best(found: Sequence[Support | None]) -> Support | None:
    return "native" if "native" in found else "emulated" if "emulated" in found else None


def _capabilities(can: Capabilities, details: Mapping[str, Any]) -> ModelCapabilities:
    gives, told = details.get("output_modalities"), details.get("supported_parameters")
    operations: set[str] = set(can.operations)
    if gives:
        # What the adapter cannot ask for in a way of its own comes by chat, if at all.
        operations = operations & {_OPERATIONS.get(str(word), "chat") for word in gives} or {"chat"}
    chats = "chat" in operations
    return ModelCapabilities(
        operations=tuple(sorted(operations)),
        tools=_support(can.tools, told, ("tools",)) if chats else None,
        structured_output=_support(can.structured, told, ("response_format", "structured_outputs")) if chats else None,
        vision=_vision(can, details) if chats else False,
        streaming=chats,
        parameters=_parameters(can.parameters, told),
    )


def _support(native: bool, told: Any, names: Sequence[str]) -> Support | None:
    """Emulated where the provider cannot; None where it could, and says that this model cannot."""
    if not native:
        return "emulated"
    return "native" if not told or any(name in told for name in names) else None


def _vision(can: Capabilities, details: Mapping[str, Any]) -> bool | None:
    if not can.images:
        return False
    takes, images = details.get("input_modalities"), details.get("images")
    if takes:
        return "image" in takes
    return images if isinstance(images, bool) else None


def _parameters(followed: frozenset[str] | None, told: Any) -> tuple[str, ...] | None:
    if followed is not None:
        return tuple(sorted(followed))
    return tuple(sorted(set(told) - _FORMS)) if told else None


def prices(served: Iterable[tuple[str, Mapping[str, Any], PriceRule | None]]) -> tuple[Price, ...]:
    """What a model costs, once for each provider and price that is known."""
    found = (_price(provider, details, rule) for provider, details, rule in served)
    return tuple(dict.fromkeys(price for price in found if price is not None))


def _price(provider: str, details: Mapping[str, Any], rule: PriceRule | None) -> Price | None:
    points = least([details.get("points")])
    if rule is not None and rule.priced:
        names = ("input", "output", "cached", "request", "point")
        told = {name: _billed(value, rule) for name in names if (value := getattr(rule, name)) is not None}
        return Price(provider=provider, source="rule", currency=rule.currency, points=points, **told)
    asked = details.get("pricing")
    told = _asked(asked, rule) if isinstance(asked, Mapping) else {}
    if not told and points is None:
        return None
    return Price(provider=provider, source="upstream", currency="USD" if told else None, points=points, **told)


def _asked(asked: Mapping[str, Any], rule: PriceRule | None) -> dict[str, str]:
    """A provider's own prices per token, request or image, with the markup of a rule that has no prices."""
    told = {}
    for theirs, amount in asked.items():
        ours = _TOLD.get(theirs, theirs)
        if theirs not in _TOLD and theirs not in ("request", "image"):
            continue
        value = _decimal(amount)
        if value is not None:
            told[ours] = _billed(value.scaleb(_MILLION, _EXACT) if theirs in _TOLD else value, rule)
    # A price of nothing for a request only means that there is none.
    return {name: text for name, text in told.items() if text != "0" or name in _TOLD.values()}


def _decimal(amount: Any) -> Decimal | None:
    try:
        value = _EXACT.create_decimal(str(amount))
    except InvalidOperation:
        return None
    if not value.is_finite() or value < 0:
        return None
    return value if value == 0 or _SMALLEST <= value.adjusted() <= _LARGEST else None


def _billed(value: Decimal, rule: PriceRule | None) -> str:
    if rule is not None:
        value = _EXACT.scaleb(_EXACT.multiply(value, _EXACT.add(Decimal(100), rule.markup_percent)), -2)
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
