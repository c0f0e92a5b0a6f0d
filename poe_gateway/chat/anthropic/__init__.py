"""The ``/v1/messages`` dialect of Anthropic's SDKs."""

from poe_gateway.chat.anthropic.messages import AnthropicMessages, parse

__all__ = ["AnthropicMessages", "parse"]
