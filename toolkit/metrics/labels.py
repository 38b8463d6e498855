"""Judges of class scores: labels, which are the largest scores, and the strings that greedy CTC decoding reads."""

from collections.abc import Mapping
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from backends.errors import InvalidInput
from backends.tensor import Array, TensorSpec
from toolkit.metrics.samples import Sample

Labels = npt.NDArray[np.intp]

# Scores of the reference that differ by at most this share of their range are equal: float32 files differ by as much.
NEAR = 1e-4


def near(scores: Array) -> Array:
    """Return the difference, (..., 1) float64, up to which scores (..., classes) of one row are equal."""
    return np.asarray(NEAR * np.ptp(scores.astype(np.float64), axis=-1, keepdims=True))


def clear_labels(ours: Array, theirs: Array) -> tuple[Labels, Labels]:
    """Return the index of the largest score of each row of a file and of the reference, both (N,).

    ours, theirs: scores, (N, classes). Where the reference's score of our label is as near to its largest one as
    rounding (see NEAR), the reference's label is ours too: the order of such scores is not clear.
    """
    labels, expected = ours.argmax(axis=-1), theirs.argmax(axis=-1)
    least = theirs.max(axis=-1, keepdims=True) - near(theirs)
    is_near = np.take_along_axis(theirs, labels[:, None], axis=-1) >= least
    return np.where(is_near[:, 0], expected, labels), expected


class LabelJudge:
    """The judge of one output of class scores: the labels of a row are its k largest scores, in any order.

    Number: labels_changed, the share of labels that are not among the k largest scores of the reference. Where samples
    have labels of their own (Sample.truth; below 0 for none), the details count how many of these are among the k
    largest scores of the file, and of the reference.
    """

    def __init__(self, spec: TensorSpec, k: int) -> None:
        """spec: float scores of shape (classes,), (N, classes) or (N, T, classes); axes of size 1 may follow.

        Raises InvalidInput for another dtype or shape, and for fewer than k + 1 classes.
        """
        shape = list(spec.shape)
        while len(shape) > 2 and shape[-1] == 1:
            shape.pop()
        if np.dtype(spec.dtype).kind != "f" or not 1 <= len(shape) <= 3 or shape[-1] <= k:
            raise wrong_output(spec, f"float scores of more than {k} classes, (N, classes) or (N, T, classes)")
        self._output, self._classes, self._k = spec.name, shape[-1], k
        self._labels = self._changed = self._given = 0
        self._right = [0, 0]

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        ours, theirs = (side[self._output].reshape(-1, self._classes) for side in (got, expected))
        chosen = self._chosen(ours)
        if sample.truth is not None:
            self._count_right(sample.name, np.array(sample.truth), (chosen, self._chosen(theirs)))
        last = np.partition(theirs, -self._k, axis=-1)[:, -self._k, None]
        self._labels += chosen.size
        self._changed += int((np.take_along_axis(theirs, chosen, axis=-1) < last - near(theirs)).sum())

    def _chosen(self, scores: Array) -> Labels:
        return np.asarray(np.argpartition(scores, -self._k, axis=-1)[:, -self._k :])

    def _count_right(self, sample: str, truth: Array, sides: tuple[Labels, Labels]) -> None:
        if truth.shape != sides[0].shape[:1] or truth.max(initial=0) >= self._classes:
            raise InvalidInput(
                f"labels of {sample}: expected one for each of {len(sides[0])} rows of the output {self._output!r}, "
                f"from 0 to {self._classes - 1}, got {truth.size}, the largest {truth.max(initial=0)}"
            )
        is_given = truth >= 0
        self._given += int(is_given.sum())
        for at, chosen in enumerate(sides):
            self._right[at] += int(((chosen == truth[:, None]).any(axis=-1) & is_given).sum())

    def numbers(self) -> dict[str, float]:
        return {"labels_changed": self._changed / self._labels} if self._labels else {}

    def uncounted(self) -> dict[str, str]:
        return {} if self._labels else {"labels_changed": "no labels were read"}

    def details(self) -> dict[str, Any]:
        counted = {"labels changed": [self._changed, self._labels]}
        if self._given:
            ours, theirs = self._right
            counted |= {
                "right by the labels given": [ours, self._given],
                "right in the reference": [theirs, self._given],
            }
        return {"counted": counted}


class SequenceJudge:
    """The judge of scores for each step of a sequence, read by greedy CTC decoding: the label of each step, where
    repeated labels count once and blanks are dropped.

    Numbers: characters_changed, the share of labels that were replaced, lost or added, over the longer of both
    strings; strings_changed, the share of strings with such a label.
    """

    def __init__(self, spec: TensorSpec, blank: int) -> None:
        """spec: float scores, (T, classes), (N, T, classes) or (T, 1, classes). blank: the blank's label; below 0, it
        counts from the end. Raises InvalidInput for another dtype or shape, and for a blank that is no label."""
        shape = spec.shape
        if np.dtype(spec.dtype).kind != "f" or len(shape) not in (2, 3) or shape[-1] < 2:
            raise wrong_output(spec, "float scores of at least 2 classes for each step, (N, T, classes)")
        if not -shape[-1] <= blank < shape[-1]:
            raise InvalidInput(f"{spec.name}: expected a blank among its {shape[-1]} classes, got {blank}")
        self._output, self._blank = spec.name, blank % shape[-1]
        self._steps = shape[0] if len(shape) == 2 or shape[1] == 1 else shape[1]
        self._strings = self._strings_changed = self._characters = self._changed = 0

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        sides = (side[self._output].reshape(-1, side[self._output].shape[-1]) for side in (got, expected))
        ours, theirs = (labels.reshape(-1, self._steps) for labels in clear_labels(*sides))
        for one, other in zip(ours, theirs, strict=True):
            text, wanted = self._read(one), self._read(other)
            longer = max(len(text), len(wanted))
            same = sum(
                block.size for block in SequenceMatcher(None, text, wanted, autojunk=False).get_matching_blocks()
            )
            self._strings += 1
            self._strings_changed += text != wanted
            self._characters += longer
            self._changed += longer - same

    def _read(self, labels: Labels) -> list[int]:
        return [label for label, _ in groupby(labels.tolist()) if label != self._blank]

    def numbers(self) -> dict[str, float]:
        shares = {
            "characters_changed": (self._changed, self._characters),
            "strings_changed": (self._strings_changed, self._strings),
        }
        return {name: changed / of for name, (changed, of) in shares.items() if of}

    def uncounted(self) -> dict[str, str]:
        return {
            name: f"no {what} were read"
            for name, what, of in (
                ("characters_changed", "characters", self._characters),
                ("strings_changed", "strings", self._strings),
            )
            if not of
        }

    def details(self) -> dict[str, Any]:
        return {
            "counted": {
                "strings changed": [self._strings_changed, self._strings],
                "characters changed": [self._changed, self._characters],
            }
        }


def wrong_output(spec: TensorSpec, expected: str) -> InvalidInput:
    """Return the error for an output that a judge cannot read. expected: the outputs that it can."""
    return InvalidInput(f"output {spec.name!r}: expected {expected}, got {spec.dtype} {list(spec.shape)}")
