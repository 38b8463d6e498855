"""Judges, which measure a model's answers beside the raw error. Their numbers have names that a Limit refers to."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from backends.errors import InvalidInput
from backends.tensor import Array, TensorSpec
from toolkit.metrics.samples import Sample


class Judge(Protocol):
    """A measure of a file's answers: sees every sample once and keeps only sums."""

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        """Add one sample: the outputs of the file (`got`) and of the reference, by name. All values are finite."""

    def numbers(self) -> dict[str, float]:
        """Return the numbers by name, without those that could not be counted."""

    def uncounted(self) -> dict[str, str]:
        """Return the reason by name for each number that could not be counted. Such numbers are not judged."""

    def details(self) -> dict[str, Any]:
        """Return further facts for a report, as JSON values."""


class NoJudge:
    """The judge of outputs that are judged only by their error: it has no numbers."""

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        return None

    def numbers(self) -> dict[str, float]:
        return {}

    def uncounted(self) -> dict[str, str]:
        return {}

    def details(self) -> dict[str, Any]:
        return {}


NOTHING_REAL = "no sample was a real image"
ADVISORY = "no sample was a real input, and numbers of synthetic ones are advisory; --inputs gives inputs of yours"


class RealFirst:
    """Another judge, which sees real samples alone if there are any, and else the synthetic ones. The numbers of
    synthetic samples are advisory: they are shown and not judged.

    make: called twice; returns a new judge. Such a judge gets each sample as one of family "real".
    """

    def __init__(self, make: Callable[[], Judge]) -> None:
        self._real, self._synthetic = make(), make()
        self._is_real = False

    @property
    def _shown(self) -> Judge:
        return self._real if self._is_real else self._synthetic

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        self._is_real |= sample.family != "synthetic"
        judge = self._real if sample.family != "synthetic" else self._synthetic
        judge.add(replace(sample, family="real"), got, expected)

    def numbers(self) -> dict[str, float]:
        return self._shown.numbers()

    def uncounted(self) -> dict[str, str]:
        uncounted = self._shown.uncounted()
        return uncounted if self._is_real else dict.fromkeys(self.numbers(), ADVISORY) | uncounted

    def details(self) -> dict[str, Any]:
        return self._shown.details() | {"on": "real" if self._is_real else "synthetic"}


# Cosines and images that are kept at most: enough for the 1% quantile, and for the comparison of all pairs.
MOST_COSINES = 1 << 15
MOST_IMAGES = 2048
# Cosines that differ by at most this, which is rounding, count as equal.
_AS_NEAR = 1e-6


