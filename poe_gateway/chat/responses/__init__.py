"""The ``/v1/responses`` dialect: items in, a response object or its events out. Pure."""

from poe_gateway.chat.responses.dialect import OpenAIResponses

__all__ = ["OpenAIResponses"]
