"""Numbers and their names as text for the page. A missing value, NaN and infinity are shown as "none"."""

import math
from collections.abc import Callable

from toolkit.metrics.limit import SHARES
from toolkit.parity.report import Check

NONE = "none"

Shown = Callable[[float | None], str]


def has_value(value: float | None) -> bool:
    """Return whether a value is a finite number, to show or to draw."""
    return value is not None and math.isfinite(value)


def significant(value: float | None, digits: int = 3) -> str:
    """Return a quantity with `digits` significant digits: 0.0123, 1.23, 12.3, 1,230."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 9)}f}"


def error(value: float | None) -> str:
    """Return a ratio with two significant digits: 0.034 or 2.1e-7."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:#.2g}" if abs(value) < 10 else f"{value:,.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def share(value: float | None) -> str:
    """Return a share in percent: 0%, <0.01%, 0.03%, 12.50%."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0%"
    return f"{value:.2%}" if abs(value) >= 5e-5 else ("<0.01%" if value > 0 else ">-0.01%")


def tick(value: float) -> str:
    """Return the label of a round number on an axis: 0.5, 20, 1e-6."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:g}"
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def share_tick(value: float) -> str:
    """Return the label of a round share on an axis, in percent."""
    return f"{tick(100 * value)}%"


def count(value: float | None) -> str:
    """Return a number without decimals: 1,230."""
    return NONE if value is None or not math.isfinite(value) else f"{value:,.0f}"


def cosine(value: float | None) -> str:
    """Return a cosine or an IoU with six decimals, because its distance from 1 matters."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.6f}"


def decibels(value: float | None) -> str:
    """Return decibels with one decimal."""
    return f"{value:.1f}" if value is not None and math.isfinite(value) else NONE


def megabytes(count: float) -> float:
    """Return bytes in megabytes of 1e6 bytes, as everywhere in this project."""
    return count / 1e6


# Names for numbers of the comparison and of judges. Other names are shown with spaces for their underscores.
_WORDS = {
    "bits_flipped": "bits flipped",
    "accuracy_loss": "right bits lost",
    "verdicts_changed": "verdicts changed",
    "channel_changed": "detection channel changed",
    "changed": "values changed",
    "relative_l2": "relative error (L2)",
    "of_variation": "error over what inputs change",
    "real_error": "error on real samples",
    "mean_cosine": "mean cosine",
    "mean_iou": "mean IoU",
    "lost": "vectors lost",
    "psnr_db": "PSNR, dB",
    "latent_max_abs": "largest error of the latents",
    "latent_error": "error of the latents",
    "not_finite": "NaN or infinite",
    "reference_not_finite": "NaN or infinite in the reference",
}


_FORMS: dict[str, Shown] = {
    **dict.fromkeys(SHARES, share),
    "psnr_db": decibels,
    **dict.fromkeys(("mean_cosine", "mean_iou"), cosine),
    **dict.fromkeys(("not_finite", "reference_not_finite"), count),
}


def wording(number: str) -> str:
    """Return the name of a number for the page."""
    return _WORDS.get(number, number.replace("_", " "))


def form(number: str) -> Shown:
    """Return the function that formats a number's values: `share`, `decibels`, `cosine`, `count`, or else `error`."""
    return _FORMS.get(number, error)


def bound(check: Check) -> str:
    """Return the limit of a check: "0.10", "at least 35.0", or "" without a limit."""
    shown = form(check.number)
    if check.at_least is not None:
        return f"at least {shown(check.at_least)}"
    return "" if check.at_most is None else shown(check.at_most)


def capital(text: str) -> str:
    """Return the text with a capital first letter and all others unchanged."""
    return text[:1].upper() + text[1:]
