"""The ``openai`` package: embeddings and images."""

from __future__ import annotations

import base64
from typing import Any

from openai import OpenAI
from telling import KEY, MODEL, URL, tell

client = OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)

# One red pixel.
DOT = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC")


def embeddings() -> dict[str, Any]:
    answer = client.embeddings.create(model=MODEL, input=["one", "two"])
    return {"sizes": [len(each.embedding) for each in answer.data], "tokens": answer.usage.total_tokens}


def images() -> dict[str, Any]:
    answer = client.images.generate(model=MODEL, prompt="A red dot", response_format="b64_json")
    return {"bytes": bool(base64.b64decode(answer.data[0].b64_json)), "count": len(answer.data)}


def addresses() -> dict[str, Any]:
    answer = client.images.generate(model=MODEL, prompt="A red dot", response_format="url")
    return {"url": answer.data[0].url.partition(":")[0], "count": len(answer.data)}


def edits() -> dict[str, Any]:
    answer = client.images.edit(model=MODEL, image=("dot.png", DOT, "image/png"), prompt="Make it blue")
    return {"count": len(answer.data)}


def vision() -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(DOT).decode()}"
    parts: Any = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    return {"text": answer.choices[0].message.content}


tell(embeddings, images, addresses, edits, vision)
