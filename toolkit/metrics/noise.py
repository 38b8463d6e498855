"""Noise to signal: the relative error of tensors as one number, comparable between layers of any size and scale."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from backends.tensor import Array

# The largest value: for NaN or infinite values where the reference is finite.
LARGEST = 1e9
# A result of less than this share of its inputs' size is the difference of nearly equal numbers, of which float32 keeps
# three digits. Its error is then divided by this share of the inputs' size.
_CANCELLED = 1e-4
_AT_ONCE = 1 << 16


def rms(values: Array) -> float:
    """Return the root mean square of the finite values of an array of any dtype; 0.0 if there are none."""
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
    """Return the RMS of the error over the RMS of the expected values, in [0, LARGEST]: 0.0 without error.

    It is taken over all arrays of `got` together; each has the shape of its counterpart in `expected`. inputs_rms: the
    largest RMS of the inputs from which `expected` was computed. Where the expected value is not finite, the value is
    left out; a value that is not finite anywhere else makes the result LARGEST.
    """
    error, signal, count = 0.0, 0.0, 0
    for one, other in zip(got, expected, strict=True):
        for ours, theirs in zip(_parts(one), _parts(other), strict=True):
            with np.errstate(invalid="ignore"):  # infinity minus infinity
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
    return float(np.square(values).sum())  # not @: a BLAS would start threads for so few numbers


def _parts(values: Array) -> Iterator[Array]:
    """Yield the values in parts, as float64, so that a large tensor is not held in memory four times."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, _AT_ONCE):
        yield flat[start : start + _AT_ONCE].astype(np.float64)
