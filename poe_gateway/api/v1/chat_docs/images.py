"""``/v1/images/generations`` and ``/v1/images/edits``: bodies and operations, for the documentation."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from poe_gateway.api.v1.chat_docs.operation import MODEL, GatewayFigures, Operation


class ImageTerms(BaseModel):
    """What is asked of pictures. Further parameters are passed on to upstreams that follow them."""

    model_config = ConfigDict(extra="allow")

    model: str = MODEL
    prompt: str = Field(min_length=1, max_length=32_000)
    n: int | None = Field(default=None, ge=1, le=10)
    response_format: Literal["url", "b64_json"] | None = Field(
        default=None, description="Whatever the upstream gives: bytes become a data URL, addresses are fetched."
    )
    size: str | None = Field(default=None, max_length=64)
    quality: str | None = Field(default=None, max_length=64)
    background: str | None = Field(default=None, max_length=64)
    style: str | None = Field(default=None, max_length=64)
    moderation: str | None = Field(default=None, max_length=64)
    output_format: str | None = Field(default=None, max_length=64)
    output_compression: int | None = Field(default=None, ge=0, le=100)
    partial_images: int | None = Field(default=None, ge=0, le=3)
    user: str | None = Field(default=None, max_length=512)
    stream: Literal[False] | None = False


class ImageRequest(ImageTerms):
    """OpenAI's request for new pictures."""


class ImageReference(BaseModel):
    """A picture by its http(s) address or as a data:image URL."""

    image_url: str


class ImageEditRequest(ImageTerms):
    """A request to edit pictures, as JSON: the pictures in ``images`` or ``image``."""

    input_fidelity: str | None = Field(default=None, max_length=64)
    images: list[ImageReference | str] | None = Field(default=None, min_length=1, max_length=16)
    image: str | ImageReference | list[ImageReference | str] | None = None
    mask: str | ImageReference | None = None


class ImageEditForm(ImageTerms):
    """The same as a form, as OpenAI's SDKs send it: the fields of lists may have brackets (``image[]``)."""

    input_fidelity: str | None = Field(default=None, max_length=64)
    image: list[bytes] = Field(
        min_length=1, max_length=16, description="PNG, JPEG, GIF or WebP, each of at most 20 MiB."
    )
    mask: bytes | None = None


class Picture(BaseModel):
    """A picture by its address or in base64."""

    url: str | None = None
    b64_json: str | None = None
    revised_prompt: str | None = None


class ImageInputTokens(BaseModel):
    """Upstreams tell one figure: all of it counts as text."""

    text_tokens: int
    image_tokens: int


class ImageUsage(GatewayFigures):
    """Tokens and cost."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: ImageInputTokens


class ImageList(BaseModel):
    """The pictures."""

    created: int
    data: list[Picture]
    usage: ImageUsage


GENERATIONS = Operation(
    id="create_image",
    tag="images",
    summary="New pictures",
    description="OpenAI's images, of upstreams that make them; Poe's image bots too.",
    asks=ImageRequest,
    answers=ImageList,
    examples={
        "address": {"model": "FLUX-schnell", "prompt": "A red dot."},
        "bytes": {
            "model": "FLUX-schnell",
            "prompt": "A red dot.",
            "n": 1,
            "size": "1024x1024",
            "response_format": "b64_json",
        },
    },
)
EDITS = Operation(
    id="edit_image",
    tag="images",
    summary="Pictures from pictures",
    description="OpenAI's edits of images, as a form or as JSON.",
    asks=ImageEditRequest,
    form=ImageEditForm,
    answers=ImageList,
    examples={
        "by address": {
            "model": "FLUX-schnell",
            "prompt": "Make it blue.",
            "images": [{"image_url": "https://example.com/dot.png"}],
        },
        "one": {"model": "FLUX-schnell", "prompt": "Make it blue.", "image": "https://example.com/dot.png"},
    },
)
