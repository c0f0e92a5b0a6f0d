"""Is this answer good enough, or does the next tier get the request? A rule of thumb, pure.

It cannot know what is true. It finds answers that say nothing: empty ones, very short ones, and refusals, told by how
they begin. A short right answer is passed on as well, which costs a second request and never an answer: where
that happens too often, ``min_answer_chars = 0``.
"""

from __future__ import annotations

import re

from poe_gateway.chat.events import FinishReason

_LOOKED_AT = 240
"""Characters at the beginning in which a refusal shows."""
_GREETING = 40
"""Characters: up to this the first sentence may be a mere lead-in, and the second one is looked at too."""

# Written as matched: lower case, straight apostrophes, single spaces.
_REFUSALS: dict[str, tuple[str, ...]] = {
    "en": (
        r"i (can't|cannot|can not|could not|couldn't|won't|will not)( \w+)? "
        r"(help|assist|answer|provide|do that|comply|fulfil|fulfill|support|respond|continue|discuss|create|generate)",
        r"i can't( help)?\.?$",
        r"i('m| am) (not able|unable)\b",
        r"i('m| am) (very |so |really )?sorry,? (but )?i\b",
        r"i do(n't| not) (know|have (enough|sufficient|the) (information|context|knowledge))\b",
        r"i('m| am) not sure (how|what|i can)\b",
        r"as an? (ai|artificial intelligence|(large )?language model|ai (model|assistant|language model))"
        r"\s*(,|i\b|$)",
        r"(sorry|apologies|unfortunately),? (but )?i\b",
        r"i (must|have to) (decline|refuse)\b",
    ),
    "ru": (
        r"(к сожалению|извините|простите|прошу прощения),?.{0,40}\bне (могу|смогу|знаю|в состоянии|имею)",
        r"я не (могу|смогу|знаю|в состоянии|уверен)",
        r"как (языковая модель|искусственный интеллект|ии)\b",
        r"не могу (помочь|ответить|выполнить)",
    ),
    "de": (
        r"(leider|entschuldigung|tut mir leid|es tut mir leid),?.{0,60}\b(nicht|keine?n?)\b",
        r"(das |dabei |damit )?(kann|darf) ich (dir |ihnen |dabei |damit |leider )*nicht\b",
        r"ich (kann|darf|weiß|weiss) (\w+ ){0,4}nicht\b",
        r"als (ki|künstliche intelligenz|(großes )?sprachmodell)\b",
    ),
    "fr": (
        r"(désolée?|je suis désolée?|malheureusement),?.{0,60}\b(pas|ne peux)\b",
        r"je ne (peux|sais|suis|pourrai) pas\b",
        r"en tant qu('ia|'intelligence artificielle|e modèle)\b",
    ),
    "es": (
        r"(lo siento|lamentablemente|disculpa),?.{0,40}\bno (puedo|sé|tengo)\b",
        r"no (puedo|sé|soy capaz|tengo suficiente)\b",
        r"como (una )?(ia|inteligencia artificial|modelo de lenguaje)\b",
    ),
    "zh": (r"(很|非常)?抱歉", r"对不起", r"我(无法|不能|不知道)", r"作为(一个|一名)?(人工智能|ai|语言模型)"),
}
_BEGINS = re.compile("|".join(f"(?:{each})" for phrases in _REFUSALS.values() for each in phrases))
_PLAIN = str.maketrans({"’": "'", "‘": "'", "`": "'", "´": "'", "*": None, "_": None})
"""Apostrophes of all kinds as one, and no marks of emphasis."""
_SENTENCE = re.compile(r"[.!?。！？]+\s*|\n+")
_SPACES = re.compile(r"[ \t]+")
_LEAD_IN = re.compile(r"^[\s#>\"'«“„(\[-]+")


def poor(text: str, *, refused: bool, called_tools: bool, finish: FinishReason, minimum: int) -> str | None:
    """Why the next tier should be asked, in one word; None: the answer stands.

    ``refused``: the upstream itself marked it so. ``minimum``: characters, see ``Profile.min_answer_chars``.
    """
    if refused or finish == "content_filter":
        return "refusal"
    if called_tools:
        return None
    said = text.strip()
    if not said:
        return "empty"
    if _refuses(said):
        return "refusal"
    return "short" if len(said) < minimum else None


def _refuses(text: str) -> bool:
    """Whether the answer begins as refusals do."""
    beginning = _SPACES.sub(" ", text[:_LOOKED_AT].lower().translate(_PLAIN))
    sentences = [each.strip() for each in _SENTENCE.split(beginning) if each.strip()]
    leads_in = bool(sentences) and len(sentences[0]) <= _GREETING and not sentences[0].endswith(":")
    looked_at = sentences[: 2 if leads_in else 1]
    return any(_BEGINS.match(_LEAD_IN.sub("", sentence, count=1)) is not None for sentence in looked_at)
