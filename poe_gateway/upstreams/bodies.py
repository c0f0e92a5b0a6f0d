"""What is asked of a provider as the bytes that are sent, or as the failure that it is."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, TypeVar

import orjson

from poe_gateway.pool.outcome import Rejected
from poe_gateway.upstreams.base import UpstreamFailure

T = TypeVar("T")


class NotAskable(ValueError):
    """What is asked for has no place in the provider's API; the text may be shown to the caller."""


def stand_in(prefix: str, name: str) -> str:
    """A short name in the place of one that an API refuses, the same wherever that stands."""
    return prefix + blake2b(name.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def askable(make: Callable[[], T]) -> T:
    """What ``make`` makes. Raises UpstreamFailure for what has no place in the API."""
    try:
        return make()
    except NotAskable as error:
        raise UpstreamFailure(Rejected(public=str(error), code="unsupported_parameter")) from None


def json_body(make: Callable[[], dict[str, Any]]) -> bytes:
    """A body as it is sent. Raises UpstreamFailure for what cannot be."""
    try:
        return orjson.dumps(askable(make))
    except (TypeError, RecursionError):  # half a surrogate pair, an integer beyond 64 bits, a bottomless schema
        raise UpstreamFailure(Rejected(public="The request cannot be written as JSON.")) from None
