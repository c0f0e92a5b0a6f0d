"""What commands share: settings with one clear message, the running gateway's address, and how answers are shown."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import click
import httpx

from poe_gateway.settings import Settings, SettingsError, load_settings

F = TypeVar("F", bound=Callable[..., Any])
_TIMEOUT = httpx.Timeout(120.0, connect=5.0)
"""Seconds; a test of an account or a round over all of them takes its time."""


def settings() -> Settings:
    """The settings; without usable ones the message on standard error and the end of the process with code 2."""
    try:
        return load_settings()
    except SettingsError as error:
        click.echo(str(error), err=True)
        raise SystemExit(2) from None


def local_url(host: str, port: int) -> str:
    """Where a gateway that listens on ``host`` answers on this machine."""
    if host in ("0.0.0.0", ""):  # noqa: S104 - recognised, not bound
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def remote(command: F) -> F:
    """Options of all commands that talk to a running gateway."""
    command = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for machines.")(command)
    return click.option("--url", metavar="URL", help="Address of the gateway; default: as in the settings.")(command)


class Admin:
    """The running gateway's admin API. Failures end the command with a sentence; nothing shows a key."""

    def __init__(self, url: str | None, transport: httpx.BaseTransport | None = None) -> None:
        options = settings()
        serve = options.serve
        door = (serve.admin_host, serve.admin_port) if serve.admin_port else (serve.host, serve.port)
        self.url = (url or local_url(*door)).rstrip("/")
        self._client = httpx.Client(
            base_url=self.url + "/admin",
            headers={"Authorization": f"Bearer {options.auth.admin_key.get_secret_value()}", **_actor()},
            timeout=_TIMEOUT,
            trust_env=False,
            transport=transport,
        )

    def get(self, path: str, **params: Any) -> Any:
        """The answer of a GET; parameters that are None are left out."""
        return self._call("GET", path, params={key: value for key, value in params.items() if value is not None})

    def post(self, path: str, body: Any = None) -> Any:
        """The answer of a POST."""
        return self._call("POST", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        """The answer of a PATCH."""
        return self._call("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        """The answer of a DELETE."""
        return self._call("DELETE", path)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        if options.get("json", ...) is None:
            del options["json"]
        try:
            answer = self._client.request(method, path, **options)
        except httpx.TimeoutException:
            fail(f"The gateway at {self.url} did not answer in time.")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            fail(
                f"The gateway at {self.url} cannot be reached ({type(error).__name__}). Is it running? "
                "Start it with: poe-gateway serve"
            )
        try:
            body = answer.json()
        except ValueError:
            body = None
        if answer.is_success and body is not None:
            return body
        raise click.ClickException(_refusal(answer.status_code, body, self.url))


def _actor() -> dict[str, str]:
    """Who is at the keyboard, for the audit chain: what the operating system says, which proves nothing."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user, as in some containers
        return {}
    return {"X-Actor": "".join(each if each.isascii() and each.isprintable() else "?" for each in name)}


def _refusal(status: int, body: Any, url: str) -> str:
    try:
        message = str(body["error"]["message"])
    except (TypeError, KeyError):
        return f"What answers at {url} is not a poe_gateway (HTTP {status})."
    if status == 401:
        return f"{message} Is ADMIN_API_KEY here the same as the one the gateway was started with?"
    return message


def fail(message: str) -> NoReturn:
    """End the command with a message and exit code 1."""
    raise click.ClickException(message)


def show_json(value: Any) -> None:
    """For machines."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Aligned columns; None is a dash."""
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max([len(column), *(len(row[place]) for row in texts)]) for place, column in enumerate(columns)]
    for row in [list(columns), *texts]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_fields(fields: Mapping[str, Any]) -> None:
    """One name and value per line."""
    width = max(map(len, fields))
    for name, value in fields.items():
        click.echo(f"{name.ljust(width)}  {_text(value)}")


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    # What the gateway shows may hold what an upstream said: nothing of it may move the cursor.
    return "".join(each if each.isprintable() else "?" for each in str(value))
