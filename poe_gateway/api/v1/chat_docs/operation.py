"""What is told of one hot route beside that which its dialect says itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import BaseModel, Field


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One route. ``examples``: bodies by name, each of which the route takes. ``streamed``: what a stream consists of,
    empty where there is none. ``form``: the body as a form, where one is taken too."""

    id: str
    tag: str
    summary: str
    description: str
    asks: type[BaseModel]
    answers: type[BaseModel]
    examples: Mapping[str, dict[str, Any]]
    streamed: str = ""
    form: type[BaseModel] | None = None


class GatewayFigures(BaseModel):
    """What usage tells beyond the dialect; each is there where it applies."""

    estimated: bool | None = Field(default=None, description="True: the upstream did not tell the tokens.")
    counted_by: str | None = Field(default=None, description="With `estimated`: `tokenizer` or `estimate`.")
    points: int | None = Field(default=None, description="The price that the upstream told in points.")
    raw_cost: float | None = Field(
        default=None,
        description="What the upstream asks, if a price is known. Exact as it is written: read it as a decimal number.",
    )
    billed_cost: float | None = Field(default=None, description="With markup: what budgets are charged. Exact too.")
    currency: str | None = Field(default=None, description="Of both costs.")


class FunctionSchema(BaseModel):
    """A function that the model may call."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] | None = Field(default=None, description="JSON schema of its arguments.")
    strict: bool | None = None


MODEL = Field(
    min_length=1,
    max_length=256,
    description="A model, an alias, a tier, a profile, or `provider:model`.",
)
