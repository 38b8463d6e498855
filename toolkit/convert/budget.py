"""What a mixed-precision file may cost, as it is written on the command line."""

import re
from dataclasses import dataclass

from backends.errors import InvalidInput

_FORM = re.compile(r"\s*(flips|size|latency)\s*<=\s*([0-9]+(?:\.[0-9]+)?)\s*(%|MB|ms)\s*")
_UNITS = {"flips": ("%", 0.01), "size": ("MB", 1e6), "latency": ("ms", 1.0)}
_EXAMPLES = '"flips<=0.2%", "size<=12MB" or "latency<=20ms"'


@dataclass(frozen=True)
class Budget:
    """kind and limit: flips, a share of the bits, with no verdict changed; size, in bytes; latency, in ms."""

    text: str
    kind: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read "flips<=0.2%", "size<=12MB" (decimal) or "latency<=20ms". Raises InvalidInput."""
        match = _FORM.fullmatch(text)
        if match is None or match[3] != _UNITS[match[1]][0]:
            raise InvalidInput(f"budget: expected {_EXAMPLES}, got {text!r}")
        return cls(f"{match[1]}<={match[2]}{match[3]}", match[1], float(match[2]) * _UNITS[match[1]][1])


@dataclass(frozen=True)
class Measured:
    """A file on a folder of images, beside the float32 graph.

    flips: share of the message's bits. verdicts_changed: images whose detection channel says otherwise, or whose
    message would not be found any more. error: root mean square of the difference over that of float32's logits.
    """

    flips: float
    verdicts_changed: int
    error: float
    bytes: int
    latency_ms: float | None  # only where a latency is asked for: it takes runs of its own

    def within(self, budget: Budget) -> bool:
        if budget.kind == "flips":
            return self.verdicts_changed == 0 and self.flips <= budget.limit
        if budget.kind == "size":
            return self.bytes <= budget.limit
        return self.latency_ms is not None and self.latency_ms <= budget.limit

    def __str__(self) -> str:
        latency = "" if self.latency_ms is None else f", {self.latency_ms:.1f} ms"
        changed = f"{self.verdicts_changed} verdicts changed"
        return f"{self.flips:.3%} of bits flipped, {changed}, {self.bytes / 1e6:.2f} MB{latency}"
