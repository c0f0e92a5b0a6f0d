"""A provider without network, part of the product: demonstrations, rehearsals, tests."""

from poe_gateway.upstreams.mock.adapter import MockUpstream
from poe_gateway.upstreams.mock.memory import Stats

__all__ = ["MockUpstream", "Stats"]
