"""Noise to signal: the share of error in a tensor, as one number that ranks layers of any size and scale."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from backends.tensor import Array

# What counts as this: values that are NaN or infinite where the reference's are not. No other error is above it.
LARGEST = 1e9

# A result so far below what it was computed from is the rounding of a difference, and has no size of its own: float32
# leaves it three digits. Its error is over this share of the inputs' size then.
_CANCELLED = 1e-4

_AT_ONCE = 1 << 16


def rms(values: Array) -> float:
    """Root of the mean square over the finite values of an array of any dtype; 0.0 of an empty one."""
    total, count = 0.0, 0
    for part in _parts(values):
        square = _squares(part)
        if not math.isfinite(square):
            part = part[np.isfinite(part)]
            square = _squares(part)
        total += square
        count += part.size
    return (total / count) ** 0.5 if count else 0.0


def noise_to_signal(got: Sequence[Array], expected: Sequence[Array], inputs_rms: float) -> float:
    """RMS of the error over the RMS of what is expected: 0.0 for none, 1.0 for nothing left right.

    Over all arrays of `got` together, each of the shape of its like in `expected`. inputs_rms: of the largest of what
    `expected` was computed from. Values that are not finite where they are expected to be make LARGEST; where they are
    not expected to be finite, nothing is said of them.
    """
    error, signal, count = 0.0, 0.0, 0
    for one, other in zip(got, expected, strict=True):
        for ours, theirs in zip(_parts(one), _parts(other), strict=True):
            with np.errstate(invalid="ignore"):  # infinity less infinity
                difference = ours - theirs
            squares = _squares(difference), _squares(theirs)
            if not math.isfinite(sum(squares)):
                known = np.isfinite(theirs)
                if not np.isfinite(ours[known]).all():
                    return LARGEST
                difference, theirs = difference[known], theirs[known]
                squares = _squares(difference), _squares(theirs)
            error += squares[0]
            signal += squares[1]
            count += theirs.size
    if not error:
        return 0.0
    size = max((signal / count) ** 0.5, _CANCELLED * inputs_rms)
    return min(LARGEST, (error / count) ** 0.5 / size) if size else LARGEST


def _squares(values: Array) -> float:
    return float(np.square(values).sum())  # not @: a BLAS would share so few numbers out among threads


def _parts(values: Array) -> Iterator[Array]:
    """Some values at a time, as float64: a large map does not come four times into memory."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, _AT_ONCE):
        yield flat[start : start + _AT_ONCE].astype(np.float64)
