"""Hidden messages as bits, hex, integer or bytes, and the comparison with an expected message."""

import builtins
import math
import secrets
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from backends.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Message:
    """A message. bits[0] is the most significant bit: the first digit of the hex form starts with it.

    If the number of bits is not a multiple of 4 (or 8), hex (or bytes) starts with zero bits that are not part of the
    message. Raises InvalidInput for no bits, and for bits other than 0 and 1.
    """

    # Annotations use `builtins`, because `int` and `bytes` are properties of this class.
    bits: tuple[builtins.int, ...]

    def __post_init__(self) -> None:
        if not self.bits:
            raise InvalidInput("message: expected at least 1 bit")
        if wrong := [bit for bit in self.bits if bit not in (0, 1)]:
            raise InvalidInput(f"message: expected bits of 0 and 1, got {wrong[0]!r}")
        object.__setattr__(self, "bits", tuple(int(bit) for bit in self.bits))

    def __len__(self) -> builtins.int:
        return len(self.bits)

    def __str__(self) -> str:
        return self.hex

    @property
    def hex(self) -> str:
        """The message in lowercase hex: one digit for every 4 bits, rounded up."""
        return f"{self.int:0{_digits(len(self))}x}"

    @property
    def int(self) -> builtins.int:
        """The bits as an unsigned integer."""
        return int("".join(map(str, self.bits)), 2)

    @property
    def bytes(self) -> builtins.bytes:
        """The message as big-endian bytes: one for every 8 bits, rounded up."""
        return self.int.to_bytes(-(-len(self) // 8), "big")

    @classmethod
    def from_hex(cls, text: str, bits: builtins.int) -> "Message":
        """Return the message whose `hex` is `text`, in upper or lower case. Raises InvalidInput for any other text."""
        digits = _digits(bits)
        if len(text) != digits or not set(text.lower()) <= set("0123456789abcdef"):
            raise InvalidInput(f"message: expected {digits} hex digits for {bits} bits, got {text!r}")
        return cls.from_int(int(text, 16), bits)

    @classmethod
    def from_int(cls, value: builtins.int, bits: builtins.int) -> "Message":
        """Return the message whose `int` is `value`. Raises InvalidInput if `value` does not fit into `bits` bits."""
        if bits < 1 or not 0 <= value < 1 << bits:
            raise InvalidInput(f"message: expected a value from 0 to 2^{bits} - 1, got {value}")
        return cls(tuple(int(digit) for digit in f"{value:0{bits}b}"))

    @classmethod
    def from_bytes(cls, data: builtins.bytes, bits: builtins.int) -> "Message":
        """Return the message whose `bytes` are `data`. Raises InvalidInput for too many or too few bytes."""
        expected = -(-bits // 8)
        if len(data) != expected:
            raise InvalidInput(f"message: expected {expected} bytes for {bits} bits, got {len(data)}")
        return cls.from_int(int.from_bytes(data, "big"), bits)

    @classmethod
    def random(cls, bits: builtins.int) -> "Message":
        """Return a random message from a cryptographically secure generator."""
        return cls.from_int(secrets.randbits(bits), bits)

    @classmethod
    def drawn(cls, bits: builtins.int, rng: "np.random.Generator") -> "Message":
        """Return a random message drawn from `rng`."""
        return cls(tuple(rng.integers(0, 2, bits).tolist()))


def _digits(bits: int) -> int:
    return -(-bits // 4)


DEFAULT_FPR = 1e-6


@dataclass(frozen=True)
class Match:
    """The result of comparing a message with the expected one.

    p_value: the probability that random bits match as well or better. fpr: the accepted false positive rate; `detected`
    means p_value <= fpr.
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
    """Compare a message with the expected one. Raises InvalidInput for other lengths or an fpr outside (0, 1)."""
    if len(message) != len(expected):
        raise InvalidInput(f"expected message: this model has {len(message)} bits, got {len(expected)}")
    _check_fpr(fpr)
    matching = sum(a == b for a, b in zip(message.bits, expected.bits, strict=True))
    return Match(expected, len(message), matching, p_value(len(message), matching), fpr)


def p_value(bits: int, matching: int) -> float:
    """Return P[Binomial(bits, 1/2) >= matching], exact up to the rounding to a float.

    Raises InvalidInput for no bits, and for a number of matching bits outside [0, bits].
    """
    if bits < 1 or not 0 <= matching <= bits:
        raise InvalidInput(f"matching bits: expected 0 to {bits}, got {matching}")
    return sum(math.comb(bits, k) for k in range(matching, bits + 1)) / (1 << bits)


@lru_cache
def matching_bits_needed(bits: int, fpr: float = DEFAULT_FPR) -> int | None:
    """Return the smallest number of matching bits whose p-value is at most fpr; None if all bits are not enough.

    Raises InvalidInput for an fpr outside (0, 1).
    """
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