class VectorJudge:
    """The judge of one output of shape (..., N, dim): N vectors of one image, or a single vector.

    Numbers, over real images: mean_cosine, the mean cosine of a vector with its reference; lost, the share of vectors
    that are nearer, by cosine, to the reference of another vector of the same image than to their own. A single vector
    of an image is compared with the references of all images, or of MOST_IMAGES images drawn at random.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._sum = 0.0
        self._cosines = Drawn(MOST_COSINES)
        self._lost = self._vectors = 0
        self._single = Drawn(MOST_IMAGES)

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        if sample.family != "real":
            return
        ours, theirs = (_directions(side[self._output]) for side in (got, expected))
        # A reference of zeros has no direction: the vector must be zeros too.
        nothing = ~theirs.any(axis=1)
        cosines = np.where(nothing, ~ours.any(axis=1), (ours * theirs).sum(axis=1))
        self._sum += float(cosines.sum())
        self._cosines.add(cosines[:, None])
        if len(ours) == 1:
            self._single.add(np.stack([ours, theirs], axis=1))
        else:
            self._lost += _lost(ours, theirs)
            self._vectors += len(ours)

    def numbers(self) -> dict[str, float]:
        if not self._cosines.seen:
            return {}
        lost, vectors = self.lost_of()
        return {"mean_cosine": self._sum / self._cosines.seen, "lost": lost / vectors}

    def lost_of(self) -> tuple[int, int]:
        """Return how many vectors are lost, of how many."""
        lost, vectors = self._lost, self._vectors
        if self._single.seen:
            ours, theirs = self._single.rows.transpose(1, 0, 2)
            lost, vectors = lost + _lost(ours, theirs), vectors + len(ours)
        return lost, vectors

    def uncounted(self) -> dict[str, str]:
        return {} if self._cosines.seen else dict.fromkeys(("mean_cosine", "lost"), NOTHING_REAL)

    def details(self) -> dict[str, Any]:
        if not self._cosines.seen:
            return {}
        low = {f"{share:g}": float(np.quantile(self._cosines.rows, share)) for share in (0, 0.01, 0.1, 0.5)}
        return {"vectors": self._cosines.seen, "cosine_quantiles": low}


class EmbeddingJudge(VectorJudge):
    """A VectorJudge of any graph's output, which tells its counts in words as well."""

    def __init__(self, spec: TensorSpec) -> None:
        """spec: float vectors (..., dim). Raises InvalidInput for another dtype, and for vectors of one number."""
        if np.dtype(spec.dtype).kind != "f" or not spec.shape or spec.shape[-1] < 2:
            shown = f"{spec.dtype} {list(spec.shape)}"
            raise InvalidInput(f"output {spec.name!r}: expected float vectors (..., dim), got {shown}")
        super().__init__(spec.name)

    def details(self) -> dict[str, Any]:
        lost, vectors = self.lost_of()
        return super().details() | {"counted": {"vectors lost": [lost, vectors]}}


class Drawn:
    """A seeded random sample of at most `most` of the rows added (reservoir sampling: Vitter, 1985, algorithm R)."""

    def __init__(self, most: int) -> None:
        self.seen = 0
        self._most = most
        self._random = np.random.default_rng(0)
        self._rows: list[Array] = []

    def add(self, rows: Array) -> None:
        """Offer the rows of an array (N, ...) to the sample."""
        for row in rows:
            self.seen += 1
            if len(self._rows) < self._most:
                self._rows.append(row.copy())
            elif (place := int(self._random.integers(self.seen))) < self._most:
                self._rows[place] = row.copy()

    @property
    def rows(self) -> Array:
        """The drawn rows, (at most `most`, ...). Raises ValueError before the first row."""
        return np.stack(self._rows)


def _directions(vectors: Array) -> Array:
    """Return the vectors as (N, dim) float64 of length 1; a vector of zeros stays zeros."""
    rows = vectors.reshape(-1, vectors.shape[-1]).astype(np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30))


def _lost(ours: Array, theirs: Array) -> int:
    cosines = ours @ theirs.T
    return int((cosines.max(axis=1) > np.diagonal(cosines) + _AS_NEAR).sum())


class ChoiceJudge:
    """The judge of one output of shape (..., N, choices).

    Its only number, named `number`, is the share of rows of real images whose largest value has another index than in
    the reference. counted: returns the numpy index of a sample's rows that count, by default all.
    """

    def __init__(self, number: str, output: str, counted: Callable[[Sample], Any] = lambda sample: slice(None)) -> None:
        self._number = number
        self._output = output
        self._counted = counted
        self._rows = self._changed = 0

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        if sample.family != "real":
            return
        sides = (side[self._output] for side in (got, expected))
        ours, theirs = (side.reshape(-1, side.shape[-1])[self._counted(sample)].argmax(axis=1) for side in sides)
        self._rows += len(ours)
        self._changed += int((ours != theirs).sum())

    def numbers(self) -> dict[str, float]:
        return {self._number: self._changed / self._rows} if self._rows else {}

    def uncounted(self) -> dict[str, str]:
        return {} if self._rows else {self._number: NOTHING_REAL}

    def details(self) -> dict[str, Any]:
        return {"choices": self._rows, "changed": self._changed}


class WithRealError:
    """Another judge with one more number, real_error: the largest, over the outputs, of the norm of the difference over
    the norm of the reference, on real images."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._squares: dict[str, list[float]] = {}  # output -> squared norms of difference and reference

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
