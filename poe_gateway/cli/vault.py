"""``poe-gateway vault``."""

from __future__ import annotations

import click

from poe_gateway.vault import new_key


@click.group()
def vault() -> None:
    """Keys that seal the credentials."""


@vault.command("new-key")
def new_key_command() -> None:
    """A fresh FERNET_KEY on standard output."""
    click.echo(new_key())
