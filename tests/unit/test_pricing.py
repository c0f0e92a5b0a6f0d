"""Which price rule wins and what an attempt costs by it: tables with exact numbers, and what holds for all numbers."""

from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from poe_gateway.metering import pricing
from poe_gateway.metering.pricing import Cost, PriceRule, Usage, figure, price, ranked, reason
from poe_gateway.money import LARGEST, UNIT

AT = datetime(2026, 5, 20, 12, tzinfo=UTC)


def rule(rule_id: str = "r", **fields: Any) -> PriceRule:
    for name in ("input", "output", "cached", "request", "point", "markup_percent"):
        if isinstance(fields.get(name), str):
            fields[name] = Decimal(fields[name])
    return PriceRule(**{"id": rule_id, "version": 1, "valid_from": AT - timedelta(days=1), "created_at": AT, **fields})


# Each rule before the ones that it wins against.
ORDER = [
    rule("org and provider and exact", org="org_1", provider="mock", model="gpt-4o"),
    rule("org and provider", org="org_1", provider="mock"),
    rule("org and exact", org="org_1", model="gpt-4o"),
    rule("org and glob", org="org_1", model="gpt-*"),
    rule("org", org="org_1"),
    rule("provider and exact", provider="mock", model="gpt-4o"),
    rule("provider and longer glob", provider="mock", model="gpt-4*"),
    rule("provider and glob", provider="mock", model="gpt-*"),
    rule("provider", provider="mock"),
    rule("exact with provider", model="mock:gpt-4o"),
    rule("exact", model="gpt-4o"),
    rule("longer glob with provider", model="mock:gpt-4*"),
    rule("longer glob", model="gpt-4*"),
    rule("glob, the same length but wild", model="g???4*"),
    rule("shortest glob", model="*"),
    rule("newest default", valid_from=AT),
    rule("default, second version", version=2),
    rule("default"),
]
STRANGERS = [
    rule("another org", org="org_2", provider="mock", model="gpt-4o"),
    rule("another provider", org="org_1", provider="poe_web", model="gpt-4o"),
    rule("another model", org="org_1", provider="mock", model="gpt-4"),
    rule("another glob", org="org_1", provider="mock", model="claude-*"),
    rule("to come", org="org_1", provider="mock", model="gpt-4o", valid_from=AT + timedelta(seconds=1)),
    rule("over", org="org_1", provider="mock", model="gpt-4o", retired_at=AT),
]


@given(st.permutations(ORDER + STRANGERS))
def test_the_most_specific_rule_in_force_wins(rules: list[PriceRule]) -> None:
    assert [each.id for each in ranked(rules, "org_1", "mock", "GPT-4o", AT)] == [each.id for each in ORDER]


def test_without_a_time_those_not_in_force_are_told_too() -> None:
    assert [each.id for each in ranked(STRANGERS, "org_1", "mock", "gpt-4o")] == ["to come", "over"]


def test_the_reason_names_what_a_rule_is_made_for() -> None:
    assert reason(ORDER[0]) == "made for organisation org_1, provider mock, exactly the model gpt-4o"
    assert reason(ORDER[12]) == "made for models like gpt-4*"
    assert reason(ORDER[-1]) == "made for every model"


SEED = rule(input="10", output="30", markup_percent="20")
TOKENS = Usage(prompt_tokens=1_000, completion_tokens=500)
TOLD = Usage(prompt_tokens=1_000, completion_tokens=500, told=("0.0125", "USD"))
# 10 USD and 30 USD per million are the seed's 0.01 and 0.03 per thousand.
TABLE = [
    ("told, a rule", SEED, TOLD, (1_250_000, 1_500_000, "USD", "upstream", "r@1")),
    ("told, no rule", None, TOLD, (1_250_000, 1_250_000, "USD", "upstream", None)),
    ("not told, a rule", SEED, TOKENS, (2_500_000, 3_000_000, "USD", "rule", "r@1")),
    ("not told, no rule", None, TOKENS, None),
    ("not told, only a markup", rule(markup_percent="20"), TOKENS, None),
    ("told, only a markup", rule(markup_percent="20"), TOLD, (1_250_000, 1_500_000, "USD", "upstream", "r@1")),
    ("told in another currency", replace(SEED, currency="EUR"), TOLD, (1_250_000, 1_500_000, "USD", "upstream", "r@1")),
    ("told nothing to pay", SEED, Usage(told=("0", "usd")), (0, 0, "USD", "upstream", "r@1")),
    (
        "told nonsense",
        SEED,
        Usage(prompt_tokens=1_000, told=("-1", "USD")),
        (1_000_000, 1_200_000, "USD", "rule", "r@1"),
    ),
    ("rule in another currency", replace(SEED, currency="EUR"), TOKENS, (2_500_000, 3_000_000, "EUR", "rule", "r@1")),
    ("free", rule(input="0", output="0"), TOKENS, (0, 0, "USD", "rule", "r@1")),
    ("only input has a price", rule(input="10"), TOKENS, (1_000_000, 1_000_000, "USD", "rule", "r@1")),
    ("only output has a price", rule(output="30"), TOKENS, (1_500_000, 1_500_000, "USD", "rule", "r@1")),
    ("per request", rule(request="0.01"), TOKENS, (1_000_000, 1_000_000, "USD", "rule", "r@1")),
    ("per point", rule(point="0.00003"), Usage(points=150), (450_000, 450_000, "USD", "rule", "r@1")),
    ("per point, points not known", rule(point="0.00003"), TOKENS, None),
    (
        "cached at its price",
        rule(input="10", cached="1"),
        Usage(prompt_tokens=1_000, cached_tokens=400),
        (640_000, 640_000, "USD", "rule", "r@1"),
    ),
    (
        "cached without a price: as input",
        rule(input="10"),
        Usage(prompt_tokens=1_000, cached_tokens=400),
        (1_000_000, 1_000_000, "USD", "rule", "r@1"),
    ),
    (
        "more cached than there was",
        rule(input="10", cached="1"),
        Usage(prompt_tokens=1_000, cached_tokens=9_999),
        (100_000, 100_000, "USD", "rule", "r@1"),
    ),
    (
        "all prices together",
        rule(input="10", output="30", cached="1", request="0.01", point="0.00003"),
        Usage(prompt_tokens=1_000, completion_tokens=500, cached_tokens=400, points=150),
        (640_000 + 1_500_000 + 1_000_000 + 450_000,) * 2 + ("USD", "rule", "r@1"),
    ),
    ("half to even, down", rule(input="0.005"), Usage(prompt_tokens=1), (0, 0, "USD", "rule", "r@1")),
    ("half to even, up", rule(input="0.015"), Usage(prompt_tokens=1), (2, 2, "USD", "rule", "r@1")),
    (
        "rounded once, not before the markup",
        rule(input="0.004", markup_percent="100"),
        Usage(prompt_tokens=1),
        (0, 1, "USD", "rule", "r@1"),
    ),
    ("a discount", rule(input="10", markup_percent="-25"), TOKENS, (1_000_000, 750_000, "USD", "rule", "r@1")),
    ("beyond every ledger", rule(request="1e12"), TOKENS, (LARGEST, LARGEST, "USD", "rule", "r@1")),
]


