"""Options for limits and budgets, shared by keys and organisations, and how both are shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from poe_gateway import money
from poe_gateway.clock import SystemClock

F = TypeVar("F", bound=Callable[..., Any])
_LIMITS = {
    "rpm": ("requests_minute", "Requests per minute."),
    "rph": ("requests_hour", "Requests per hour."),
    "rpd": ("requests_day", "Requests per day."),
    "tpm": ("tokens_minute", "Tokens per minute."),
    "tph": ("tokens_hour", "Tokens per hour."),
    "tpd": ("tokens_day", "Tokens per day."),
    "parallel": ("parallel", "Requests at a time."),
}
_PERIODS = ("day", "month", "total")
_LENGTH = re.compile(r"([0-9]{1,6})\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def _amounts(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        try:
            money.read(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    return value


def length(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Callback of an option: ``90s``, ``30m``, ``12h``, ``30d``, ``2w`` or ``0`` in seconds."""
    found = _seconds(value)
    if found is None:
        raise click.BadParameter("write a number and s, m, h, d or w, for example 12h")
    return found


def end(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Callback of an option: ``30d`` from now, or a date or moment in ISO 8601 (UTC unless it says otherwise)."""
    if value is None:
        return None
    if (found := _seconds(value)) is not None:
        return (SystemClock().now() + timedelta(seconds=found)).isoformat()
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        raise click.BadParameter("write 30d, or a moment like 2027-01-31T12:00Z") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).isoformat()


def _seconds(text: str) -> int | None:
    if text.strip() == "0":
        return 0
    found = _LENGTH.fullmatch(text.strip())
    return None if found is None else int(found[1]) * _SECONDS[found[2]]


def allowance(command: F) -> F:
    """Options of the commands that make or change what has limits and budgets."""
    for period in reversed(_PERIODS):
        words = "in all" if period == "total" else f"per {period}"
        command = click.option(
            f"--budget-{period}",
            callback=_amounts,
            multiple=True,
            metavar="AMOUNT",
            help=f"Budget {words}, for example 5USD or 3000points; once for each unit.",
        )(command)
    for option, (_, words) in reversed(_LIMITS.items()):
        command = click.option(f"--{option}", type=click.IntRange(min=-1), help=f"{words} 0: unlimited.")(command)
    return command


forget = click.option("--no-limits", is_flag=True, help="Forget earlier limits: the defaults hold.")
forget_budgets = click.option("--no-budgets", is_flag=True, help="Forget earlier budgets.")


def allowed(
    options: dict[str, Any], present: dict[str, Any] | None = None, *, no_limits: bool = False, no_budgets: bool = False
) -> dict[str, Any]:
    """The fields of a form, taken out of ``options``.

    ``present``: the thing as it is. A budget replaces the one of its unit and period, all others stay.
    """
    fields: dict[str, Any] = {}
    limits = {field: options.pop(option) for option, (field, _) in _LIMITS.items()}
    given = {field: value for field, value in limits.items() if value is not None}
    if given or no_limits:
        rest = dict.fromkeys(limits) if no_limits else {}
        fields["limits"] = {**rest, **given}
    budgets = [(period, text) for period in _PERIODS for text in options.pop(f"budget_{period}")]
    if budgets or no_budgets:
        kept = {} if no_budgets or present is None else {_place(each): each for each in present["budgets"]}
        new = [{"period": period, "amount": text} for period, text in budgets]
        replaced = {(money.read(each["amount"])[1], each["period"]) for each in new}
        fields["budgets"] = [each for place, each in kept.items() if place not in replaced] + new
    return fields


def _place(budget: dict[str, Any]) -> tuple[str, str]:
    return budget["unit"], budget["period"]


def shown_limits(limits: dict[str, Any]) -> str:
    """In the words of the options."""
    return _words((option, limits[field]) for option, (field, _) in _LIMITS.items() if limits[field] is not None)


def shown_budgets(budgets: list[dict[str, Any]]) -> str:
    """In the words of the options."""
    return _words((each["period"], f"{each['amount']}{each['unit']}") for each in budgets)


def _words(pairs: Iterable[tuple[str, Any]]) -> str:
    return " ".join(f"{name}={value}" for name, value in pairs)
