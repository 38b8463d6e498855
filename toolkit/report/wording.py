"""Names of numbers as a reader would say them, and each in its own form."""

from toolkit.report.numbers import Shown, count, error, share

# What the comparison and the kinds' judges measure. Any other name is shown with its underscores as spaces.
_WORDS = {
    "bits_flipped": "bits flipped",
    "accuracy_loss": "right bits lost",
    "verdicts_changed": "verdicts changed",
    "channel_changed": "detection channel changed",
    "changed": "values changed",
    "relative_l2": "relative error (L2)",
    "of_variation": "error over what inputs change",
    "not_finite": "NaN or infinite",
    "reference_not_finite": "NaN or infinite in the reference",
}
_FORMS: dict[str, Shown] = {
    **dict.fromkeys(("bits_flipped", "accuracy_loss", "verdicts_changed", "channel_changed", "changed"), share),
    **dict.fromkeys(("not_finite", "reference_not_finite"), count),
}


def wording(number: str) -> str:
    """A number's name as the page says it."""
    return _WORDS.get(number, number.replace("_", " "))


def form(number: str) -> Shown:
    """How a number's values are written: shares in percent, counts whole, everything else as an error."""
    return _FORMS.get(number, error)


def capital(text: str) -> str:
    """With a capital first letter; the others as they are."""
    return text[:1].upper() + text[1:]
