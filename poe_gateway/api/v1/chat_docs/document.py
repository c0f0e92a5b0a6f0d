"""The hot routes are put into FastAPI's OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from poe_gateway.api.v1.chat_docs import headers
from poe_gateway.api.v1.chat_docs.chat_completions import CHAT
from poe_gateway.api.v1.chat_docs.embeddings import EMBEDDINGS
from poe_gateway.api.v1.chat_docs.failures import OF_SHAPE, STATUSES
from poe_gateway.api.v1.chat_docs.images import EDITS, GENERATIONS
from poe_gateway.api.v1.chat_docs.messages import MESSAGES
from poe_gateway.api.v1.chat_docs.messages_requests import CountedMessages
from poe_gateway.api.v1.chat_docs.ollama import OLLAMA_CHAT, OLLAMA_EMBED, OLLAMA_EMBEDDINGS, OLLAMA_GENERATE
from poe_gateway.api.v1.chat_docs.operation import Operation
from poe_gateway.api.v1.chat_docs.responses import RESPONSES
from poe_gateway.api.v1.hot import DIALECTS
from poe_gateway.chat.anthropic import AnthropicMessages
from poe_gateway.chat.dialect import Dialect, Shape
from poe_gateway.chat.embeddings import OpenAIEmbeddings
from poe_gateway.chat.images import OpenAIImageEdits, OpenAIImages
from poe_gateway.chat.ollama import OllamaChat, OllamaEmbed, OllamaEmbeddings, OllamaGenerate
from poe_gateway.chat.openai_chat import OpenAIChat
from poe_gateway.chat.responses import OpenAIResponses

Schema = dict[str, Any]
Mode = Literal["validation", "serialization"]

OPERATIONS: Mapping[Any, Operation] = {
    OpenAIChat: CHAT,
    OpenAIResponses: RESPONSES,
    AnthropicMessages: MESSAGES,
    OpenAIEmbeddings: EMBEDDINGS,
    OpenAIImages: GENERATIONS,
    OpenAIImageEdits: EDITS,
    OllamaChat: OLLAMA_CHAT,
    OllamaGenerate: OLLAMA_GENERATE,
    OllamaEmbed: OLLAMA_EMBED,
    OllamaEmbeddings: OLLAMA_EMBEDDINGS,
}
"""By dialect, as ``hot.DIALECTS`` names them."""

_SECURITY: list[dict[str, list[str]]] = [{"ServiceKey": []}, {"ServiceKeyHeader": []}]
_KEYED = ("/v1/key", "/v1/usage", "/v1/models", "/v1/responses/", "/v1/messages/", "/api/tags", "/api/show", "/api/ps")
"""Beginnings of other paths that a service key opens."""
_OTHERS: Mapping[str, tuple[Shape, tuple[int, ...]]] = {
    "/v1/models": ("openai", (401, 403, 429, 503)),
    "/v1/models/{model_id}": ("openai", (401, 403, 404, 429, 503)),
    "/v1/messages/count_tokens": ("anthropic", (400, 401, 403, 413, 429, 503)),
    "/api/tags": ("ollama", (401, 403, 429, 503)),
    "/api/show": ("ollama", (400, 401, 403, 404, 413, 429, 503)),
    "/api/ps": ("ollama", (401, 403, 429, 503)),
}
"""Failures of those that do not tell them themselves."""
_COUNTED = "/v1/messages/count_tokens"
_JSON = "application/json"


def describe(schema: Schema) -> None:
    """Add the hot routes to an OpenAPI document, and what other routes have in common with them."""
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name, document in _schemas().items():
        assert schemas.setdefault(name, document) == document, name  # noqa: S101 - two models of one name
    components.setdefault("headers", {}).update(headers.documented())
    components.setdefault("securitySchemes", {}).update(
        ServiceKey={"type": "http", "scheme": "bearer"},
        ServiceKeyHeader={"type": "apiKey", "in": "header", "name": "X-API-Key"},
    )
    others = schema.get("paths", {})
    _describe_others(others)
    hot = {dialect.route: {"post": _operation(dialect, operation)} for dialect, operation in _described()}
    schema["paths"] = {**hot, **others}


def _described() -> Iterator[tuple[Dialect, Operation]]:
    for make in DIALECTS:
        yield make(), OPERATIONS[make]


def _schemas() -> Schema:
    """Every body that is referred to, by its name."""
    models: list[type[BaseModel]] = [CountedMessages, *OF_SHAPE.values()]
    for each in OPERATIONS.values():
        models += [each.asks, each.answers] if each.form is None else [each.asks, each.form, each.answers]
    # One mode for all: parts that are both taken and told have one name then.
    wanted: list[tuple[type[BaseModel], Mode]] = [(model, "validation") for model in dict.fromkeys(models)]
    _, document = models_json_schema(wanted, ref_template="#/components/schemas/{model}")
    found: Schema = document["$defs"]
    return found


def _operation(dialect: Dialect, operation: Operation) -> Schema:
    alias = dialect.route.removeprefix("/v1")
    also = "" if alias == dialect.route else f" Also served at `{alias}`."
    body: Schema = {"schema": _reference(operation.asks), "examples": _examples(operation)}
    taken = {_JSON: body}
    if operation.form is not None:
        taken = {"multipart/form-data": {"schema": _reference(operation.form)}, _JSON: body}
    return {
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description + also,
        "operationId": operation.id,
        "parameters": headers.asked(),
        "requestBody": {"required": True, "content": taken},
        "responses": {"200": _answer(dialect, operation), **_failures(dialect)},
        "security": _SECURITY,
    }


def _examples(operation: Operation) -> Schema:
    return {name: {"value": body} for name, body in operation.examples.items()}


def _answer(dialect: Dialect, operation: Operation) -> Schema:
    content: Schema = {_JSON: {"schema": _reference(operation.answers)}}
    streams = dialect.stream_type.partition(b";")[0].decode()
    if streams != _JSON:
        content[streams] = {"schema": {"type": "string", "description": operation.streamed}}
    told = "The answer." if streams == _JSON else "The answer, whole or as a stream."
    return {"description": told, "headers": headers.answered(dialect.shape), "content": content}


def _failures(dialect: Dialect) -> Schema:
    content = {_JSON: {"schema": _reference(OF_SHAPE[dialect.shape])}}
    return {
        str(status): {"description": text, "headers": headers.refused(status, dialect.shape), "content": content}
        for status, text in STATUSES.items()
    }


def _describe_others(paths: Schema) -> None:
    """Routes of FastAPI's that a service key opens."""
    for path, methods in paths.items():
        if path.startswith(_KEYED):
            for operation in methods.values():
                operation["security"] = _SECURITY
    for path, (shape, statuses) in _OTHERS.items():
        for operation in paths.get(path, {}).values():
            content = {_JSON: {"schema": _reference(OF_SHAPE[shape])}}
            told = {str(status): {"description": STATUSES[status], "content": content} for status in statuses}
            operation["responses"] |= told
            operation["responses"].pop("422", None)  # any text is a model's name
    if _COUNTED in paths:
        paths[_COUNTED]["post"]["requestBody"]["content"] = {_JSON: {"schema": _reference(CountedMessages)}}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
