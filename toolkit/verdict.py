"""Whether a message is the expected one, or only looks like it by chance."""

import math
from dataclasses import dataclass
from functools import lru_cache

from backends.errors import InvalidInput
from toolkit.message import Message

DEFAULT_FPR = 1e-6


@dataclass(frozen=True)
class Match:
    """How a message compares with the expected one.

    p_value is the chance that random bits match as well or better; detected means p_value <= fpr.
    """

    expected: Message
    bits: int
    matching_bits: int
    p_value: float
    fpr: float

    @property
    def detected(self) -> bool:
        return self.p_value <= self.fpr


def compare(message: Message, expected: Message, fpr: float = DEFAULT_FPR) -> Match:
    """Count matching bits and judge them. Raises InvalidInput for another length or an fpr outside (0, 1)."""
    if len(message) != len(expected):
        raise InvalidInput(f"expected message: this model has {len(message)} bits, got {len(expected)}")
    _check_fpr(fpr)
    matching = sum(a == b for a, b in zip(message.bits, expected.bits, strict=True))
    return Match(expected, len(message), matching, p_value(len(message), matching), fpr)


def p_value(bits: int, matching: int) -> float:
    """P[Binomial(bits, 1/2) >= matching], exact before its rounding to a float."""
    if bits < 1 or not 0 <= matching <= bits:
        raise InvalidInput(f"matching bits: expected 0 to {bits}, got {matching}")
    return sum(math.comb(bits, k) for k in range(matching, bits + 1)) / (1 << bits)


@lru_cache
def matching_bits_needed(bits: int, fpr: float = DEFAULT_FPR) -> int | None:
    """The fewest matching bits whose p-value is at most fpr; None where not even all of them are enough."""
    _check_fpr(fpr)
    tail = 0
    needed = None
    for matching in range(bits, -1, -1):
        tail += math.comb(bits, matching)
        if tail / (1 << bits) > fpr:
            break
        needed = matching
    return needed


def _check_fpr(fpr: float) -> None:
    if not 0 < fpr < 1:
        raise InvalidInput(f"false positive rate: expected a number between 0 and 1, got {fpr}")
