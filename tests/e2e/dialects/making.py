"""Embeddings and images, in OpenAI's dialect and in Ollama's."""

from __future__ import annotations

from typing import Any

from tests.e2e.dialects.asks import HELLO, Answer, Ask, Dialect
from tests.e2e.obedient import DOT


def _made(body: Any) -> Answer:
    return Answer(items=len(body["data"] if "data" in body else body["embeddings"]))


MAKING = Dialect(
    {
        "/v1/embeddings": lambda model, picture: Ask("/v1/embeddings", {"model": model, "input": [HELLO]}),
        "/api/embed": lambda model, picture: Ask("/api/embed", {"model": model, "input": [HELLO]}),
        "/v1/images/generations": lambda model, picture: Ask(
            "/v1/images/generations", {"model": model, "prompt": "A red dot"}
        ),
        "/v1/images/edits": lambda model, picture: Ask(
            "/v1/images/edits",
            {"model": model, "prompt": "Make it blue"},
            {"image": ("dot.png", DOT, "image/png")},
        ),
    },
    _made,
)
