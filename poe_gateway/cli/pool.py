"""``poe-gateway pool``: what the running gateway's pool does, and why."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from poe_gateway.cli.accounts import _id_of
from poe_gateway.cli.decisions import Moment, decisions, say_incomplete
from poe_gateway.cli.ground import Admin, remote, show_fields, show_json, show_table
from poe_gateway.cli.keys import _id_of as _key_id_of

_OFFERS = ("OFFER", "TOTAL", "IN SERVICE", "OPEN HERE", "HELD HERE", "USED HERE", "OUT OF SERVICE")
_PROCESSES = ("PROCESS", "STATE", "PID", "EXPIRES IN", "ACCOUNTS", "SLOTS", "OF THE POOL")


@click.group()
def pool() -> None:
    """The pool as it is, what it decided, and why."""


pool.add_command(decisions)


@pool.command()
@click.option("--model", help="Only what serves this model.")
@remote
def show(model: str | None, url: str | None, *, as_json: bool) -> None:
    """Accounts by offer, grants by process, the queue, and what is held back."""
    answer = Admin(url).get("/pool", model=model)
    if as_json:
        show_json(answer)
        return
    show_table(_OFFERS, [_offer(each) for each in answer["offers"]])
    click.echo()
    if answer["processes"] is None:
        click.echo("Processes: not known, the database is away.")
    else:
        show_table(_PROCESSES, [_process(name, each) for name, each in answer["processes"].items()])
    click.echo()
    limits, queue, guard = answer["limits"], answer["queue"], answer["guard"]
    show_fields(
        {
            "strategy": limits["strategy"],
            "of single models": ", ".join(f"{name} {word}" for name, word in limits["model_strategies"].items()),
            "in flight here": f"{limits['used_here']} of {limits['held_here']} slots; pool {limits['global_inflight']}",
            "waiting here": f"{queue['waiting']} of {limits['queue_limit']}",
            "waiting by key": _counts(queue["by_caller"]),
            "longest wait": _seconds(queue["oldest_wait_seconds"]),
            "expected wait": _seconds(queue["expected_wait_seconds"]),
            "held back": ", ".join(sorted(guard["held_accounts"])),
            "quarantined bodies": guard["quarantined_bodies"],
        }
    )
    for each in guard["incidents"]:
        where = each["offer"] if each["model"] is None else f"{each['model']} of {each['offer']}"
        lasted = _seconds(each["open_seconds"])
        click.echo(f"incident: {each['code']} at {where} for {lasted}, {each['accounts']} accounts failed")


@pool.command()
@click.option("--hours", type=click.IntRange(1, 168), default=24, show_default=True)
@remote
def forecast(hours: int, url: str | None, *, as_json: bool) -> None:
    """How long the points last when use goes on as in the last hours."""
    answer = Admin(url).get("/pool/forecast", hours=hours)
    if as_json:
        show_json(answer)
        return
    offers = (
        "OFFER",
        "ACCOUNTS",
        "UNMETERED",
        "UNMEASURED",
        "POINTS NOW",
        "USED IN ALL",
        "RENEWED IN ALL",
        "DEPLETED AT",
    )
    show_table(offers, [_outlook(each) for each in answer["offers"]])
    click.echo()
    models = ("MODEL", "OFFER", "PRICE", "AFFORDABLE NOW", "NOT PAID FROM")
    rows = [
        (each["model"], each["offer"], each["price"], each["affordable"], each["unpaid_at"])
        for each in answer["models"]
    ]
    show_table(models, rows)


@pool.command("would-choose")
@click.option("--model", required=True)
@click.option("--key", help="Id or name of a service key; without it any account may serve.")
@click.option("--tokens", type=click.IntRange(0), default=0, help="Estimated size of the prompt.")
@remote
def would_choose(model: str, key: str | None, tokens: int, url: str | None, *, as_json: bool) -> None:
    """What would happen to a request now. Takes nothing."""
    admin = Admin(url)
    key_id = None if key is None else _key_id_of(admin, key)
    answer = admin.get("/pool/would-choose", model=model, key=key_id, tokens=tokens)
    if as_json:
        show_json(answer)
        return
    _say(answer["text"])
    _say_names(answer["names"])


@pool.command()
@click.argument("request_id")
@remote
def explain(request_id: str, url: str | None, *, as_json: bool) -> None:
    """Why a request got what it got. REQUEST_ID is the x-request-id of its answer."""
    answer = Admin(url).get(f"/explain/{quote(request_id, safe='')}")
    if as_json:
        show_json(answer)
        return
    for number, each in enumerate(answer["data"]):
        if number:
            click.echo()
        _say(each["text"])
    _say_names(answer["names"])
    say_incomplete(answer)


@pool.command()
@click.argument("account")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--before", type=Moment(), help="Only what is older: ISO 8601, or as 30m, 2h, 1d ago.")
@remote
def history(account: str, limit: int, before: str | None, url: str | None, *, as_json: bool) -> None:
    """What happened to an account, newest first. ACCOUNT is an id or a name (e-mail)."""
    admin = Admin(url)
    answer = admin.get(f"/accounts/{_id_of(admin, account)}/history", limit=limit, before=before)
    if as_json:
        show_json(answer)
        return
    show_table(("AT", "KIND", "WHAT"), [(each["at"], each["kind"], each["text"]) for each in answer["data"]])
    if answer["next_before"] is not None:
        click.echo(f"Older entries with --before {answer['next_before']}.", err=True)


def _say(text: str) -> None:
    """What upstreams said may be in it: nothing of it may move the cursor."""
    for line in text.splitlines():
        click.echo("".join(each if each.isprintable() else "?" for each in line))


def _say_names(names: dict[str, str]) -> None:
    """Who is meant by the ids."""
    if names:
        click.echo()
        show_fields(names)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda each: -each[1]))


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f} s"


def _offer(each: dict[str, Any]) -> tuple[Any, ...]:
    held = (each["open_here"], each["held_here"], each["used_here"])
    return each["offer"], each["total"], each["in_service"], *held, _counts(each["out_of_service"])


def _process(name: str, each: dict[str, Any]) -> tuple[Any, ...]:
    held = (each["accounts"], each["slots"], each["global"])
    return name, each["state"], each["pid"], _seconds(each["expires_in"]), *held


def _outlook(each: dict[str, Any]) -> tuple[Any, ...]:
    hours = each["hours"]
    return (
        each["offer"],
        each["accounts"],
        each["unmetered"],
        each["unmeasured"],
        hours[0]["available"] if hours else None,
        sum(hour["use"] for hour in hours),
        sum(hour["renewed"] for hour in hours),
        each["depleted_at"],
    )
