"""Error measures: of one output against another over a stream of samples, in constant memory, and of a layer as noise
over signal, one number that is comparable between tensors of any size and scale."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.tensor import Array

Doubles = npt.NDArray[np.float64]

# Upper edges of the histogram's bins of the absolute error, half a decade each. Exact zeros, and errors above the last
# edge, are counted apart.
_EDGES = np.array([float(f"1e{i}") * step for i in range(-9, 6) for step in (1.0, 10**0.5)])

# A difference up to here is rounding, however small the output's range: layers before it computed with values near 1.
FLOOR = 1e-6

# The largest value: for NaN or infinite values where the reference is finite.
LARGEST = 1e9
# A result of less than this share of its inputs' size is the difference of nearly equal numbers, of which float32 keeps
# three digits. Its error is then divided by this share of the inputs' size.
_CANCELLED = 1e-4
_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Histogram:
    """Counts of absolute errors. exact: errors of 0. counts: errors up to each of `edges` and above the edge before.

    above: errors above the last edge.
    """

    edges: tuple[float, ...]
    exact: int
    counts: tuple[int, ...]
    above: int


@dataclass(frozen=True)
class OutputMetrics:
    """The difference of one output from its reference, over all samples.

    relative_l2: norm of the difference over the norm of the reference; None if only the reference's norm is 0.
    of_variation: norm of the difference over the norm of the reference's deviation from its mean over the samples; None
    if the reference does not vary, or varies in shape. An output that ignores its input has at least 1 here, however
    small its relative_l2.
    of_range: max_abs over the reference's range, or over its largest absolute value if all values are equal; None if
    only that is 0.
    signal_to_noise_db: None if the signal or the noise is 0. changed: share in [0, 1] of values that are not equal.
    not_finite, reference_not_finite: numbers of NaN and infinite values. Where either side is not finite, both sides
    count as 0 in all other numbers except `changed`.
    worst_sample: the sample with max_abs.
    """

    dtype: str
    samples: int
    values: int
    not_finite: int
    reference_not_finite: int
    max_abs: float
    worst_sample: str
    of_range: float | None
    mean_abs: float
    relative_l2: float | None
    of_variation: float | None
    cosine: float
    signal_to_noise_db: float | None
    changed: float
    reference_low: float
    reference_high: float
    histogram: Histogram

    @property
    def is_exact(self) -> bool:
        """Whether the output is of integers or booleans, which must be equal: a near value is another answer."""
        return np.dtype(self.dtype).kind != "f"

    @property
    def is_rounding(self) -> bool:
        """Whether no value differs by more than FLOOR, so that an error relative to the output's size says nothing."""
        return self.max_abs <= FLOOR

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON values, one key for each field."""
        return asdict(self)


class RunningMetrics:
    """The sums for an OutputMetrics: call `add` for each sample, then `result`."""

    def __init__(self) -> None:
        self._dtype = ""
        self._samples = self._values = self._changed = self._not_finite = self._reference_not_finite = 0
        self._max_abs, self._worst = 0.0, ""
        self._abs = self._error = self._signal = self._got = self._product = 0.0
        self._low, self._high = np.inf, -np.inf
        self._exact, self._counts = 0, np.zeros(len(_EDGES) + 1, np.int64)
        self._sum: Doubles | None = None
        self._squares: Doubles | None = None
        self._has_one_shape = True

    def add(self, sample: str, got: Array, expected: Array) -> None:
        """Add one sample's output and its reference, of the same shape and dtype. If samples have several shapes, there
        is no of_variation.

        Raises ValueError for two shapes or dtypes.
        """
        if (got.shape, got.dtype) != (expected.shape, expected.dtype):
            raise ValueError(f"expected {expected.dtype} {expected.shape}, got {got.dtype} {got.shape}")
        self._dtype = got.dtype.name
        self._samples += 1
        self._values += got.size
        ours, theirs = got.astype(np.float64), expected.astype(np.float64)
        finite, reference_finite = np.isfinite(ours), np.isfinite(theirs)
        self._not_finite += got.size - int(np.count_nonzero(finite))
        self._reference_not_finite += got.size - int(np.count_nonzero(reference_finite))
        self._changed += int(np.count_nonzero(got != expected))
        both = finite & reference_finite
        if not both.all():
            ours, theirs = np.where(both, ours, 0), np.where(both, theirs, 0)
        self._add_finite(sample, ours, theirs)

    def _add_finite(self, sample: str, ours: Doubles, theirs: Doubles) -> None:
        error = np.abs(ours - theirs)
        if not error.size:
            return
        if (largest := float(error.max())) > self._max_abs or not self._worst:
            self._max_abs, self._worst = largest, sample
        self._abs += float(error.sum())
        self._error += float(np.square(error).sum())
        self._signal += float(np.square(theirs).sum())
        self._got += float(np.square(ours).sum())
        self._product += float((ours * theirs).sum())
        self._low, self._high = min(self._low, float(theirs.min())), max(self._high, float(theirs.max()))
        moved = error[error > 0]
        self._exact += error.size - moved.size
        self._counts += np.bincount(np.searchsorted(_EDGES, moved), minlength=len(self._counts))
        # Relative to the first sample: sums of squares of small differences lose no digits to a large mean.
        if self._sum is None or self._squares is None:
            self._first = theirs.copy()
            self._sum, self._squares = np.zeros_like(theirs), np.zeros_like(theirs)
        if theirs.shape != self._first.shape:
            self._has_one_shape = False
            return
        shifted = theirs - self._first
        self._sum += shifted
        self._squares += np.square(shifted)

    @property
    def is_empty(self) -> bool:
        """Whether no value was added, as where a graph found nothing in any sample."""
        return not self._values

    def result(self) -> OutputMetrics:
        """Return the numbers over all samples. Raises ValueError if nothing was added."""
        if not self._samples or not self._values:
            raise ValueError("nothing was compared")
        scale = self._high - self._low or max(abs(self._high), abs(self._low))
        return OutputMetrics(
            dtype=self._dtype,
            samples=self._samples,
            values=self._values,
            not_finite=self._not_finite,
            reference_not_finite=self._reference_not_finite,
            max_abs=self._max_abs,
            worst_sample=self._worst,
            of_range=_ratio(self._max_abs, scale),
            mean_abs=self._abs / self._values,
            relative_l2=_ratio(self._error**0.5, self._signal**0.5),
            of_variation=self._of_variation(),
            cosine=self._cosine(),
            signal_to_noise_db=self._decibels(),
            changed=self._changed / self._values,
            reference_low=self._low,
            reference_high=self._high,
            histogram=Histogram(
                tuple(_EDGES.tolist()), self._exact, tuple(self._counts[:-1].tolist()), int(self._counts[-1])
            ),
        )

    def _of_variation(self) -> float | None:
        if self._sum is None or self._squares is None or self._samples < 2 or not self._has_one_shape:
            return None
        variation = float((self._squares - np.square(self._sum) / self._samples).sum())
        return (self._error / variation) ** 0.5 if variation > 0 else None

    def _cosine(self) -> float:
        norms = (self._signal * self._got) ** 0.5
        if norms:
            return float(self._product / norms)
        return 1.0 if self._signal == self._got else 0.0  # all values are zero: of both, or of one

    def _decibels(self) -> float | None:
        return 10 * float(np.log10(self._signal / self._error)) if self._signal and self._error else None


def _ratio(part: float, whole: float) -> float | None:
    """Return part / whole; 0.0 if `part` is 0, None if only `whole` is 0."""
    if not part:
        return 0.0
    return part / whole if whole else None


def all_finite(outputs: Mapping[str, Array]) -> bool:
    """Return whether all float outputs are free of NaN and infinity."""
    return all(np.isfinite(value).all() for value in outputs.values() if value.dtype.kind == "f")


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
