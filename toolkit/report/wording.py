"""Names of numbers as a reader would say them, and each in its own form."""

from typing import Any

from toolkit.report.numbers import Shown, cosine, count, decibels, error, share

# What the comparison and the kinds' judges measure. Any other name is shown with its underscores as spaces.
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
    "lost": "vectors lost",
    "psnr_db": "PSNR, dB",
    "latent_max_abs": "largest error of the latents",
    "latent_error": "error of the latents",
    "not_finite": "NaN or infinite",
    "reference_not_finite": "NaN or infinite in the reference",
}
_SHARES = (
    "bits_flipped",
    "accuracy_loss",
    "verdicts_changed",
    "channel_changed",
    "changed",
    "lost",
    "tokens_changed",
    "captions_changed",
    "attention_changed",
)
_FORMS: dict[str, Shown] = {
    **dict.fromkeys(_SHARES, share),
    "psnr_db": decibels,
    "mean_cosine": cosine,
    **dict.fromkeys(("not_finite", "reference_not_finite"), count),
}


def wording(number: str) -> str:
    """A number's name as the page says it."""
    return _WORDS.get(number, number.replace("_", " "))


def form(number: str) -> Shown:
    """How a number's values are written: shares in percent, counts whole, everything else as an error."""
    return _FORMS.get(number, error)


def bound(check: dict[str, Any]) -> str:
    """What a check's number may be: "0.10", or "at least 35.0"; nothing where it has no limit."""
    shown = form(check["number"])
    if check.get("at_least") is not None:
        return f"at least {shown(check['at_least'])}"
    return "" if check["at_most"] is None else shown(check["at_most"])


def capital(text: str) -> str:
    """With a capital first letter; the others as they are."""
    return text[:1].upper() + text[1:]
