"""``poe-gateway orgs``: organisations of the running gateway."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from poe_gateway.cli.allowances import allowance, allowed, forget, forget_budgets, shown_budgets, shown_limits
from poe_gateway.cli.ground import Admin, remote, show_json, show_table

_COLUMNS = ("ID", "NAME", "ENABLED", "KEYS", "LIMITS", "BUDGETS", "KEEPS TEXT", "CREATED")


@click.group()
def orgs() -> None:
    """Organisations: holders of keys, with limits and budgets of their own."""


_text = click.option(
    "--keep-text/--no-keep-text", default=None, help="Keep its requests' text, sealed, for the auditor."
)


@orgs.command()
@click.argument("name")
@_text
@click.option("--note", help="For the operator.")
@allowance
@remote
def create(name: str, url: str | None, *, as_json: bool, **options: Any) -> None:
    """Make an organisation called NAME."""
    org = Admin(url).post("/orgs", {"name": name, **allowed(options), **_given(options)})
    _show([org], org, as_json=as_json)


@orgs.command("list")
@remote
def list_command(url: str | None, *, as_json: bool) -> None:
    """All organisations."""
    answer = Admin(url).get("/orgs")
    _show(answer["data"], answer, as_json=as_json)


@orgs.command("set")
@click.argument("org")
@click.option("--name", help="A new name.")
@_text
@click.option("--note", help="For the operator.")
@allowance
@forget
@forget_budgets
@remote
def set_command(org: str, url: str | None, *, no_limits: bool, no_budgets: bool, as_json: bool, **options: Any) -> None:
    """Change what is given and nothing else. ORG is its id or name. In force within seconds."""
    admin = Admin(url)
    path = path_of(org)
    fields = allowed(options, admin.get(path), no_limits=no_limits, no_budgets=no_budgets)
    change = {**fields, **_given(options)}
    if not change:
        raise click.UsageError("Nothing to change; see --help.")
    answer = admin.patch(path, change)
    _show([answer], answer, as_json=as_json)


@orgs.command()
@click.argument("org")
@remote
def disable(org: str, url: str | None, *, as_json: bool) -> None:
    """Switch an organisation off: its keys do not work until it is enabled."""
    answer = Admin(url).post(path_of(org) + "/disable")
    _show([answer], answer, as_json=as_json)


@orgs.command()
@click.argument("org")
@remote
def enable(org: str, url: str | None, *, as_json: bool) -> None:
    """Let an organisation's keys work again."""
    answer = Admin(url).post(path_of(org) + "/enable")
    _show([answer], answer, as_json=as_json)


def path_of(org: str) -> str:
    """Address of an organisation by its id or name."""
    return f"/orgs/{quote(org, safe='')}"


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _show(found: list[dict[str, Any]], answer: Any, *, as_json: bool) -> None:
    if as_json:
        show_json(answer)
        return
    show_table(_COLUMNS, [_row(org) for org in found])


def _row(org: dict[str, Any]) -> tuple[Any, ...]:
    return (
        *(org["id"], org["name"], org["enabled"], org["keys"], shown_limits(org["limits"])),
        *(shown_budgets(org["budgets"]), org["keep_text"], org["created_at"]),
    )
