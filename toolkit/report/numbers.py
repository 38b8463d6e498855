"""Numbers as a reader of the page sees them. What has no value, and what is not finite, is "none"."""

import math
from collections.abc import Callable

NONE = "none"

Shown = Callable[[float | None], str]


def has_value(value: float | None) -> bool:
    """Whether there is a finite number to show or to draw."""
    return value is not None and math.isfinite(value)


def significant(value: float | None, digits: int = 3) -> str:
    """A quantity with a unit, in plain digits: 0.0123, 1.23, 12.3, 1,230."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 9)}f}"


def error(value: float | None) -> str:
    """A ratio that spans decades: two digits, 0.034 or 2.1e-7."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:#.2g}" if abs(value) < 10 else f"{value:,.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def share(value: float | None) -> str:
    """A part of a whole, in percent: 0, 0.03%, 12.50%."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0%"
    return f"{value:.2%}" if abs(value) >= 5e-5 else ("<0.01%" if value > 0 else ">-0.01%")


def tick(value: float) -> str:
    """A round number on an axis: 0.5, 20, 1e-6."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def share_tick(value: float) -> str:
    """A round share on an axis, in percent."""
    return f"{tick(100 * value)}%"


def count(value: float | None) -> str:
    """A whole number."""
    return NONE if value is None or not math.isfinite(value) else f"{value:,.0f}"


def cosine(value: float | None) -> str:
    """Six decimals: what matters of a cosine is how far it is from 1."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.6f}"


def decibels(value: float | None) -> str:
    """One decimal."""
    return f"{value:.1f}" if value is not None and math.isfinite(value) else NONE


def megabytes(count: float) -> float:
    """Decimal, as everywhere in this project."""
    return count / 1e6
