"""``poe-gateway keys``: service keys of the running gateway."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from poe_gateway.cli.ground import Admin, fail, remote, show_json, show_table

_COLUMNS = ("ID", "NAME", "ENABLED", "BOOTSTRAP", "CREATED", "REVOKED")


@click.group()
def keys() -> None:
    """Service keys: who may call /v1."""


@keys.command()
@click.argument("name")
@remote
def create(name: str, url: str | None, *, as_json: bool) -> None:
    """Make a key called NAME. Its text is shown this once and kept nowhere."""
    key = Admin(url).post("/keys", {"name": name})
    if as_json:
        show_json(key)
        return
    click.echo(key["key"])
    click.echo(f"Key {key['id']} ({key['name']}). Keep it now: it is not shown again.", err=True)


@keys.command("list")
@remote
def list_command(url: str | None, *, as_json: bool) -> None:
    """All keys, revoked ones too; never their text."""
    answer = Admin(url).get("/keys")
    if as_json:
        show_json(answer)
        return
    show_table(_COLUMNS, [_row(key) for key in answer["data"]])


@keys.command()
@click.argument("key")
@remote
def revoke(key: str, url: str | None, *, as_json: bool) -> None:
    """Switch a key off for good. KEY is its id or name."""
    admin = Admin(url)
    answer = admin.post(f"/keys/{quote(_id_of(admin, key), safe='')}/revoke")
    if as_json:
        show_json(answer)
        return
    click.echo(f"Key {answer['id']} ({answer['name']}) is revoked.")


def _id_of(admin: Admin, key: str) -> str:
    known = admin.get("/keys")["data"]
    if any(each["id"] == key for each in known):
        return key
    named = [each["id"] for each in known if each["name"] == key and each["enabled"]]
    if len(named) > 1:
        fail(f"Several keys are called {key}: {', '.join(named)}. Give the id.")
    if not named:
        fail("There is no such key.")
    return str(named[0])


def _row(key: dict[str, Any]) -> tuple[Any, ...]:
    return key["id"], key["name"], key["enabled"], key["bootstrap"], key["created_at"], key["revoked_at"]
