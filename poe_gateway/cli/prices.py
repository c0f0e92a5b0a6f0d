"""``poe-gateway prices``: what callers are billed by, at the running gateway. Amounts are text, never floats."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import IO, Any
from urllib.parse import quote

import click

from poe_gateway.cli.ground import Admin, fail, remote, show_json, show_table

_COLUMNS = (
    *("ID", "VERSION", "ORG", "PROVIDER", "MODEL", "CURRENCY", "INPUT", "OUTPUT", "CACHED"),
    *("REQUEST", "POINT", "MARKUP %", "FROM", "RETIRED"),
)
_SHOWN = (
    *("id", "version", "org", "provider", "model", "currency", "input", "output", "cached"),
    *("request", "point", "markup_percent", "valid_from", "retired_at"),
)
_SCOPE = ("org", "provider", "model")
_RATES = ("input", "output", "cached", "request", "point", "markup_percent")
_TERMS = (*_SCOPE, "currency", *_RATES, "note")
"""What makes two rules the same, whenever they were made."""
_EXAMPLE = "Example price, not checked against any price list: put in your own."
_SEED: tuple[dict[str, Any], ...] = (
    {"model": "gpt-4o", "input": "2.5", "cached": "1.25", "output": "10"},
    {"model": "gpt-4o-mini", "input": "0.15", "cached": "0.075", "output": "0.6"},
    {"model": "claude-sonnet-*", "input": "3", "cached": "0.3", "output": "15"},
    {"model": "claude-haiku-*", "input": "1", "cached": "0.1", "output": "5"},
    {"model": "gemini-*-flash", "input": "0.3", "cached": "0.075", "output": "2.5"},
    {"model": None, "input": "1", "output": "4"},
)
"""In USD per million tokens."""


@click.group()
def prices() -> None:
    """Price rules: what requests cost."""


@prices.command("list")
@click.option("--org", help="Only rules of this organisation, by id or name.")
@click.option("--id", "rule", help="All versions of this rule instead.")
@remote
def list_command(org: str | None, rule: str | None, url: str | None, *, as_json: bool) -> None:
    """The rules in force and those to come, the most specific first."""
    admin = Admin(url)
    answer = admin.get(_path(rule)) if rule is not None else admin.get("/prices", org=org)
    if as_json:
        show_json(answer)
        return
    show_table(_COLUMNS, [_row(each) for each in answer["data"]])


@prices.command("set")
@click.option("--org", help="Only for this organisation, by id or name; left out: for all.")
@click.option("--provider", help="Only for this provider; left out: for all.")
@click.option("--model", metavar="GLOB", help="Only for these models, e.g. 'gpt-4o*'; left out: for all.")
@click.option("--currency", help="Three letters; USD by default.")
@click.option("--input", help="Per million input tokens.")
@click.option("--output", help="Per million output tokens.")
@click.option("--cached", help="Per million input tokens that were cached; as --input by default.")
@click.option("--input-per-1k", help="Per thousand input tokens, instead of --input.")
@click.option("--output-per-1k", help="Per thousand output tokens, instead of --output.")
@click.option("--request", help="Per request.")
@click.option("--point", help="Per point.")
@click.option("--markup", "markup_percent", help="Percent on top.")
@click.option("--from", "valid_from", metavar="TIME", help="When it begins, in ISO 8601; at once by default.")
@click.option("--note", help="For the operator.")
@remote
def set_command(url: str | None, *, as_json: bool, **options: str | None) -> None:
    """Make a rule, or a new version of the one for this organisation, provider and model.

    It holds as a whole: a price that is not given is not known.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not given.keys() & {*_RATES, "input_per_1k", "output_per_1k"}:
        raise click.UsageError("Give a price or a markup; see --help.")
    _show(Admin(url).post("/prices", given), as_json=as_json)


@prices.command()
@click.argument("rule")
@remote
def retire(rule: str, url: str | None, *, as_json: bool) -> None:
    """End a rule now. RULE is its id."""
    _show(Admin(url).delete(_path(rule)), as_json=as_json)


