"""``poe-gateway simulate``: days of pool life on virtual time, or recorded requests under another policy."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TextIO

import click
import msgspec

from poe_gateway.cli.ground import fail, show_table
from poe_gateway.simulation.backtest import ASSUMED, BadPolicy, compared, policy_with, recorded, replay
from poe_gateway.simulation.day import Day
from poe_gateway.simulation.plan import draw
from poe_gateway.simulation.plants import PLANTS
from poe_gateway.simulation.records import BadRecords, read_accounts, read_records
from poe_gateway.simulation.report import Report, told


class _Order(msgspec.Struct, frozen=True, kw_only=True):
    """One run, for whichever process carries it out."""

    seed: int
    days: float
    processes: int | None
    pool: int | None
    plant: str | None
    verbose: bool


class Seeds(click.ParamType[range]):
    """``7`` or ``1..1000``."""

    name = "A..B"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> range:
        first, dots, last = str(value).partition("..")
        try:
            seeds = range(int(first), int(last if dots else first) + 1)
        except ValueError:
            self.fail(f"{value!r} is not of the form A..B", param, ctx)
        if not seeds:
            self.fail(f"{value!r} names no seed", param, ctx)
        return seeds


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same run.")
@click.option("--seeds", type=Seeds(), help="Several seeds, A..B, instead of one.")
@click.option("--days", type=click.FloatRange(0, 366, min_open=True), default=1.0, show_default=True)
@click.option("--processes", type=click.IntRange(1, 16), help="Default: drawn from the seed.")
@click.option("--pool", type=click.IntRange(1, 1000), help="Number of accounts; default: drawn from the seed.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Runs at the same time.")
@click.option("--verbose", is_flag=True, help="Show every event.")
@click.option("--plant", type=click.Choice(sorted(PLANTS)), hidden=True, help="Plant a bug, to see it caught.")
@click.option(
    "--from-records", "records", type=click.File("r"), metavar="FILE", help="Decision records; -: standard input."
)
@click.option("--policy", multiple=True, metavar="KEY=VALUE", help="A setting of the proposed policy.")
@click.option("--recorded-policy", multiple=True, metavar="KEY=VALUE", help="A setting that was in force then.")
@click.option(
    "--accounts", type=click.File("r"), metavar="FILE", help="The pool's accounts, as the admin API lists them."
)
def simulate(
    seed: int,
    seeds: range | None,
    days: float,
    processes: int | None,
    pool: int | None,
    jobs: int,
    plant: str | None,
    records: TextIO | None,
    policy: Sequence[str],
    recorded_policy: Sequence[str],
    accounts: TextIO | None,
    *,
    verbose: bool,
) -> None:
    """Simulate days of pool life; exit code 1 when a promise was broken.

    With --from-records: replay recorded requests under the policy of then and under the proposed one.
    """
    if records is not None:
        _backtest(records, policy, recorded_policy, accounts)
        return
    if policy or recorded_policy or accounts is not None:
        raise click.UsageError("--policy, --recorded-policy and --accounts go with --from-records.")
    orders = [
        _Order(seed=each, days=days, processes=processes, pool=pool, plant=plant, verbose=verbose)
        for each in seeds or (seed,)
    ]
    broken = runs = 0
    for report, events in _carry_out(orders, jobs):
        for event in events:
            click.echo(event)
        click.echo(report.line())
        if report.violation is not None:
            click.echo(told(report.violation, report.seed))
            broken += 1
        runs += 1
    if runs > 1:
        click.echo(f"{runs} runs, {broken} with a broken promise")
    sys.exit(1 if broken else 0)


def _carry_out(orders: Sequence[_Order], jobs: int) -> Iterator[tuple[Report, list[str]]]:
    """Reports in the order of the seeds."""
    if jobs == 1 or len(orders) == 1:
        yield from map(_run, orders)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_run, orders)


def _run(order: _Order) -> tuple[Report, list[str]]:
    plan = draw(order.seed, days=order.days, processes=order.processes, accounts=order.pool)
    day = Day(plan, PLANTS[order.plant] if order.plant is not None else None)
    events: deque[str] = deque()
    if order.verbose:
        day.watch(events)
    return day.run(), list(events)


def _backtest(lines: TextIO, policy: Sequence[str], recorded_policy: Sequence[str], accounts: TextIO | None) -> None:
    try:
        records = read_records(lines)
        facts = read_accounts(accounts.read()) if accounts is not None else []
        strategy = records.strategy()
        base = {} if strategy is None else {"strategy": strategy}
        then = policy_with(recorded_policy, base)
        proposed = policy_with([*recorded_policy, *policy], base)
    except (BadRecords, BadPolicy) as error:
        fail(str(error))
    courses = {
        "RECORDED": recorded(records),
        "REPLAYED": replay(records, then, facts),
        "PROPOSED": replay(records, proposed, facts),
    }
    size = len({*records.offers, *(each.id for each in facts)})
    show_table(("", *courses), compared(courses, size))
    click.echo("\nREPLAYED: the policy of then, replayed; what differs from RECORDED is the replay's own error.")
    click.echo("What the records cannot tell:")
    for each in ASSUMED:
        click.echo(f"- {each}")
