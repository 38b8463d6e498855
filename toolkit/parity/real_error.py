"""The error on real images alone, for files whose ranges were fixed on such: what lies outside is cut off."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from backends.tensor import Array
from toolkit.parity.judging import Judge
from toolkit.parity.sample import Sample
from toolkit.parity.vectors import NOTHING_REAL


class WithRealError:
    """Another judge, and one more number: real_error, the norm of the difference over that of the reference, on real
    images, of the output where that is largest."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._squares: dict[str, list[float]] = {}  # output -> of the difference, of the reference

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        self._judge.add(sample, got, expected)
        if sample.family != "real":
            return
        for name, theirs in expected.items():
            sums = self._squares.setdefault(name, [0.0, 0.0])
            sums[0] += float(np.square(got[name].astype(np.float64) - theirs).sum())
            sums[1] += float(np.square(theirs, dtype=np.float64).sum())

    def numbers(self) -> dict[str, float]:
        errors = [(error / max(size, 1e-30)) ** 0.5 for error, size in self._squares.values()]
        return self._judge.numbers() | ({"real_error": max(errors)} if errors else {})

    def uncounted(self) -> dict[str, str]:
        return self._judge.uncounted() | ({} if self._squares else {"real_error": NOTHING_REAL})

    def details(self) -> dict[str, Any]:
        return self._judge.details()
