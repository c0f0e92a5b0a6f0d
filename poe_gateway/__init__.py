"""poe_gateway: a broker for pools of chat accounts behind an OpenAI-compatible API."""

__version__ = "0.1.0"