@prices.command()
@click.option("--org", help="The caller's organisation, by id or name.")
@click.option("--provider", required=True, help="Who serves it.")
@click.option("--model", required=True, help="Public name.")
@click.option("--prompt-tokens", type=click.IntRange(0))
@click.option("--completion-tokens", type=click.IntRange(0))
@click.option("--cached-tokens", type=click.IntRange(0))
@click.option("--points", type=click.IntRange(0))
@click.option("--raw-cost", help="The upstream's own figure, if it tells one.")
@click.option("--raw-currency", help="Its currency; USD by default.")
@click.option("--at", metavar="TIME", help="When, in ISO 8601; now by default.")
@remote
def test(url: str | None, *, as_json: bool, **options: Any) -> None:
    """What would this cost, by which rule, and why by that one? Nothing is changed."""
    answer = Admin(url).post("/prices/test", {name: each for name, each in options.items() if each is not None})
    if as_json:
        show_json(answer)
        return
    cost = answer["cost"]
    click.echo("Nobody knows." if cost is None else f"{cost['billed']} {cost['currency']} (raw: {cost['raw']})")
    click.echo(answer["why"])


@prices.command()
@click.option("--org", required=True, help="Name of the organisation; made when it is not there.")
@remote
def seed(org: str, url: str | None, *, as_json: bool) -> None:
    """Example rules for an organisation, to start from. What it has already is left as it is."""
    admin = Admin(url)
    known = [each for each in admin.get("/orgs")["data"] if org in (each["id"], each["name"])]
    org_id = known[0]["id"] if known else admin.post("/orgs", {"name": org})["id"]
    scopes = {_scope(each) for each in admin.get("/prices", org=org_id)["data"]}
    rules = [{"provider": None, "note": _EXAMPLE, **each, "org": org_id} for each in _SEED]
    made = [admin.post("/prices", each) for each in rules if _scope(each) not in scopes]
    _show_made(made, len(rules) - len(made), as_json=as_json)


@prices.command()
@click.option("--org", help="Only rules of this organisation, by id or name.")
@click.option("--url", metavar="URL", help="Address of the gateway; default: as in the settings.")
def export(org: str | None, url: str | None) -> None:
    """All rules in force and to come as JSON, as import takes them."""
    rules = Admin(url).get("/prices", org=org)["data"]
    show_json({"prices": [{name: each[name] for name in (*_TERMS, "valid_from")} for each in reversed(rules)]})


@prices.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@remote
def import_command(file: IO[str], url: str | None, *, as_json: bool) -> None:
    """Take over rules that were exported. FILE may be -. What is there already in the same words stays."""
    try:
        rules = json.load(file, parse_float=str)["prices"]
    except (ValueError, KeyError, TypeError):
        fail("The file holds no exported prices.")
    if not isinstance(rules, list) or not all(isinstance(each, dict) for each in rules):
        fail("The file holds no exported prices.")
    admin = Admin(url)
    present = {_terms(each) for each in admin.get("/prices")["data"]}
    made = [admin.post("/prices", each) for each in rules if _terms(each) not in present]
    _show_made(made, len(rules) - len(made), as_json=as_json)


def _path(rule: str) -> str:
    return f"/prices/{quote(rule, safe='')}"


def _scope(rule: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(rule.get(name) for name in _SCOPE)


def _terms(rule: dict[str, Any]) -> tuple[Any, ...]:
    # Numbers are compared as numbers: "1.50" is "1.5".
    return tuple(
        Decimal(str(rule[name])) if name in _RATES and rule.get(name) is not None else rule.get(name)
        for name in (*_TERMS, "valid_from")
    )


def _row(rule: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(rule[name] for name in _SHOWN)


def _show(rule: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(rule)
        return
    show_table(_COLUMNS, [_row(rule)])


def _show_made(made: list[dict[str, Any]], present: int, *, as_json: bool) -> None:
    if as_json:
        show_json({"made": made, "unchanged": present})
        return
    if made:
        show_table(_COLUMNS, [_row(each) for each in made])
    click.echo(f"{len(made)} made, {present} left as they were.", err=True)
