"""``/v1/embeddings``: bodies and the operation, for the documentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from poe_gateway.api.v1.chat_docs.operation import MODEL, GatewayFigures, Operation

_MOST = 2048
Text = Annotated[str, Field(min_length=1)]
Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=_MOST)]


class EmbeddingRequest(BaseModel):
    """OpenAI's request for embeddings. Further parameters are passed on to upstreams that follow them."""

    model_config = ConfigDict(extra="allow")

    model: str = MODEL
    input: Text | Texts | Tokens | Annotated[list[Tokens], Field(min_length=1, max_length=_MOST)] = Field(
        description="A text, or several; or the same in tokens."
    )
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(default=None, ge=1, le=65_536)
    user: str | None = Field(default=None, max_length=512)
    stream: Literal[False] | None = False


class Embedding(BaseModel):
    """The vector of input number ``index``; in base64 little-endian floats of 32 bits."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(GatewayFigures):
    """Tokens and cost."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """All vectors in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


EMBEDDINGS = Operation(
    id="create_embedding",
    tag="embeddings",
    summary="Embeddings",
    description="OpenAI's embeddings, of upstreams that make them.",
    asks=EmbeddingRequest,
    answers=EmbeddingList,
    examples={
        "one": {"model": "text-embedding-3-small", "input": "Hello."},
        "several": {"model": "text-embedding-3-small", "input": ["Hello.", "Bye."], "dimensions": 256},
        "tokens": {"model": "text-embedding-3-small", "input": [[9906, 13]], "encoding_format": "base64"},
    },
)
