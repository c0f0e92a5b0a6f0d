"""``poe-gateway keys``: service keys of the running gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import click

from poe_gateway.cli.ground import Admin, fail, remote, show_json, show_table

_COLUMNS = ("ID", "NAME", "ENABLED", "BOOTSTRAP", "PRIORITY", "WEIGHT", "ACCOUNTS", "CREATED", "REVOKED")
F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def keys() -> None:
    """Service keys: who may call /v1."""


def _terms(command: F) -> F:
    """Options of the commands that make or change a key."""
    for option in (
        click.option("--without", multiple=True, help="Only accounts that carry none of these labels."),
        click.option("--label", "labels", multiple=True, help="Only accounts that carry all of these labels."),
        click.option("--provider", "providers", multiple=True, help="Only accounts of these providers."),
        click.option("--weight", type=click.IntRange(1, 1_000), help="Turns in the queue against other keys."),
        click.option("--priority", type=click.IntRange(-100, 100), help="Higher waits less; 0 by default."),
    ):
        command = option(command)
    return command


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """What the command line gave."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
        if value is not None and value != ()
    }


@keys.command()
@click.argument("name")
@_terms
@remote
def create(name: str, url: str | None, *, as_json: bool, **options: Any) -> None:
    """Make a key called NAME. Its text is shown this once and kept nowhere."""
    key = Admin(url).post("/keys", {"name": name, **_given(options)})
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


@keys.command("set")
@click.argument("key")
@click.option("--name", help="A new name.")
@_terms
@click.option("--all-accounts", is_flag=True, help="Forget earlier --provider, --label and --without.")
@remote
def set_command(key: str, url: str | None, *, all_accounts: bool, as_json: bool, **options: Any) -> None:
    """Change what is given and nothing else. KEY is its id or name. In force within seconds."""
    change = _given(options)
    if all_accounts:
        change = {"providers": [], "labels": [], "without": [], **change}
    if not change:
        raise click.UsageError("Nothing to change; see --help.")
    admin = Admin(url)
    answer = admin.patch(f"/keys/{quote(_id_of(admin, key), safe='')}", change)
    if as_json:
        show_json(answer)
        return
    show_table(_COLUMNS, [_row(answer)])


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
    return (
        *(key["id"], key["name"], key["enabled"], key["bootstrap"], key["priority"], key["weight"]),
        *(_accounts(key), key["created_at"], key["revoked_at"]),
    )


def _accounts(key: dict[str, Any]) -> str:
    """Which accounts may serve the key, in the words of the options."""
    words = [
        f"{word}={each}"
        for word, field in (("provider", "providers"), ("label", "labels"), ("without", "without"))
        for each in key[field]
    ]
    return " ".join(words) or "all"
