"""Limits: the most or the least that a number may be, and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """The most or the least that a number may be: one of the two. Numbers of outputs hold for every output of floats;
    see Tolerance.

    needs_training: the number means nothing on random weights; there it is shown, and not judged.
    """

    number: str
    at_most: float | None
    needs_training: bool
    at_least: float | None = None

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError(f"{self.number}: expected a most or a least, got {self.at_most} and {self.at_least}")

    def allows(self, value: float) -> bool:
        """Whether a value keeps to the limit; NaN does not."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most


@dataclass(frozen=True)
class Tolerance:
    """Every limit of one kind, role and precision, with the reason for them.

    outputs limit numbers of toolkit.metrics.error.OutputMetrics, task those that the kind's own judge gives. Outputs of
    integers and booleans count or name something: their share of changed values may be at most `changed`.
    """

    outputs: tuple[Limit, ...]
    changed: float
    task: tuple[Limit, ...]
    reason: str
