"""The judge of masks: which pixels belong to which object or class, compared by intersection over union (IoU)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.tensor import Array, TensorSpec
from toolkit.metrics.labels import NEAR, clear_labels, wrong_output
from toolkit.metrics.samples import Sample

_Masks = npt.NDArray[np.bool_]


class MaskJudge:
    """The judge of one output of masks; empty masks of both sides are left out.

    Scores (N, classes, H, W) or (N, H, W, classes), of several classes, give one mask for each class: the pixels where
    its score is the largest. All other float outputs are masks (..., H, W): pixels above 0.5 if the reference is within
    [0, 1], else above 0. Integers (..., H, W) are the class of each pixel; booleans are masks.
    Numbers: masks_changed, the share of masks with an IoU below `least_iou`; mean_iou, over all masks.
    """

    def __init__(self, spec: TensorSpec, least_iou: float) -> None:
        """Raises InvalidInput for an output of fewer than two axes."""
        if len(spec.shape) < 2:
            raise wrong_output(spec, "masks, (..., H, W), or scores, (N, classes, H, W)")
        self._output, self._least = spec.name, least_iou
        self._kind = np.dtype(spec.dtype).kind
        axis = _axis_of_classes(spec.shape) if len(spec.shape) == 4 else None
        self._classes_at = axis if axis is not None and spec.shape[axis] > 1 else None
        self._sum = 0.0
        self._masks = self._changed = 0

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        for ours, theirs in self._pairs(got[self._output], expected[self._output]):
            either = int((ours | theirs).sum())
            if either:
                iou = int((ours & theirs).sum()) / either
                self._sum += iou
                self._masks += 1
                self._changed += iou < self._least

    def _pairs(self, got: Array, expected: Array) -> Iterator[tuple[_Masks, _Masks]]:
        """Yield each mask of a file with that of the reference."""
        if self._kind == "f" and self._classes_at is not None:
            ours, theirs = (np.moveaxis(side, self._classes_at, -1) for side in (got, expected))
            classes = ours.shape[-1]
            labels = clear_labels(ours.reshape(-1, classes), theirs.reshape(-1, classes))
            yield from _by_class(*(side.reshape(ours.shape[:-1]) for side in labels))
        elif self._kind in "iu":
            yield from _by_class(*(side.reshape(-1, *side.shape[-2:]) for side in (got, expected)))
        else:
            if self._kind == "f":
                got, expected = _binary(got, expected)
            yield from zip(*(side.reshape(-1, *side.shape[-2:]) for side in (got, expected)), strict=True)

    def numbers(self) -> dict[str, float]:
        if not self._masks:
            return {}
        return {"masks_changed": self._changed / self._masks, "mean_iou": self._sum / self._masks}

    def uncounted(self) -> dict[str, str]:
        return {} if self._masks else {"masks_changed": "no masks were found"}

    def details(self) -> dict[str, Any]:
        return {"counted": {"masks changed": [self._changed, self._masks]}}


def _axis_of_classes(shape: tuple[int, ...]) -> int:
    """Return the axis of classes of an output of four axes, 1 or 3: the one that leaves a square of pixels, and if both
    do or none does, the shorter one."""
    squares = shape[2] == shape[3], shape[1] == shape[2]
    if squares[0] != squares[1]:
        return 1 if squares[0] else 3
    return 1 if shape[1] <= shape[3] else 3


def _by_class(ours: Array, theirs: Array) -> Iterator[tuple[_Masks, _Masks]]:
    """Yield the masks of each class in class maps (N, H, W), of both sides."""
    for one, other in zip(ours, theirs, strict=True):
        for label in np.union1d(one, other):
            yield one == label, other == label


def _binary(ours: Array, theirs: Array) -> tuple[_Masks, _Masks]:
    """Return the pixels above the threshold. A pixel of the reference that is as near to it as rounding is equal."""
    threshold = 0.5 if theirs.min() >= 0 and theirs.max() <= 1 else 0.0
    expected = theirs > threshold
    is_near = np.abs(theirs - threshold) <= NEAR * float(np.ptp(theirs))
    return np.where(is_near, expected, ours > threshold), expected
