"""Amounts of money and points: integers, never floats. Pure.

An amount of a currency counts units of 10**-8 (so 1 USD is 100,000,000); an amount of points counts points. What is
one-tenth of a cent per million tokens is still exact to the unit, and 64 bits hold 92 billion dollars.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

POINTS = "points"
"""The unit of amounts that are no money."""
DECIMALS = 8
UNIT = 10**DECIMALS
LARGEST = 2**62
"""Amounts beyond this are refused: sums must stay within 64 bits."""
_CURRENCY = re.compile(r"[A-Z]{3}")
_WRITTEN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*")


def is_unit(unit: str) -> bool:
    """``points`` or three capital letters."""
    return unit == POINTS or _CURRENCY.fullmatch(unit) is not None


def amount_of(value: Decimal | int | str, unit: str) -> int:
    """The amount of a number of currency units or points, rounded half to even once. Raises ValueError."""
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise ValueError("not a decimal number") from None
    if not number.is_finite():
        raise ValueError("not a finite number")
    if abs(number) * UNIT > LARGEST:
        raise ValueError("too large")
    scaled = number if unit == POINTS else number.scaleb(DECIMALS)
    return int(scaled.to_integral_value(ROUND_HALF_EVEN))


def decimal_of(amount: int, unit: str) -> Decimal:
    """Currency units or points as an exact decimal."""
    return Decimal(amount) if unit == POINTS else Decimal(amount).scaleb(-DECIMALS)


def shown(amount: int, unit: str) -> str:
    """The number without its unit and without idle zeros: ``0.0125``, ``5``."""
    text = f"{decimal_of(amount, unit):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def read(text: str) -> tuple[int, str]:
    """``5USD``, ``0.25 EUR``, ``3000points`` as (amount, unit). Raises ValueError."""
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise ValueError("write a number and its unit, for example 5USD or 3000points")
    word = found[2]
    unit = POINTS if word.lower() in ("points", "point", "pts") else word.upper()
    if not is_unit(unit):
        raise ValueError("the unit is a currency of three letters, or points")
    if unit == POINTS and "." in found[1]:
        raise ValueError("points are whole numbers")
    return amount_of(found[1], unit), unit
