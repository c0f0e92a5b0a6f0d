"""How credentials come from the operator to the gateway: options, files, questions. They are never echoed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import click

from poe_gateway.cli.ground import Admin, fail

_POE = "poe_web"


def bodies_of_file(source: IO[bytes]) -> list[dict[str, Any]]:
    """The accounts of a JSON file, each in a form that ``POST /admin/accounts/upsert`` takes."""
    try:
        content = json.loads(source.read())
    except ValueError:
        fail("The file is not valid JSON.")
    bodies = content if isinstance(content, list) else [content]
    if not bodies or not all(isinstance(body, dict) for body in bodies):
        fail("The file must hold one account or a list of accounts, each a JSON object.")
    return bodies


def body_of_options(
    admin: Admin,
    email: str | None,
    provider: str | None,
    name: str | None,
    given: tuple[str, ...],
    max_inflight: int | None,
) -> dict[str, Any]:
    """One account from options; required fields that are missing are asked for."""
    if email is not None:
        provider, name = provider or _POE, name or email
    if not provider or not name:
        raise click.UsageError("Give --email for a Poe account, or --provider and --name, or --file.")
    fields = _fields(admin, provider)
    credentials: dict[str, Any] = {}
    for entry in given:
        field, sign, text = entry.partition("=")
        if not sign:
            raise click.UsageError("--credential needs FIELD=VALUE.")
        credentials[field] = _value(fields.get(field), field, _content(field, text))
    for field, schema in fields.items():
        if schema["required"] and field not in credentials:
            question = f"{field} ({schema['description']})" if schema["description"] else field
            text = click.prompt(question, hide_input=schema["secret"], err=True)
            credentials[field] = _value(schema, field, text)
    body: dict[str, Any] = {"provider": provider, "name": name, "credentials": credentials}
    if max_inflight is not None:
        body["max_inflight"] = max_inflight
    return body


def _fields(admin: Admin, provider: str) -> dict[str, dict[str, Any]]:
    providers = {each["provider"]: each for each in admin.get("/providers")["data"]}
    if provider not in providers:
        fail(f"This gateway knows no provider {provider}; it knows: {', '.join(providers)}.")
    return {field["name"]: field for field in providers[provider]["credentials"]}


def _content(field: str, text: str) -> str:
    """``@FILE`` stands for what is in the file."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"The file for {field} cannot be read ({type(error).__name__}).")


def _value(schema: dict[str, Any] | None, field: str, text: str) -> Any:
    """The value in the type that the field has; the text itself is never repeated."""
    if schema is None or schema["type"] == "str":
        return text
    try:
        return json.loads(text)
    except ValueError:
        fail(f"{field} must be of type {schema['type']}, written as JSON.")
