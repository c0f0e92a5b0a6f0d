"""From "the whole text so far" to pieces, pure.

Every update of an answer carries its whole text. Usually it continues what is known; sometimes the site
replaces it. So prefixes are compared, and the known text is never sliced off blindly.
"""

from __future__ import annotations

from poe_gateway.chat.events import TextDelta, TextReplaced


class GrowingText:
    """The text said so far, and what must be said next to get to a newer one."""

    def __init__(self) -> None:
        self.text = ""

    def advance(self, whole: str) -> TextDelta | TextReplaced | None:
        """Take the newest whole text; None when nothing is new."""
        known, self.text = self.text, whole
        if whole == known:
            return None
        if whole.startswith(known):
            return TextDelta(whole[len(known) :])
        return TextReplaced(whole)
