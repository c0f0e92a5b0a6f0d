"""An answer that no upstream gave: the fixed reply of a profile, or that a model is there.

To the endpoint it looks like a ``ChatStream``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from poe_gateway.chat import estimate
from poe_gateway.chat.events import ChatEvent, Finished, TextDelta
from poe_gateway.chat.request import ChatRequest
from poe_gateway.chat.usage import Usage
from poe_gateway.dispatch.answer import Answer


class CannedStream:
    """``text``, which may be empty. Costs nothing and holds nothing."""

    attempt = None
    charge = None

    def __init__(self, request: ChatRequest, model: str, text: str, profile: str) -> None:
        self.request = request
        self.model = model
        self.answer = Answer()
        self.profile = profile
        self.label = ""
        self.tier: str | None = None
        self.escalations = 0
        self.judged = ""
        self._text = text

    async def events(self) -> AsyncGenerator[ChatEvent, None]:
        """The text, then the end."""
        said: list[ChatEvent] = [TextDelta(self._text)] if self._text else []
        for event in (*said, Finished()):
            self.answer.observe(event)
            yield event

    async def aclose(self) -> None:
        """Nothing is open."""

    def usage(self) -> Usage:
        """Nothing was counted, for nobody was asked."""
        prompt, completion = estimate.prompt_tokens(self.request), estimate.tokens(len(self._text))
        return Usage(prompt_tokens=prompt, completion_tokens=completion, counted="estimate")
