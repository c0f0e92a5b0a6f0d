"""``poe-gateway usage``: what was used and what it cost, from the ledger of the running gateway."""

from __future__ import annotations

from typing import Any, BinaryIO
from urllib.parse import quote

import click

from poe_gateway.cli.decisions import Exporter
from poe_gateway.cli.ground import Admin, remote, show_fields, show_json, show_table

_FIGURES = ("REQUESTS", "ATTEMPTS", "OK", "FAILED", "CANCELLED", "ORPHANED", "IN", "OUT", "CACHED", "POINTS", "COST")
_BY = "hour, day, month, org, key, model, account, provider and status"
_ROWS = ("AT", "ID", "STATUS", "KEY", "MODEL", "ACCOUNT", "IN", "OUT", "POINTS", "COST")
_ACCOUNTS = (
    *("ACCOUNTS", "IN SERVICE", "DELETED", "INVALID", "EXPIRED", "DAYS", "REQUESTS", "POINTS"),
    *("PAID", "PER 1,000 POINTS", "SURVIVAL"),
)


@click.group()
def usage() -> None:
    """What was used and what it cost."""


def _filters(command: Any) -> Any:
    """Options that choose rows."""
    for option in (
        click.option("--status", help="Of the attempts; leaves out corrections."),
        click.option("--provider", help="Name of a provider."),
        click.option("--account", help="Id of an account."),
        click.option("--model", help="Public name of a model."),
        click.option("--key", help="A service key, by id or name."),
        click.option("--org", help="An organisation, by id or name."),
        click.option("--to", "until", metavar="TIME", help="A date, which is then within, or a time in ISO 8601."),
        click.option("--from", "since", metavar="TIME", help="A date, or a time in ISO 8601."),
    ):
        command = option(command)
    return command


def _params(since: str | None, until: str | None, filters: dict[str, Any]) -> dict[str, Any]:
    return {"from": since, "to": until, **filters}


@usage.command()
@click.option("--by", default="day", show_default=True, help=f"Up to three, as day,key, of {_BY}.")
@_filters
@click.option("--zone", help="Time zone in which days begin; default: BUDGET_TIMEZONE.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=1_000, show_default=True, help="Lines of a table.")
@click.option("--csv", "as_csv", is_flag=True, help="All lines as CSV; one for each currency of a group.")
@click.option("-o", "--output", type=click.File("wb"), default="-", help="Where a CSV goes; default: standard output.")
@remote
def report(
    since: str | None,
    until: str | None,
    url: str | None,
    output: BinaryIO,
    *,
    as_csv: bool,
    as_json: bool,
    limit: int,
    **filters: Any,
) -> None:
    """Sums over a time; the last 30 days where none is given."""
    params = _params(since, until, filters)
    if as_csv:
        for chunk in Exporter(url).chunks("/usage", format="csv", **params):
            output.write(chunk)
        return
    answer = Admin(url).get("/usage", limit=limit, **params)
    if as_json:
        show_json(answer)
        return
    heads = [each.upper() for each in answer["by"]]
    lines = [[*(_called(each, part) for part in answer["by"]), *_figures(each)] for each in answer["data"]]
    whole = ["TOTAL", *[""] * (len(heads) - 1), *_figures(answer["total"])]
    show_table([*heads, *_FIGURES], [*lines, whole])
    if answer["truncated"]:
        click.echo("There are more lines: raise --limit, ask for less, or take --csv.", err=True)


@usage.command()
@_filters
@click.option("--request", help="Id of a request.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, show_default=True)
@click.option("--before", metavar="TIME", help="Where the last page ended.")
@remote
def rows(since: str | None, until: str | None, url: str | None, *, as_json: bool, **filters: Any) -> None:
    """Single attempts and corrections, newest first."""
    answer = Admin(url).get("/ledger", **_params(since, until, filters))
    if as_json:
        show_json(answer)
        return
    show_table(_ROWS, [_row(each) for each in answer["data"]])
    if answer["before"] is not None:
        click.echo(f"More with --before {answer['before']}.", err=True)


@usage.command()
@click.argument("named", metavar="ID")
@remote
def row(named: str, url: str | None, *, as_json: bool) -> None:
    """All that the ledger has of a row or a request. ID is the one's or the other's."""
    answer = Admin(url).get(f"/ledger/{quote(named, safe='')}")
    if as_json:
        show_json(answer)
        return
    for number, each in enumerate(answer["data"]):
        if number:
            click.echo()
        charges = [f"{charge['amount']} {charge['unit']} ({charge['budget']})" for charge in each.pop("charges")]
        names = each.pop("names")
        for field in ("org", "key", "account"):
            each[field] = f"{each[field]} ({names[field]})" if field in names else each[field]
        show_fields({**each, "charges": ", ".join(charges)})


@usage.command()
@click.option("--by", type=click.Choice(["account", "batch", "vendor"]), default="account", show_default=True)
@click.option("--from", "since", metavar="TIME", help="Points and requests from then on; default: ever.")
@click.option("--to", "until", metavar="TIME", help="And up to then.")
@click.option("--provider")
@click.option("--limit", type=click.IntRange(1, 10_000), default=1_000, show_default=True)
@remote
def accounts(since: str | None, until: str | None, url: str | None, *, as_json: bool, **options: Any) -> None:
    """What accounts cost for what they delivered, and how long they last.

    Survival: days after the beginning, and the share that was in service then of those old enough to tell. The end of
    an account that is invalid but not deleted is an estimate.
    """
    answer = Admin(url).get("/accounts/cost", **_params(since, until, options))
    if as_json:
        show_json(answer)
        return
    show_table((str(answer["by"]).upper(), *_ACCOUNTS), [_cost(each) for each in answer["data"]])
    if answer["truncated"]:
        click.echo("There are more lines: raise --limit.", err=True)


def _called(line: dict[str, Any], part: str) -> Any:
    """The name, where there is one, else the value."""
    return line["names"].get(part) or line["group"][part]


def _figures(line: dict[str, Any]) -> list[Any]:
    counts = ("requests", "attempts", "succeeded", "failed", "cancelled", "orphaned")
    sums = ("prompt_tokens", "completion_tokens", "cached_tokens", "points")
    costs = " + ".join(f"{cost['billed']} {unit}" for unit, cost in line["cost"].items())
    return [*(line[each] for each in (*counts, *sums)), costs]


def _row(each: dict[str, Any]) -> tuple[Any, ...]:
    names, cost = each["names"], each["billed_cost"]
    return (
        *(each["at"], each["id"], each["status"], names.get("key") or each["key"], each["model"]),
        *(names.get("account") or each["account"], each["prompt_tokens"], each["completion_tokens"], each["points"]),
        None if cost is None else f"{cost} {each['currency']}",
    )


def _cost(each: dict[str, Any]) -> tuple[Any, ...]:
    prices = each["prices"].items()
    return (
        *(each["name"] or each["group"], each["accounts"], each["in_service"], each["deleted"], each["invalid"]),
        *(each["expired"], each["days"], each["requests"], each["points"]),
        " + ".join(f"{price['paid']} {unit}" for unit, price in prices),
        " + ".join(f"{price['per_1000_points']} {unit}" for unit, price in prices if price["per_1000_points"]),
        " ".join(f"{part['days']}d:{part['alive']}/{part['of']}" for part in each["survival"]),
    )
