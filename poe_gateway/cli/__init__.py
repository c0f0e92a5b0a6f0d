"""Doors for operators on the command line: ``poe-gateway``."""

from __future__ import annotations

import click

from poe_gateway import __version__
from poe_gateway.cli.accounts import accounts
from poe_gateway.cli.audit import audit
from poe_gateway.cli.config import config
from poe_gateway.cli.keys import keys
from poe_gateway.cli.orgs import orgs
from poe_gateway.cli.pool import pool
from poe_gateway.cli.prices import prices
from poe_gateway.cli.server import healthcheck, serve
from poe_gateway.cli.simulate import simulate
from poe_gateway.cli.usage import usage
from poe_gateway.cli.vault import vault


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="poe-gateway")
def main() -> None:
    """A broker for pools of chat accounts behind an OpenAI-compatible API."""


for _command in (serve, config, accounts, keys, orgs, prices, usage, audit, pool, simulate, vault, healthcheck):
    main.add_command(_command)
