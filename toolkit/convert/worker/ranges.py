"""Observes the range of a tensor's values over many samples, one sample at a time. Imports only numpy, because both
Python environments use this module."""

import math
from typing import Any

import numpy as np

METHODS = ("min-max", "percentile", "entropy")
# The share of values that a percentile range leaves out on each side.
OUTSIDE = 1e-4
_LOWEST = float(np.finfo(np.float32).min)  # stands for minus infinity
_BINS = 4096
_ENTROPY_STEP = 8  # bins between two candidates


class HistogramObserver:
    """The extremes of one tensor's values, and their histogram over [-limit, limit].

    The limit is a power of two. It doubles when a value is larger: then each pair of bins becomes one bin. So one pass
    over the samples is enough, their order does not matter, and memory does not grow with the number of samples.
    """

    def __init__(self) -> None:
        self.low = np.inf
        self.high = -np.inf
        self._limit = 0.0
        self._counts = np.zeros(_BINS, np.int64)

    def add(self, values: Any) -> None:
        """Count the values of a float32 array of any shape, without those that stand for minus infinity, as the pad of
        a MaxPool does: quantized, they are the smallest value. Raises ValueError if a value is not finite."""
        if float(values.min()) == _LOWEST:
            values = values[values != _LOWEST]
        if not values.size:
            return
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        largest = max(-self.low, self.high)
        if not np.isfinite(largest):
            raise ValueError(f"a tensor has values in [{self.low}, {self.high}], expected finite ones")
        if largest > 0:
            self._widen(math.ldexp(1.0, math.frexp(largest)[1]))  # above `largest`: no value lies on the last edge
        # The width is a power of two, so the division is exact, and a value's bin does not depend on earlier values.
        width = 2 * self._limit / _BINS if self._limit else 1.0  # only zeros so far
        bins = np.floor(values.ravel().astype(np.float64) / width).astype(np.int64) + _BINS // 2
        self._counts += np.bincount(bins, minlength=_BINS)

    def range(self, method: str, levels: int = 256) -> tuple[float, float]:
        """Return (lowest, highest), the range to quantize over. levels: how many values a quantized tensor can take.

        "min-max": the range of all values. "percentile": without one value in 10 000 on each side. "entropy": the range
        symmetric around zero whose quantized histogram has the least Kullback-Leibler divergence, cut to the range of
        all values. With 16 bits every method gives the range of all values: the steps are finer than the histogram's
        bins, and a smaller range gains nothing (measured on pocketseal: by percentile, outputs for noise were off by a
        quarter). Raises ValueError for an unknown method, or if no values were added.
        """
        if not self.low <= self.high:
            raise ValueError("no values were seen")
        if method not in METHODS:
            raise ValueError(f"calibration method: expected one of {', '.join(METHODS)}, got {method!r}")
        if method == "min-max" or self._limit == 0 or levels > _BINS:
            return self.low, self.high
        low, high = self._percentile() if method == "percentile" else self._entropy(levels)
        return max(low, self.low), min(high, self.high)

    def _widen(self, limit: float) -> None:
        if self._limit == 0:
            self._limit = limit
        while self._limit < limit:
            self._counts = np.pad(self._counts.reshape(-1, 2).sum(axis=1), _BINS // 4)
            self._limit *= 2

    def _percentile(self) -> tuple[float, float]:
        edges = np.linspace(-self._limit, self._limit, _BINS + 1)
        below = np.cumsum(self._counts)
        allowed = OUTSIDE * below[-1]
        first = int(np.searchsorted(below, allowed, side="right"))
        last = int(np.searchsorted(below, below[-1] - allowed, side="left"))
        return float(edges[first]), float(edges[last + 1])

    def _entropy(self, levels: int) -> tuple[float, float]:
        half = _BINS // 2
        sizes = self._counts[half:] + self._counts[:half][::-1]  # counts by distance from zero
        used = int(np.flatnonzero(sizes)[-1]) + 1
        groups = levels // 2
        if used <= groups:
            return -self._limit, self._limit  # no more bins than levels: a smaller range gains nothing
        ends = np.arange(used, groups - 1, -_ENTROPY_STEP)  # the widest range first, so that it wins a tie
        best = min(ends, key=lambda end: _divergence(sizes[:used], int(end), groups))
        threshold = float(best) / half * self._limit
        return -threshold, threshold


def _divergence(sizes: Any, end: int, groups: int) -> float:
    """Return the Kullback-Leibler divergence, in nats, of a histogram cut at bin `end` from its quantization to
    `groups` levels.

    As in TensorRT's calibration, the counts that are cut off are added to the last bin of the histogram, but not to the
    last level.
    """
    kept = sizes[:end].astype(np.float64)
    starts = np.arange(groups) * end // groups
    filled = kept > 0
    in_group = np.repeat(np.arange(groups), np.diff(np.append(starts, end)))
    per_bin = np.add.reduceat(kept, starts) / np.maximum(np.add.reduceat(filled.astype(np.float64), starts), 1)
    quantized = np.where(filled, per_bin[in_group], 0.0)
    reference = kept.copy()
    reference[-1] += sizes[end:].sum()
    # A bin that only has counts that were cut off is 0 after quantization: a small count keeps the logarithm finite.
    quantized = np.where((reference > 0) & (quantized == 0), 1e-4, quantized)
    reference /= reference.sum()
    quantized /= quantized.sum()
    there = reference > 0
    return float((reference[there] * np.log(reference[there] / quantized[there])).sum())
