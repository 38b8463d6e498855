"""What a number may be at most or at least, and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """The most or the least that a number may be: one of the two. Numbers of outputs hold for every output of floats;
    see Tolerance.

    needs_training: means nothing on random weights; there the number is shown, and not judged.
    """

    number: str
    at_most: float | None
    needs_training: bool
    at_least: float | None = None

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError(f"{self.number}: expected a most or a least, got {self.at_most} and {self.at_least}")

    def allows(self, value: float) -> bool:
        """Whether a value keeps to it; NaN does not."""
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


# What a precision does to numbers, whatever they mean.
FP32 = (
    "Float32 sums in another order: 6e-8 an addition, grown by some tens of layers. 1e-4 is a thousand roundings and "
    "far below what a wrong layout, padding or constant does."
)

FP16 = (
    "Weights rounded to 11 bits, at most 5e-4 of each, at random; products average that out, layers add it up. "
    "1e-2 leaves a factor of twenty, and an overflow or a lost subnormal is over it."
)

INT8_W = (
    "Weights in steps of 1/127 of the largest of their channel, activations as in float32: half of what int8 may do."
)

STATIC = (
    "As int8, with ranges that were chosen beforehand: what lies outside them is cut off, so twice as much is allowed."
)
