"""``poe-gateway keys``: service keys of the running gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import click

from poe_gateway.cli.allowances import (
    allowance,
    allowed,
    end,
    forget,
    forget_budgets,
    length,
    shown_budgets,
    shown_limits,
)
from poe_gateway.cli.ground import Admin, fail, remote, show_fields, show_json, show_table

_COLUMNS = (
    *("ID", "NAME", "ORG", "ENABLED", "BOOTSTRAP", "PRIORITY", "WEIGHT", "ACCOUNTS"),
    *("LIMITS", "BUDGETS", "CREATED", "EXPIRES", "REVOKED"),
)
_DEV = "dev"
F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def keys() -> None:
    """Service keys: who may call /v1."""


def _terms(command: F) -> F:
    """Options of the commands that make or change a key."""
    command = allowance(command)
    for option in (
        click.option("--note", help="For the operator."),
        click.option("--without", multiple=True, help="Only accounts that carry none of these labels."),
        click.option("--label", "labels", multiple=True, help="Only accounts that carry all of these labels."),
        click.option("--provider", "providers", multiple=True, help="Only accounts of these providers."),
        click.option("--weight", type=click.IntRange(1, 1_000), help="Turns in the queue against other keys."),
        click.option("--priority", type=click.IntRange(-100, 100), help="Higher waits less; 0 by default."),
        click.option(
            "--expires", "expires_at", metavar="TIME", callback=end, help="When it ends: 30d, or a moment in ISO 8601."
        ),
        click.option("--address", "addresses", multiple=True, help="Only from these networks or addresses."),
        click.option("--model", "models", multiple=True, metavar="GLOB", help="Only these models, e.g. 'gpt-4o*'."),
        click.option("--org", help="Its organisation, by id or name."),
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
@click.argument("name", required=False)
@click.option("--name", "named", help="The same as NAME.")
@_terms
@remote
def create(name: str | None, named: str | None, url: str | None, *, as_json: bool, **options: Any) -> None:
    """Make a key called NAME. Its text is shown this once and kept nowhere."""
    if (name is None) == (named is None):
        raise click.UsageError("Give the name of the key, once.")
    _show_new(Admin(url).post("/keys", {"name": name or named, **allowed(options), **_given(options)}), as_json=as_json)


@keys.command("list")
@click.option("--org", help="Only keys of this organisation, by id or name.")
@remote
def list_command(org: str | None, url: str | None, *, as_json: bool) -> None:
    """All keys, revoked ones too; never their text."""
    answer = Admin(url).get("/keys", org=org)
    if as_json:
        show_json(answer)
        return
    show_table(_COLUMNS, [_row(key) for key in answer["data"]])


@keys.command()
@click.argument("key")
@remote
def show(key: str, url: str | None, *, as_json: bool) -> None:
    """All about one key, but for its text. KEY is its id or name."""
    admin = Admin(url)
    found = admin.get(_path_of(admin, key))
    if as_json:
        show_json(found)
        return
    show_fields({name: _field(name, value) for name, value in found.items()})


@keys.command("set")
@click.argument("key")
@click.option("--name", help="A new name.")
@_terms
@forget
@forget_budgets
@click.option("--all-accounts", is_flag=True, help="Forget earlier --provider, --label and --without.")
@click.option("--all-models", is_flag=True, help="Forget earlier --model.")
@click.option("--all-addresses", is_flag=True, help="Forget earlier --address.")
@click.option("--no-expiry", is_flag=True, help="Forget earlier --expires.")
@remote
def set_command(key: str, url: str | None, *, as_json: bool, **options: Any) -> None:
    """Change what is given and nothing else. KEY is its id or name. In force within seconds."""
    forgotten: dict[str, Any] = {}
    for flag, fields in (
        ("all_accounts", {"providers": [], "labels": [], "without": []}),
        ("all_models", {"models": []}),
        ("all_addresses", {"addresses": []}),
        ("no_expiry", {"expires_at": None}),
    ):
        forgotten |= fields if options.pop(flag) else {}
    flags = {flag: options.pop(flag) for flag in ("no_limits", "no_budgets")}
    given = _given(options)
    if not (given or forgotten or any(flags.values())):
        raise click.UsageError("Nothing to change; see --help.")
    admin = Admin(url)
    path = _path_of(admin, key)
    change = {**forgotten, **allowed(options, admin.get(path), **flags), **_given(options)}
    answer = admin.patch(path, change)
    if as_json:
        show_json(answer)
        return
    show_table(_COLUMNS, [_row(answer)])


@keys.command()
@click.argument("key")
@click.option("--overlap", callback=length, default="0", help="How long the old text works on, e.g. 1h; 0: not at all.")
@remote
def rotate(key: str, overlap: int, url: str | None, *, as_json: bool) -> None:
    """Give a key another text, which is shown this once. KEY is its id or name; all else of it stays."""
    admin = Admin(url)
    _show_new(admin.post(_path_of(admin, key) + "/rotate", {"overlap_seconds": overlap}), as_json=as_json)


@keys.command()
@click.argument("key")
@remote
def revoke(key: str, url: str | None, *, as_json: bool) -> None:
    """Switch a key off for good. KEY is its id or name."""
    _do(url, key, "revoke", "is revoked", as_json=as_json)


@keys.command()
@click.argument("key")
@remote
def enable(key: str, url: str | None, *, as_json: bool) -> None:
    """Let a key work again that was switched off. KEY is its id or name."""
    _do(url, key, "enable", "works again", as_json=as_json)


@keys.command()
@click.argument("key")
@remote
def disable(key: str, url: str | None, *, as_json: bool) -> None:
    """Switch a key off; enable switches it on again. KEY is its id or name."""
    _do(url, key, "disable", "is switched off", as_json=as_json)


@keys.command("seed-dev")
@click.option("--org", required=True, help="Name of the organisation; made when it is not there.")
@click.option("--rotate", "again", is_flag=True, help="Give the key another text when it is there already.")
@remote
def seed_dev(org: str, url: str | None, *, again: bool, as_json: bool) -> None:
    """A key called dev for an organisation, to develop with. The second time nothing changes."""
    admin = Admin(url)
    if not any(org in (each["id"], each["name"]) for each in admin.get("/orgs")["data"]):
        admin.post("/orgs", {"name": org})
    present = [key for key in admin.get("/keys", org=org)["data"] if key["name"] == _DEV and key["revoked_at"] is None]
    if not present:
        _show_new(admin.post("/keys", {"name": _DEV, "org": org}), as_json=as_json)
    elif again:
        _show_new(admin.post(f"/keys/{present[0]['id']}/rotate"), as_json=as_json)
    elif as_json:
        show_json(present[0])
    else:
        click.echo(
            f"Key {present[0]['id']} ({_DEV}) is there already; nothing was changed. Its text cannot be shown again: "
            "for another one use --rotate.",
            err=True,
        )


def _do(url: str | None, key: str, verb: str, words: str, *, as_json: bool) -> None:
    admin = Admin(url)
    answer = admin.post(f"{_path_of(admin, key)}/{verb}")
    if as_json:
        show_json(answer)
        return
    click.echo(f"Key {answer['id']} ({answer['name']}) {words}.")


def _show_new(key: dict[str, Any], *, as_json: bool) -> None:
    """A key with its text: the text alone on standard output, for scripts."""
    if as_json:
        show_json(key)
        return
    click.echo(key["key"])
    click.echo(f"Key {key['id']} ({key['name']}). Keep it now: it is not shown again.", err=True)
    if key["previous_until"] is not None:
        click.echo(f"The text before works on until {key['previous_until']}.", err=True)


def _path_of(admin: Admin, key: str) -> str:
    return f"/keys/{quote(_id_of(admin, key), safe='')}"


def _id_of(admin: Admin, key: str) -> str:
    known = admin.get("/keys")["data"]
    if any(each["id"] == key for each in known):
        return key
    named = [each["id"] for each in known if each["name"] == key and each["revoked_at"] is None]
    if len(named) > 1:
        fail(f"Several keys are called {key}: {', '.join(named)}. Give the id.")
    if not named:
        if any(each["name"] == key for each in known):
            fail(f"All keys called {key} are revoked for good. Make a new one, or give the id of the one you mean.")
        fail("There is no such key.")
    return str(named[0])


def _row(key: dict[str, Any]) -> tuple[Any, ...]:
    return (
        *(key["id"], key["name"], key["org"], key["enabled"], key["bootstrap"], key["priority"], key["weight"]),
        *(_accounts(key), shown_limits(key["limits"]), shown_budgets(key["budgets"])),
        *(key["created_at"], key["expires_at"], key["revoked_at"]),
    )


def _field(name: str, value: Any) -> Any:
    if name == "limits":
        return shown_limits(value)
    if name == "budgets":
        return shown_budgets(value)
    return " ".join(value) if isinstance(value, list) else value


def _accounts(key: dict[str, Any]) -> str:
    """Which accounts may serve the key, in the words of the options."""
    words = [
        f"{word}={each}"
        for word, field in (("provider", "providers"), ("label", "labels"), ("without", "without"))
        for each in key[field]
    ]
    return " ".join(words) or "all"
