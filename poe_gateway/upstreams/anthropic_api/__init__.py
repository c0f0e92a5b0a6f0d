"""Anthropic's own API, and servers that speak it, by API key."""

from poe_gateway.upstreams.anthropic_api.adapter import AnthropicAPI

__all__ = ["AnthropicAPI"]
