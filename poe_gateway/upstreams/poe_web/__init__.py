"""The cookie-authenticated web chat of poe.com as an upstream: one connection per account, protocol as data."""

from poe_gateway.upstreams.poe_web.adapter import PoeWeb
from poe_gateway.upstreams.poe_web.options import PoeOptions
from poe_gateway.upstreams.poe_web.protocol import ProtocolData, ProtocolError, load_protocol

__all__ = ["PoeOptions", "PoeWeb", "ProtocolData", "ProtocolError", "load_protocol"]
