"""How much of a tensor is error, as one number that ranks layers of any size and scale."""

from collections.abc import Iterator, Sequence

import numpy as np

from backends.tensor import Array

# What counts as this: values that are NaN or infinite where the reference's are not. No other error is above it.
LARGEST = 1e9

# A result so far below what it was computed from is the rounding of a difference, and has no size of its own: float32
# leaves it three digits. Its error is over this share of the inputs' size then.
_CANCELLED = 1e-4

_AT_ONCE = 1 << 20


def rms(values: Array) -> float:
    """Root of the mean square over the finite values of an array of any dtype; 0.0 of an empty one."""
    total, count = 0.0, 0
    for part in _parts(values):
        finite = part[np.isfinite(part)]
        total += float(np.square(finite).sum())
        count += finite.size
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
            known = np.isfinite(theirs)
            ours, theirs = ours[known], theirs[known]
            if not np.isfinite(ours).all():
                return LARGEST
            error += float(np.square(ours - theirs).sum())
            signal += float(np.square(theirs).sum())
            count += ours.size
    if not error:
        return 0.0
    size = max((signal / count) ** 0.5, _CANCELLED * inputs_rms)
    return min(LARGEST, (error / count) ** 0.5 / size) if size else LARGEST


def _parts(values: Array) -> Iterator[Array]:
    """Some values at a time, as float64: a large map does not come four times into memory."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, _AT_ONCE):
        yield flat[start : start + _AT_ONCE].astype(np.float64)
