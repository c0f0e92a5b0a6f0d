"""OpenAI-compatible providers by API key."""

from poe_gateway.upstreams.openai_api.adapter import OpenAIAPI

__all__ = ["OpenAIAPI"]
