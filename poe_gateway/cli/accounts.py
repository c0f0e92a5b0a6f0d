"""``poe-gateway accounts``: the pool of the running gateway."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, TypeVar
from urllib.parse import quote

import click

from poe_gateway.cli.ground import Admin, fail, remote, show_fields, show_json, show_table
from poe_gateway.cli.handing_in import bodies_of_file, body_of_options

_COLUMNS = (
    *("ID", "PROVIDER", "NAME", "STATUS", "CAUSE", "INTENT"),
    *("POINTS", "INFLIGHT", "PRIORITY", "LABELS", "UNTIL"),
)
_STATUSES = click.Choice(["active", "cooldown", "depleted", "invalid", "paused"])
_SECRET_FREE = (
    *("id", "provider", "name", "status", "intent", "message_point_balance", "health_score", "error_count"),
    *("last_error", "cooldown_until", "last_used_at", "last_refresh_at", "updated_at"),
    *("priority", "weight", "keep_percent", "max_inflight"),
)


F = TypeVar("F", bound=Callable[..., Any])


class Calendar(click.ParamType[str]):
    """A date, which is its midnight in UTC, or a time with its offset; an empty text is nothing."""

    name = "DATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip()
        try:
            day = date.fromisoformat(text)
        except ValueError:
            return text  # the gateway judges it
        return datetime(day.year, day.month, day.day, tzinfo=UTC).isoformat()


def _purchase(command: F) -> F:
    """Options that say what an account cost."""
    for option in (
        click.option("--expires-at", type=Calendar(), help="The account's own end; reported, not enforced."),
        click.option("--purchased-at", type=Calendar(), help="A date (UTC), or ISO 8601 with its offset."),
        click.option("--currency", metavar="CODE", help="Of the price; USD by default."),
        click.option("--purchase-price", metavar="NUMBER", help="What it cost, as 2.50."),
        click.option("--batch", help="With which others it was bought."),
        click.option("--vendor", help="Where it was bought."),
    ):
        command = option(command)
    return command


@click.group()
def accounts() -> None:
    """Accounts of the pool. ACCOUNT is an id or a name (e-mail)."""


@accounts.command()
@click.option("--email", help="A Poe account by its e-mail address.")
@click.option("--provider", help="Any provider, with --name; see GET /admin/providers.")
@click.option("--name", help="What the account is called.")
@click.option(
    "-c", "--credential", "given", multiple=True, metavar="FIELD=VALUE", help="FIELD=@FILE reads the value from a file."
)
@click.option("--max-inflight", type=click.IntRange(1, 10_000), help="Requests at a time on this account.")
@click.option("--file", "source", type=click.File("rb"), help="JSON: one account or a list of them; - for input.")
@_purchase
@remote
def add(
    email: str | None,
    provider: str | None,
    name: str | None,
    given: tuple[str, ...],
    max_inflight: int | None,
    source: Any,
    url: str | None,
    *,
    as_json: bool,
    **bought: str | None,
) -> None:
    """Store an account, or fresh credentials for it.

    Required secrets that are not given are asked for and not echoed. Options can be seen by other users of this
    machine while the command runs: prefer --file, @FILE, or the question. --vendor and the like go for all accounts of
    a file.
    """
    admin = Admin(url)
    if source is not None:
        if email or provider or name or given:
            raise click.UsageError("--file takes the place of --email, --provider, --name and --credential.")
        bodies = bodies_of_file(source)
    else:
        bodies = [body_of_options(admin, email, provider, name, given, max_inflight)]
    said = {field: value for field, value in bought.items() if value is not None}
    stored = [admin.post("/accounts/upsert", {**body, **said}) for body in bodies]
    if as_json:
        show_json(stored if source is not None else stored[0])
        return
    for account in stored:
        word = "stored" if account["created"] else "renewed"
        click.echo(f"{account['provider']} {account['name']} is {word} as {account['id']}.")


@accounts.command("list")
@click.option("--status", multiple=True, type=_STATUSES, help="Any of these; may be repeated.")
@click.option("--provider", help="Only this provider.")
@click.option("--label", "labels", multiple=True, help="All of these; may be repeated.")
@click.option("--priority", type=int, help="Only this priority.")
@click.option("--q", "text", help="Part of the name.")
@click.option("--page", type=click.IntRange(1), default=1, show_default=True)
@click.option("--page-size", type=click.IntRange(1, 200), default=50, show_default=True)
@remote
def list_command(
    status: tuple[str, ...],
    provider: str | None,
    labels: tuple[str, ...],
    priority: int | None,
    text: str | None,
    page: int,
    page_size: int,
    url: str | None,
    *,
    as_json: bool,
) -> None:
    """Accounts, oldest first."""
    answer = Admin(url).get(
        "/accounts",
        page=page,
        page_size=page_size,
        status=list(status) or None,
        provider=provider,
        label=list(labels) or None,
        priority=priority,
        q=text,
    )
    if as_json:
        show_json(answer)
        return
    show_table(_COLUMNS, [_row(account) for account in answer["data"]])
    shown = len(answer["data"])
    if shown < answer["total"]:
        click.echo(f"{shown} of {answer['total']} accounts; more with --page {page + 1}.", err=True)


@accounts.command()
@click.argument("account")
@remote
def show(account: str, url: str | None, *, as_json: bool) -> None:
    """What the pool knows of one account."""
    admin = Admin(url)
    _tell(admin.get(f"/accounts/{_id_of(admin, account)}"), as_json=as_json)


@accounts.command("set")
@click.argument("account")
@click.option("--priority", type=click.IntRange(-1_000, 1_000), help="Higher first; 0 by default.")
@click.option("--weight", type=click.IntRange(1, 1_000), help="Share of work under the weighted strategy.")
@click.option("--label", "labels", multiple=True, help="All labels of the account, in place of those it has.")
@click.option("--no-labels", is_flag=True, help="Take all labels away.")
@click.option("--keep-percent", type=click.IntRange(0, 100), help="Part of the points kept for the owner.")
@click.option("--max-inflight", type=click.IntRange(1, 10_000), help="Requests at a time.")
@click.option("--no-max-inflight", is_flag=True, help="As many requests at a time as the pool's settings say.")
@_purchase
@remote
def set_command(
    account: str,
    url: str | None,
    *,
    labels: tuple[str, ...],
    no_labels: bool,
    no_max_inflight: bool,
    as_json: bool,
    **figures: int | str | None,
) -> None:
    """Change what is given and nothing else: in which order the account is used, how much of it, what it cost.

    An empty --vendor, --batch, --purchase-price, --purchased-at or --expires-at takes it away.
    """
    given = {name: value for name, value in figures.items() if value is not None}
    change: dict[str, Any] = {name: None if value == "" else value for name, value in given.items()}
    if (labels and no_labels) or ("max_inflight" in change and no_max_inflight):
        raise click.UsageError("An option and its --no- form exclude each other.")
    if labels or no_labels:
        change["labels"] = list(labels)
    if no_max_inflight:
        change["max_inflight"] = None
    if not change:
        raise click.UsageError("Nothing to change; see --help.")
    admin = Admin(url)
    _tell(admin.patch(f"/accounts/{_id_of(admin, account)}", change), as_json=as_json)


@accounts.command()
@click.argument("account")
@click.option("--force", is_flag=True, help="Contact the account even if it met a bot challenge.")
@remote
def test(account: str, url: str | None, *, force: bool, as_json: bool) -> None:
    """One real, cheap round trip that says what failed; exit code 1 if something did."""
    admin = Admin(url)
    report = admin.post(f"/accounts/{_id_of(admin, account)}/test", {"force": force})
    if as_json:
        show_json(report)
    else:
        show_fields(
            {
                "result": "ok" if report["ok"] else f"failed at the {report['step']}",
                "outcome": report["outcome"],
                "message": report["message"],
                "detail": report["detail"],
                "seconds": report["seconds"],
                "status": report["account"]["status"],
                "points": report["account"]["message_point_balance"],
            }
        )
    if not report["ok"]:
        raise SystemExit(1)


@accounts.command()
@click.argument("account")
@remote
def refresh(account: str, url: str | None, *, as_json: bool) -> None:
    """Measure the balance now."""
    admin = Admin(url)
    _tell(admin.post("/accounts/refresh-points", {"id": _id_of(admin, account)}), as_json=as_json)


@accounts.command()
@click.argument("account")
@remote
def pause(account: str, url: str | None, *, as_json: bool) -> None:
    """No new requests until it is resumed."""
    _verb(url, account, "pause", as_json=as_json)


@accounts.command()
@click.argument("account")
@remote
def resume(account: str, url: str | None, *, as_json: bool) -> None:
    """End a pause."""
    _verb(url, account, "resume", as_json=as_json)


@accounts.command("clear-cooldown")
@click.argument("account")
@remote
def clear_cooldown(account: str, url: str | None, *, as_json: bool) -> None:
    """Vouch for the account: rests, invalidity and even a challenge end."""
    _verb(url, account, "clear-cooldown", as_json=as_json)


@accounts.command("flush-affinity")
@click.argument("account", required=False)
@click.option("--all", "every", is_flag=True, help="The sessions of all accounts.")
@remote
def flush_affinity(account: str | None, url: str | None, *, every: bool, as_json: bool) -> None:
    """Let the sessions of an account choose anew with their next request. They send their history again."""
    if (account is None) != every:
        raise click.UsageError("Give either ACCOUNT or --all.")
    admin = Admin(url)
    if account is None:
        answer = admin.post("/sessions/flush", {"all": True})
    else:
        answer = admin.post(f"/accounts/{_id_of(admin, account)}/flush-affinity")
    if as_json:
        show_json(answer)
        return
    click.echo(f"Sessions that choose anew: {answer['dropped']}.")


@accounts.command()
@click.argument("account")
@click.option("--yes", is_flag=True, help="Do not ask.")
@remote
def delete(account: str, url: str | None, *, yes: bool, as_json: bool) -> None:
    """Remove the account with its credentials."""
    admin = Admin(url)
    account_id = _id_of(admin, account)
    if not yes:
        click.confirm(f"Delete {account} ({account_id}) with its credentials?", abort=True, err=True)
    answer = admin.delete(f"/accounts/{account_id}")
    if as_json:
        show_json(answer)
        return
    click.echo(f"{account} ({account_id}) is deleted.")


def _verb(url: str | None, account: str, verb: str, *, as_json: bool) -> None:
    admin = Admin(url)
    _tell(admin.post(f"/accounts/{_id_of(admin, account)}/{verb}"), as_json=as_json)


def _tell(account: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(account)
        return
    fields = {name: account[name] for name in _SECRET_FREE}
    clock = account["reset_clock"]
    more = {
        "cause": account["health"]["cause"],
        "labels": " ".join(account["labels"]),
        "renewal": None if clock is None else clock["words"],
        **{name: account[name] for name in ("vendor", "batch", "purchase_price", "currency")},
        **{name: account[name] for name in ("purchased_at", "expires_at")},
    }
    show_fields({**fields, **more})


def _id_of(admin: Admin, account: str) -> str:
    """The id of an account given by id or exact name."""
    if account.startswith("acct_"):
        return quote(account, safe="")
    found = admin.get("/accounts", q=account, page_size=200)["data"]
    named = [each for each in found if each["name"].lower() == account.strip().lower()]
    if len(named) > 1:
        several = ", ".join(f"{each['id']} ({each['provider']})" for each in named)
        fail(f"Several accounts are called {account}: {several}. Give the id.")
    if not named:
        fail(f"There is no account called {account}.")
    return str(named[0]["id"])


def _row(account: dict[str, Any]) -> tuple[Any, ...]:
    points = account["message_point_balance"]
    if points is not None and account["balance"]["estimated"]:
        points = f"~{points}"
    return (
        account["id"],
        account["provider"],
        account["name"],
        account["status"],
        account["health"]["cause"],
        account["intent"],
        points,
        account["inflight"],
        account["priority"],
        " ".join(account["labels"]),
        account["cooldown_until"],
    )
