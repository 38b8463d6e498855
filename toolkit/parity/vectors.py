"""Judges vectors, those of tokens, features, states or whole images, by their direction and by their neighbours."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from backends.tensor import Array
from toolkit.parity.sample import Sample

NOTHING_REAL = "no sample was a real image"
# Two neighbours that are the same but for rounding are as near as each other.
_AS_NEAR = 1e-6


class VectorJudge:
    """Reads one output, (..., N, dim): N vectors of one image, or a single one.

    Numbers, of real images: mean_cosine, the mean over all vectors of that with their reference; lost, the share of
    vectors to which another one of the same image is nearer, by cosine, than their own reference. Where an image is a
    single vector, the others are those of all images.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._cosines: list[Array] = []
        self._lost = self._vectors = 0
        self._single: list[tuple[Array, Array]] = []

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        if sample.family != "real":
            return
        ours, theirs = (_directions(side[self._output]) for side in (got, expected))
        # Where the reference is nothing at all, so must the vector be.
        nothing = ~theirs.any(axis=1)
        self._cosines.append(np.where(nothing, ~ours.any(axis=1), (ours * theirs).sum(axis=1)))
        if len(ours) == 1:
            self._single.append((ours, theirs))
        else:
            self._count(ours, theirs)

    def numbers(self) -> dict[str, float]:
        if not self._cosines:
            return {}
        lost, vectors = self._lost, self._vectors
        if self._single:
            ours, theirs = (np.concatenate(side) for side in zip(*self._single, strict=True))
            lost, vectors = lost + _lost(ours, theirs), vectors + len(ours)
        return {"mean_cosine": float(np.concatenate(self._cosines).mean()), "lost": lost / vectors}

    def uncounted(self) -> dict[str, str]:
        return {} if self._cosines else dict.fromkeys(("mean_cosine", "lost"), NOTHING_REAL)

    def details(self) -> dict[str, Any]:
        if not self._cosines:
            return {}
        cosines = np.concatenate(self._cosines)
        low = {f"{share:g}": float(np.quantile(cosines, share)) for share in (0, 0.01, 0.1, 0.5)}
        return {"vectors": len(cosines), "cosine_quantiles": low}

    def _count(self, ours: Array, theirs: Array) -> None:
        self._lost += _lost(ours, theirs)
        self._vectors += len(ours)


def _directions(vectors: Array) -> Array:
    """(N, dim) float64 of length 1; a vector of zeros stays one."""
    rows = vectors.reshape(-1, vectors.shape[-1]).astype(np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30))


def _lost(ours: Array, theirs: Array) -> int:
    cosines = ours @ theirs.T
    return int((cosines.max(axis=1) > np.diagonal(cosines) + _AS_NEAR).sum())
