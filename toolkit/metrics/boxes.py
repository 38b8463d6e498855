"""The judge of boxes: detections of a file and of the reference, matched by class and intersection over union (IoU)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.tensor import Array, TensorSpec
from toolkit.metrics.labels import wrong_output
from toolkit.metrics.samples import Sample

# The lowest score of a box that counts, as in the examples of most detectors.
LEAST_SCORE = 0.25
# A box whose score is this near below LEAST_SCORE is no lost box: rounding moved it across.
SCORE_MARGIN = 1e-4
# Boxes of one class that overlap by more than this, beside a higher score, are the same object.
NMS_IOU = 0.7
# Of more candidates in an image, those with the highest scores count: a detector of random weights finds thousands.
MOST_CANDIDATES = 1000
# Graphs with their own NonMaxSuppression give at most so many rows; graphs without it give thousands.
_MOST_ROWS = 1000

_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Boxes:
    """Detections of one image, the highest score first.

    corners: (N, 4) float64, two opposite corners x1, y1, x2, y2. scores: (N,) float64. classes: (N,) int64.
    """

    corners: _Doubles
    scores: _Doubles
    classes: npt.NDArray[np.int64]

    def above(self, score: float) -> "Boxes":
        """Return the boxes of at least this score."""
        return self.at(self.scores >= score)

    def at(self, index: Any) -> "Boxes":
        """Return the boxes at a numpy index."""
        return Boxes(self.corners[index], self.scores[index], self.classes[index])


@dataclass(frozen=True)
class _Candidates:
    """All rows of one image: boxes (A, 4), scores (A, classes), or (A,) with classes (A,).

    is_centred: whether boxes are centre and size, not corners; None where the reference's values must say it.
    """

    rows: _Doubles
    scores: _Doubles
    classes: _Doubles | None
    is_centred: bool | None

    def detections(self, is_logits: bool, is_centred: bool, least: float) -> Boxes:
        """Return the boxes with a score of at least `least`."""
        scores = 1 / (1 + np.exp(-np.clip(self.scores, -60, 60))) if is_logits else self.scores
        classes = scores.argmax(axis=-1) if self.classes is None else self.classes
        if self.classes is None:
            scores = scores.max(axis=-1)
        chosen = np.flatnonzero(scores >= least)
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
        corners = self.rows[chosen]
        if is_centred:
            centre, half = corners[:, :2], corners[:, 2:] / 2
            corners = np.concatenate([centre - half, centre + half], axis=1)
        return Boxes(corners, scores[chosen], np.rint(classes[chosen]).astype(np.int64))


# Called with the outputs by name; returns the candidates of each image.
_Read = Callable[[Mapping[str, Array]], list[_Candidates]]


class BoxJudge:
    """The judge of detections. Boxes of a score below LEAST_SCORE, and all but the best of boxes of one class that
    overlap by more than NMS_IOU, are left out, and all but MOST_CANDIDATES of an image. A box matches one of the other
    side with the same class and an IoU of at least `least_iou`; each box matches once.

    Number: boxes_changed, the share of the boxes of both sides that match none: boxes lost, and boxes that are new.
    Outputs may be one of
    - (N, 4 + classes, A): centre, size, scores of classes, as YOLOv8 and later have it; with a second output of
      prototypes (N, M, H, W), the last M of the channels are coefficients of masks and are left out;
    - (N, A, 5 + classes): centre, size, score of an object, scores of classes, as YOLOv5 has it;
    - (N, A, 6) of at most 1000 rows: corners, score, class;
    - boxes (N, A, 4) and scores (N, A, classes) or (N, A);
    - boxes (N, A, 4), scores (N, A) and classes (N, A).
    N may be missing. Boxes of a separate output are corners if all of the reference's are in order, else centre and
    size. Scores outside [0, 1] in the reference are logits.
    """

    def __init__(self, specs: Sequence[TensorSpec], least_iou: float) -> None:
        """Raises InvalidInput for outputs of other shapes."""
        self._read = _reader(specs)
        self._least = least_iou
        self._lost = self._expected = self._new = self._got = 0

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        for one, other in zip(self._read(got), self._read(expected), strict=True):
            is_logits = bool(other.scores.size and (other.scores.min() < 0 or other.scores.max() > 1))
            is_centred = not _in_order(other.rows) if other.is_centred is None else other.is_centred
            theirs = other.detections(is_logits, is_centred, LEAST_SCORE - SCORE_MARGIN)
            least = LEAST_SCORE
            if len(theirs.scores) > MOST_CANDIDATES:
                least = float(theirs.scores[MOST_CANDIDATES - 1])
                theirs = theirs.above(least - SCORE_MARGIN)
            ours = suppress(one.detections(is_logits, is_centred, least - SCORE_MARGIN))
            theirs = suppress(theirs)
            lost, wanted = self._unmatched(theirs.above(least), ours)
            new, found = self._unmatched(ours.above(least), theirs)
            self._lost, self._expected = self._lost + lost, self._expected + wanted
            self._new, self._got = self._new + new, self._got + found

    def _unmatched(self, sought: Boxes, among: Boxes) -> tuple[int, int]:
        """Return how many of the boxes `sought` match none of `among`, and how many boxes there are. `among` also has
        the boxes that are just below the lowest score."""
        free = np.ones(len(among.scores), bool)
        unmatched = 0
        for corners, label in zip(sought.corners, sought.classes, strict=True):
            overlap = np.where(free & (among.classes == label), iou(corners, among.corners), -1.0)
            best = int(overlap.argmax()) if overlap.size else -1
            if best >= 0 and overlap[best] >= self._least:
                free[best] = False
            else:
                unmatched += 1
        return unmatched, len(sought.scores)

    def numbers(self) -> dict[str, float]:
        boxes = self._expected + self._got
        return {"boxes_changed": (self._lost + self._new) / boxes} if boxes else {}

    def uncounted(self) -> dict[str, str]:
        return {} if self._expected + self._got else {"boxes_changed": f"no box has a score of {LEAST_SCORE:g}"}

    def details(self) -> dict[str, Any]:
        return {"counted": {"boxes lost": [self._lost, self._expected], "boxes new": [self._new, self._got]}}


def iou(one: _Doubles, others: _Doubles) -> _Doubles:
    """Return the intersection over union of a box (4,) with each of `others` (N, 4): (N,) in [0, 1]. Boxes are corners;
    an empty box has 0."""
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:], others[:, 2:])
    both = np.clip(high - low, 0, None).prod(axis=1)
    areas = np.clip(others[:, 2:] - others[:, :2], 0, None).prod(axis=1) + np.clip(one[2:] - one[:2], 0, None).prod()
    return np.asarray(both / np.maximum(areas - both, 1e-30))


def suppress(boxes: Boxes) -> Boxes:
    """Return the boxes without those that overlap a box of the same class and a higher score by more than NMS_IOU."""
    left = np.ones(len(boxes.scores), bool)
    kept = []
    for index in range(len(left)):
        if left[index]:
            kept.append(index)
            overlaps = iou(boxes.corners[index], boxes.corners) > NMS_IOU
            left &= ~(overlaps & (boxes.classes == boxes.classes[index]))
    return boxes.at(kept)


def _in_order(rows: _Doubles) -> bool:
    return bool((rows[:, 2:] >= rows[:, :2]).all())


def _reader(specs: Sequence[TensorSpec]) -> _Read:
    """Return the function that reads such outputs. Raises InvalidInput for outputs that no detector of BoxJudge has."""
    first, *others = specs
    coefficients = others[0].shape[1] if len(others) == 1 and len(others[0].shape) == 4 else 0
    if not others or coefficients:
        return _combined(first, coefficients)
    shape = first.shape
    if len(shape) not in (2, 3) or shape[-1] != 4:
        raise wrong_output(first, "boxes (N, A, 4)")
    scores, *labels = others
    if scores.shape[: len(shape) - 1] != shape[:-1] or len(scores.shape) - len(shape) not in (-1, 0):
        raise wrong_output(scores, f"scores {list(shape[:-1])}, or of several classes {[*shape[:-1], 'classes']}")
    if labels and (scores.shape, labels[0].shape) != (shape[:-1], shape[:-1]):
        wrong = scores if scores.shape != shape[:-1] else labels[0]
        raise wrong_output(wrong, f"one value for each box, {list(shape[:-1])}")

    classes = scores.shape[-1] if len(scores.shape) == len(shape) else 1

    def read(outputs: Mapping[str, Array]) -> list[_Candidates]:
        rows = _in_batch(outputs[first.name], 3)
        found = _in_batch(outputs[scores.name], len(scores.shape) - len(shape) + 3).reshape(*rows.shape[:2], classes)
        if not labels:
            return [_Candidates(*pair, None, None) for pair in zip(rows, found, strict=True)]
        of_rows = _in_batch(outputs[labels[0].name], 2)
        return [_Candidates(*one, None) for one in zip(rows, found[:, :, 0], of_rows, strict=True)]

    return read


def _in_batch(values: Array, rank: int) -> _Doubles:
    """Return an output with `rank` axes, the first of which counts images; that of one image may come without it."""
    return values.astype(np.float64)[(None,) * (rank - values.ndim)]


def _combined(spec: TensorSpec, coefficients: int) -> _Read:
    """Return the function that reads one output of boxes and scores, see BoxJudge. coefficients: of masks, the last."""
    wrong = wrong_output(spec, "boxes and scores (N, 4 + classes, A), (N, A, 5 + classes) or (N, A, 6)")
    if len(spec.shape) not in (2, 3):
        raise wrong
    sizes = spec.shape[-2:]
    is_final = sizes[-1] == 6 and sizes[0] <= _MOST_ROWS and not coefficients
    is_first = not is_final and sizes[0] <= sizes[1]
    fewest = 6 if is_final or not is_first else 5
    if (sizes[0] if is_first else sizes[1]) - coefficients < fewest:
        raise wrong

    def read(outputs: Mapping[str, Array]) -> list[_Candidates]:
        values = _in_batch(outputs[spec.name], 3)
        if is_first:
            values = values.swapaxes(1, 2)
        values = values[:, :, : values.shape[2] - coefficients]
        if is_final:
            return [_Candidates(one[:, :4], one[:, 4], one[:, 5], False) for one in values]
        if is_first:
            return [_Candidates(one[:, :4], one[:, 4:], None, True) for one in values]
        return [_Candidates(one[:, :4], one[:, 4:5] * one[:, 5:], None, True) for one in values]

    return read