@pytest.mark.parametrize(("which", "by", "usage", "costs"), TABLE, ids=[each[0] for each in TABLE])
def test_what_it_costs(which: str, by: PriceRule | None, usage: Usage, costs: tuple[Any, ...] | None) -> None:
    cost = price(by, usage)
    assert (None if cost is None else (cost.raw, cost.billed, cost.unit, cost.source, cost.rule)) == costs


@pytest.mark.parametrize(
    "told",
    [
        *(("-0.1", "USD"), ("nan", "USD"), ("inf", "USD"), ("free", "USD"), ("", "USD"), ("1", ""), ("1", "POINTS")),
        *(("1", "points"), ("1", "DOLLARS"), ("1e40", "USD"), ("1" * 65, "USD")),
    ],
)
def test_a_figure_that_is_none_counts_as_not_told(told: tuple[str, str]) -> None:
    assert figure(told) is None and price(None, Usage(told=told)) is None


def test_a_figure_keeps_every_digit() -> None:
    assert figure((" 0.000000123456789012345678901234567890 ", "usd")) == (
        Decimal("0.000000123456789012345678901234567890"),
        "USD",
    )


RATES = st.none() | st.decimals(0, 100_000, places=12)
RULES = st.builds(
    rule,
    input=RATES,
    output=RATES,
    cached=RATES,
    request=RATES,
    point=RATES,
    markup_percent=st.decimals(-100, 1_000, places=6),
)
COUNTS = st.integers(0, 10_000_000)
USAGES = st.builds(Usage, prompt_tokens=COUNTS, completion_tokens=COUNTS, cached_tokens=COUNTS, points=COUNTS)


@given(RULES, USAGES)
def test_a_cost_is_the_exact_sum_rounded_once(by: PriceRule, usage: Usage) -> None:
    cost = price(by, usage)
    if not by.priced:
        assert cost is None
        return
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    as_input = by.input if by.cached is None else by.cached
    exact = (
        Fraction(by.input or 0) * (usage.prompt_tokens - cached) / 10**6
        + Fraction(as_input or 0) * cached / 10**6
        + Fraction(by.output or 0) * usage.completion_tokens / 10**6
        + Fraction(by.request or 0)
        + Fraction(by.point or 0) * (usage.points or 0)
    )
    billed = exact * (100 + Fraction(by.markup_percent)) / 100
    assert cost is not None
    # Python rounds fractions half to even.
    assert (cost.raw, cost.billed) == (min(LARGEST, round(exact * UNIT)), min(LARGEST, round(billed * UNIT)))


@given(RULES, USAGES, st.sampled_from(["prompt_tokens", "completion_tokens", "points"]), COUNTS)
def test_more_use_never_costs_less_and_nothing_costs_less_than_nothing(
    by: PriceRule, usage: Usage, what: str, more: int
) -> None:
    less, then = price(by, usage), price(by, replace(usage, **{what: getattr(usage, what) + more}))
    if less is not None and then is not None and less.billed is not None and then.billed is not None:
        assert 0 <= less.billed <= then.billed


@given(RULES, USAGES, st.none() | st.tuples(st.decimals(0, 1_000, places=10).map(str), st.sampled_from(["USD", "EUR"])))
def test_no_float_comes_out(by: PriceRule, usage: Usage, told: tuple[str, str] | None) -> None:
    cost = price(by, replace(usage, told=told))
    assert cost is None or (isinstance(cost, Cost) and not any(isinstance(e, float) for e in asdict(cost).values()))


def test_no_float_is_written_in_the_module() -> None:

    tree = ast.parse(Path(pricing.__file__).read_text())
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float))
        assert not isinstance(node, ast.Div)
        assert not (isinstance(node, ast.Name) and node.id == "float")
