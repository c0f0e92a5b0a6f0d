"""``poe-gateway pool decisions``: the records of what was decided, listed or exported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, BinaryIO

import click
import httpx

from poe_gateway.cli.ground import Admin, fail, remote, show_json, show_table
from poe_gateway.clock import SystemClock

_AGO = re.compile(r"(\d{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_RECORDS = ("AT", "REQUEST", "KEY", "MODEL", "STATUS", "CODE", "ACCOUNT", "TRIES", "SECONDS")


class Moment(click.ParamType[str]):
    """A time: ISO 8601 (UTC unless it says otherwise), or ``30m``, ``2h``, ``1d`` for so long ago."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        ago = _AGO.fullmatch(str(value))
        if ago is None:
            return str(value)
        try:
            return (SystemClock().now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
        except OverflowError:
            self.fail(f"{value} is too long ago.", param, ctx)


_since = click.option("--since", type=Moment(), help="From then on: ISO 8601, or as 30m, 2h, 1d ago.")


class Exporter(Admin):
    """Reads an answer as it comes."""

    def chunks(self, path: str, **params: Any) -> Iterator[bytes]:
        """The body in parts. One that breaks off ends the command with a message."""
        given = {key: value for key, value in params.items() if value is not None}
        begun = False
        try:
            with self._client.stream("GET", path, params=given) as answer:
                if not answer.is_success:
                    answer.read()
                    self._refuse(answer)
                begun = True
                yield from answer.iter_bytes()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            what = "broke off; what was written is not whole" if begun else "cannot be reached"
            fail(f"The export from {self.url} {what} ({type(error).__name__}).")

    def _refuse(self, answer: httpx.Response) -> None:
        try:
            message = str(answer.json()["error"]["message"])
        except (ValueError, TypeError, KeyError):
            message = f"What answers at {self.url} is not a poe_gateway (HTTP {answer.status_code})."
        fail(message)


@click.group()
def decisions() -> None:
    """Records of what was decided about requests."""


@decisions.command("list")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True)
@click.option("--model")
@click.option("--key", help="Id of a service key.")
@click.option("--account", help="Id of an account that was chosen or tried.")
@click.option("--outcome", help="Of any attempt, as RateLimited.")
@click.option("--code", help="Error code that the caller got.")
@_since
@remote
def list_command(url: str | None, *, as_json: bool, **filters: Any) -> None:
    """The newest records that fit all filters."""
    answer = Admin(url).get("/decisions", **filters)
    if as_json:
        show_json(answer)
        return
    show_table(_RECORDS, [_record(each) for each in answer["data"]])
    say_incomplete(answer)


@decisions.command()
@_since
@click.option("--until", type=Moment(), help="Before then.")
@click.option("-o", "--output", type=click.File("wb"), default="-", help="A file; default: standard output.")
@click.option("--url", metavar="URL", help="Address of the gateway; default: as in the settings.")
def export(since: str | None, until: str | None, output: BinaryIO, url: str | None) -> None:
    """All records, oldest first, one JSON object a line: for ``poe-gateway simulate --from-records``."""
    for chunk in Exporter(url).chunks("/decisions/export", since=since, until=until):
        output.write(chunk)


def say_incomplete(answer: dict[str, Any]) -> None:
    """Say so when the database was away."""
    if not answer["complete"]:
        click.echo("Only what the answering process remembers: no stored records could be read.", err=True)


def _record(each: dict[str, Any]) -> tuple[Any, ...]:
    tries = each["tries"]
    return (
        each["at"],
        each["request_id"],
        each["key_id"],
        each["model"],
        each["status"],
        each["error_code"],
        tries[-1]["account_id"] if tries else None,
        len(tries),
        f"{each['seconds']:.3f}",
    )
