"""``poe-gateway audit``: who changed what, whether that record is whole, and what requests looked like."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import click

from poe_gateway.cli.decisions import Moment
from poe_gateway.cli.ground import Admin, fail, remote, show_fields, show_json, show_table

_ENTRIES = ("N", "AT", "ACTOR", "ADDRESS", "ACTION", "TARGET", "BEFORE", "AFTER")
_REQUESTS = ("AT", "REQUEST", "ORG", "KEY", "MODEL", "STATUS", "CODE", "TURNS", "ASKED", "ANSWERED", "TEXT")
_SHOWN = 60
"""Characters of a change in a table."""


class Noted(click.ParamType[tuple[int, str]]):
    """An entry as ``verify`` printed it: ``<number>:<hash>``."""

    name = "N:HASH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, str]:
        number, _, hash_ = str(value).partition(":")
        if not number.isdecimal() or len(hash_) != 64:
            self.fail("give it as verify printed it: <number>:<64 hexadecimal digits>", param, ctx)
        return int(number), hash_


_from = click.option("--from", "since", type=Moment(), help="From then on: ISO 8601, or as 30m, 2h, 1d ago.")
_to = click.option("--to", "until", type=Moment(), help="Before then.")


@click.group()
def audit() -> None:
    """What operators changed, and what requests looked like."""


@audit.command("list")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True)
@click.option("--target", help="As key:key_… or account:acct_…")
@click.option("--actor", help="As admin:alice.")
@click.option("--action", help="As key.create.")
@click.option("--before", type=click.IntRange(1), help="Only entries with a smaller number.")
@_from
@_to
@remote
def list_command(url: str | None, *, as_json: bool, since: str | None, until: str | None, **filters: Any) -> None:
    """The newest changes that fit all filters."""
    answer = Admin(url).get("/audit", **filters, **{"from": since, "to": until})
    if as_json:
        show_json(answer)
        return
    show_table(_ENTRIES, [_entry(each) for each in answer["data"]])
    if answer["next_before"] is not None:
        click.echo(f"Older entries with --before {answer['next_before']}.", err=True)


@audit.command()
@click.argument("number", type=click.IntRange(1))
@remote
def show(number: int, url: str | None, *, as_json: bool) -> None:
    """One change in full."""
    answer = Admin(url).get(f"/audit/{number}")
    if as_json:
        show_json(answer)
        return
    show_fields({name: _flat(value) for name, value in answer.items()})


@audit.command()
@click.option("--expect", type=Noted(), help="An entry as it was noted after an earlier run.")
@remote
def verify(expect: tuple[int, str] | None, url: str | None, *, as_json: bool) -> None:
    """Walk the whole chain of changes. Ends with code 1 when something in it is not as it was written.

    Note the printed entry where nobody who can reach the database can change it, and give it to --expect next time:
    only then do those who hold the gateway's keys leave traces, too.
    """
    n, hash_ = expect or (None, None)
    answer = Admin(url).get("/audit/verify", n=n, hash=hash_)
    if as_json:
        show_json(answer)
    else:
        click.echo(f"{answer['checked']} entries are as they were written.")
        if answer["last"]:
            click.echo(f"The newest of them, to be noted: {answer['last']}:{answer['hash']}")
        if answer["ok"] and answer["detail"]:
            click.echo(answer["detail"])
    if not answer["ok"]:
        where = "The chain" if answer["bad"] is None else f"Entry {answer['bad']}"
        fail(f"{where}: {answer['wrong']}. {answer['detail'][:1].upper()}{answer['detail'][1:]}.")


@audit.command()
@click.argument("request_id", required=False)
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True)
@click.option("--key", help="Id of a service key.")
@click.option("--org", help="Id of an organisation.")
@click.option("--after", help="Where the page before ended.")
@click.option("--text", is_flag=True, help="Open the kept text of REQUEST_ID; that is written down as a change is.")
@_from
@_to
@remote
def traffic(
    request_id: str | None,
    url: str | None,
    *,
    text: bool,
    as_json: bool,
    since: str | None,
    until: str | None,
    **filters: Any,
) -> None:
    """What requests looked like: roles, lengths, digests. With REQUEST_ID: that request in full."""
    admin = Admin(url)
    if request_id is None:
        if text:
            raise click.UsageError("--text needs a REQUEST_ID.")
        answer = admin.get("/traffic", **filters, **{"from": since, "to": until})
    else:
        answer = admin.get(f"/traffic/{quote(request_id, safe='')}", text="true" if text else None)
    if as_json:
        show_json(answer)
    elif request_id is None:
        show_table(_REQUESTS, [_request(each) for each in answer["data"]])
        if answer["next_after"] is not None:
            click.echo(f"Older records with --after {answer['next_after']}", err=True)
    else:
        for number, each in enumerate(answer["data"]):
            if number:
                click.echo()
            show_fields({name: _flat(value) for name, value in each.items()})


def _entry(each: dict[str, Any]) -> tuple[Any, ...]:
    values = (_short(each["before"]), _short(each["after"]))
    return each["n"], each["at"], each["actor"], each["address"], each["action"], each["target"], *values


def _request(each: dict[str, Any]) -> tuple[Any, ...]:
    asked = sum(turn["length"] for turn in each["messages"])
    turns = sum(turn["earlier"] or 1 for turn in each["messages"])
    answered = None if each["answer"] is None else each["answer"]["length"]
    who = (each["at"], each["request_id"], each["org"], each["key_id"], each["model"])
    return *who, each["status"], each["error_code"], turns, asked, answered, "kept" if each["kept"] else None


def _flat(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _short(value: Any) -> str | None:
    if value is None:
        return None
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
