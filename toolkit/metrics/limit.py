"""Limits of measured numbers, and tolerances: all limits for a file, with their reason."""

from dataclasses import dataclass

# The numbers of judges that are shares, 0 to 1: tables show them in percent.
SHARES = (
    "bits_flipped",
    "accuracy_loss",
    "verdicts_changed",
    "channel_changed",
    "changed",
    "lost",
    "tokens_changed",
    "captions_changed",
    "attention_changed",
    "labels_changed",
    "strings_changed",
    "characters_changed",
    "boxes_changed",
    "masks_changed",
)


@dataclass(frozen=True)
class Limit:
    """The highest (`at_most`) or the lowest (`at_least`) allowed value of a number; exactly one of the two is given.

    needs_training: with random weights the number means nothing, and is shown without being judged. Raises ValueError
    for both limits or none.
    """

    number: str
    at_most: float | None
    needs_training: bool
    at_least: float | None = None

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError(f"{self.number}: expected a most or a least, got {self.at_most} and {self.at_least}")

    def allows(self, value: float) -> bool:
        """Return whether a value is within the limit; NaN never is."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most


@dataclass(frozen=True)
class Tolerance:
    """All limits of one kind, role and precision, with the reason for them.

    outputs: limits of numbers of toolkit.metrics.error.OutputMetrics, for every float output. changed: the highest
    allowed share of changed values, for every output of integers or booleans. task: limits of the judge's numbers.
    rounded: names of outputs of integers that are rounded floats, such as pictures: values next to the reference's are
    right, and the limits of float outputs hold for others. decided: names of outputs whose error is not judged where
    the judge counted enough real answers (see toolkit.metrics.task).
    """

    outputs: tuple[Limit, ...]
    changed: float
    task: tuple[Limit, ...]
    reason: str
    rounded: frozenset[str] = frozenset()
    decided: frozenset[str] = frozenset()
