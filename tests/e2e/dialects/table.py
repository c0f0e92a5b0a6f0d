"""All dialects, in the order of the document."""

from __future__ import annotations

from tests.e2e.dialects.chat import CHAT
from tests.e2e.dialects.making import MAKING
from tests.e2e.dialects.messages import MESSAGES
from tests.e2e.dialects.ollama import OLLAMA
from tests.e2e.dialects.responses import RESPONSES

DIALECTS = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
    "/api/chat": OLLAMA,
    "Embeddings and images": MAKING,
}
