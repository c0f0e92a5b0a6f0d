"""``/openapi.json`` as it is served, and its schemas as judges of bodies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from copy import deepcopy
from functools import cache
from typing import Any

from fastapi import FastAPI
from jsonschema import Draft202012Validator

from poe_gateway.api.admin import router
from poe_gateway.api.application import create_app
from poe_gateway.api.v1.hot import DIALECTS
from poe_gateway.chat.dialect import Dialect

HOT: dict[str, Dialect] = {dialect.route: dialect for dialect in [make() for make in DIALECTS]}
"""Dialects by the paths of their routes."""


@cache
def document() -> dict[str, Any]:
    """The description of the whole application. Do not change it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield

    return create_app(lifespan, [router()]).openapi()


def operation(path: str) -> dict[str, Any]:
    """What is said of a hot route."""
    found: dict[str, Any] = document()["paths"][path]["post"]
    return found


def asked(path: str, kind: str = "application/json") -> dict[str, Any]:
    """The schema of a hot route's body, without its own reference."""
    return resolved(operation(path)["requestBody"]["content"][kind]["schema"])


def answered(path: str, status: str = "200") -> dict[str, Any]:
    """The schema of a hot route's whole answer, or of its failures, as a reference."""
    found: dict[str, Any] = operation(path)["responses"][status]["content"]["application/json"]["schema"]
    return found


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """What a reference leads to."""
    while "$ref" in schema:
        found: Any = document()
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        schema = found
    return schema


def examples(path: str) -> dict[str, dict[str, Any]]:
    """The example bodies of a hot route, by name."""
    told = operation(path)["requestBody"]["content"]["application/json"]["examples"]
    return {name: each["value"] for name, each in told.items()}


def judge(schema: dict[str, Any], *, strict: bool = False) -> Draft202012Validator:
    """A validator of one of the document's schemas. ``strict``: no object has fields that are not described."""
    components = document()["components"]
    if strict:
        components = _closed(deepcopy(components))
    return Draft202012Validator({**schema, "components": components})


def _closed(schema: Any) -> Any:
    for each in _objects(schema):
        if "properties" in each:
            each.setdefault("additionalProperties", False)
    return schema


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for each in list(value.values()):
            yield from _objects(each)
    elif isinstance(value, list):
        for each in value:
            yield from _objects(each)


def described_names(schema: dict[str, Any]) -> set[str]:
    """Names of all fields that a schema and what it refers to describe."""
    names: set[str] = set()
    seen: set[str] = set()
    waiting = [schema]
    while waiting:
        for each in _objects(waiting.pop()):
            names |= each.get("properties", {}).keys()
            reference = each.get("$ref")
            if isinstance(reference, str) and reference not in seen:
                seen.add(reference)
                waiting.append(resolved(each))
    return names


def used_names(value: Any) -> set[str]:
    """Names of all fields of a JSON value."""
    return {name for each in _objects(value) for name in each}


def references() -> set[str]:
    """Everything that the document refers to."""
    return {each["$ref"] for each in _objects(document()) if isinstance(each.get("$ref"), str)}
