"""``poe-gateway config``: the routing file, before the gateway reads it. Works without a running gateway."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import click
import tomli_w

from poe_gateway.accounts.references import files_from
from poe_gateway.routing.changes import changes
from poe_gateway.routing.parse import RoutesError, missing
from poe_gateway.routing.table import Backend, Table
from poe_gateway.settings import Settings, SettingsError, load_settings
from poe_gateway.settings.loading import DEFAULT_ROUTES_FILE
from poe_gateway.settings.lookup import Lookup
from poe_gateway.settings.routes import Sources, backends_of, read_routes, table_of

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def config() -> None:
    """The routing file: backends, tiers, aliases, profiles."""


@config.command()
@click.argument("path", type=_FILE, required=False)
def check(path: Path | None) -> None:
    """Is the file fit for use? Every problem on a line of its own; exit code 1 when there is one.

    PATH is the routing file; left out, the one of the settings. Files beside it are read too.
    """
    file = _path(path)
    sources, table = _read(file)
    for note in table.notes:
        click.echo(f"note: {note}", err=True)
    options = _settings()
    holder = Lookup(options.config_file if options is not None else None)
    for name in missing(table, holder, lambda text: _readable(file.parent, text)):
        click.echo(f"warning: {name} should hold a key and does not", err=True)
    click.echo(f"{file}: {_counted(sources, table)}")


@config.command()
@click.argument("path", type=_FILE, required=False)
def show(path: Path | None) -> None:
    """The file with everything beside it as one TOML document. Keys are not in it: only their names are."""
    sources, _ = _read(_path(path))
    click.echo(tomli_w.dumps(sources.document, multiline_strings=True), nl=False)


@config.command()
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE, required=False)
def diff(old: Path, new: Path | None) -> None:
    """What changes from OLD to NEW, one difference a line. NEW left out: the file of the settings."""
    _, before = _read(old)
    _, after = _read(_path(new))
    told = changes(before, after)
    for line in told:
        click.echo(line)
    if not told:
        click.echo("Nothing changes.")


def _path(given: Path | None) -> Path:
    if given is not None:
        return given
    options = _settings()
    named = options.routing.routes_file if options is not None else None
    return named or Path(DEFAULT_ROUTES_FILE)


def _settings() -> Settings | None:
    """None when there are none that can be used: a routing file can be checked before there is a gateway."""
    try:
        return load_settings()
    except SettingsError:
        return None


def _read(path: Path) -> tuple[Sources, Table]:
    try:
        sources = read_routes(path)
        return sources, table_of(sources, _given())
    except RoutesError as error:
        _refuse(error.problems)


def _given() -> dict[str, Backend]:
    options = _settings()
    return backends_of(options.routing.providers) if options is not None else {}


def _refuse(problems: Iterable[str]) -> NoReturn:
    for problem in problems:
        click.echo(problem, err=True)
    raise SystemExit(1)


def _readable(folder: Path, name: str) -> bool:
    try:
        return bool(files_from(folder)(name).strip())
    except (OSError, ValueError):
        return False


def _counted(sources: Sources, table: Table) -> str:
    parts = {
        "file": len(sources.files),
        "backend": len(table.backends),
        "tier": len(table.tiers),
        "alias": len(table.aliases),
        "profile": len(table.profiles),
        "client": len(table.clients),
        "fallback": len(table.fallbacks),
    }
    return "fit for use: " + ", ".join(f"{n} {_plural(word, n)}" for word, n in parts.items())


def _plural(word: str, number: int) -> str:
    if number == 1:
        return word
    return f"{word}es" if word.endswith("s") else f"{word}s"
