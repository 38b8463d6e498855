"""Choices between numbers that are equal but for rounding, which no file can be held to.

They are the indices of an ArgMax, ArgMin or TopK, the rows that a graph gathers by these indices, and the boxes that a
NonMaxSuppression chooses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnx_ir as ir

from backends.tensor import Array, Binding
from graphs.onnx.part import OnnxPartSession, needed_nodes, part_of, read_with_shapes
from graphs.onnx.readers import static_shape

# Scores that differ by at most this much of their range are equal but for rounding: float32 sums in another order.
_ALIKE = 1e-5
# The same for scores that are all nearly one number, as on an image of one colour: a share of the largest of them.
_ALIKE_OF_LARGEST = 1e-6
# Where a chosen score differs from the reference's by at most this much of their range, the rows that are gathered by
# the index are compared with the reference's rows of the same index. The choice itself is judged by the index.
_NEAR = 1e-2
_CHOOSING = frozenset({"ArgMax", "ArgMin", "TopK"})
# Operators between the choice and the output that keep its numbers in their order.
_KEEPING = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class _Choice:
    """An output of indices along an axis of `scores`. shape: of the indices, with that axis. chosen: the name of the
    indices as an operator makes them, and their shape there."""

    output: str
    scores: str
    axis: int
    shape: tuple[int, ...]
    chosen: tuple[str, tuple[int, ...]]


class Ties:
    """The numbers among which the outputs of a graph choose, for each sample."""

    def __init__(
        self,
        choices: Sequence[_Choice],
        searches: Mapping[str, str],
        scores: OnnxPartSession,
        rows: OnnxPartSession | None,
    ) -> None:
        """searches: the outputs of chosen boxes, with the name of the scores of each. scores: the part of the graph
        before its choices. rows: the outputs that the graph computes from its choices, computed from given choices;
        None if there are none."""
        self._choices = choices
        self._searches = searches
        self._scores = scores
        self._rows = rows

    @classmethod
    def of(cls, path: Path, outputs: Sequence[Binding]) -> Self | None:
        """Open the part of a graph before its choices. Returns None for a graph without an output of indices.

        outputs: of the graph; without integers among them it is not read. Raises InvalidArtifact if ONNX Runtime cannot
        load a part.
        """
        if not any(np.dtype(binding.spec.dtype).kind in "iu" for binding in outputs):
            return None
        model = read_with_shapes(path)
        found = [one for value in model.graph.outputs if (one := _choice(value)) is not None]
        searches = {str(v.name): s for v in model.graph.outputs if (s := _scores_of_search(v)) is not None}
        if not found and not searches:
            return None
        choices = [choice for choice, _ in found]
        values = dict.fromkeys([*(scores for _, scores in found), *searches.values()])
        before = part_of(model, list(model.graph.inputs), list(values))
        scores = OnnxPartSession(before, path.parent)
        after = _rows(model, choices)
        names = {output: str(value.name) for output, value in searches.items()}
        return cls(choices, names, scores, None if after is None else OnnxPartSession(after, path.parent))

    def settle(
        self, feeds: Mapping[str, Array], expected: Mapping[str, Array], results: Sequence[Mapping[str, Array]]
    ) -> list[dict[str, Array]]:
        """Return results of one sample as if each file had chosen as the reference, where its choice is as good.

        An index becomes the expected one wherever its score is the same, and so does a chosen box. An output that is
        computed from indices keeps its error over what the reference computes from the same indices.
        """
        scores = self._scores.run(feeds)
        return [self._settled(feeds, scores, expected, got) for got in results]

    def _settled(
        self,
        feeds: Mapping[str, Array],
        scores: Mapping[str, Array],
        expected: Mapping[str, Array],
        got: Mapping[str, Array],
    ) -> dict[str, Array]:
        settled = dict(got)
        for output, name in self._searches.items():
            settled[output] = _settled_boxes(scores[name], got[output], expected[output])
        given: dict[str, Array] = {}
        differs = False
        for choice in self._choices:
            ours, theirs = got[choice.output], expected[choice.output]
            index = theirs
            if ours.shape == theirs.shape and not np.array_equal(ours, theirs):
                alike, near = _alike(choice, scores[choice.scores], ours, theirs)
                settled[choice.output] = np.where(alike.reshape(ours.shape), theirs, ours)
                index = np.where(near.reshape(ours.shape), ours, theirs)
                differs = differs or not np.array_equal(index, theirs)
            name, shape = choice.chosen
            given[_given(name)] = index.reshape(shape).astype(np.int64)
        if self._rows is None or not differs:
            return settled
        for name, rows in self._rows.run({**feeds, **given}).items():
            if rows.shape == got[name].shape:
                settled[name] = _moved(got[name], rows, expected[name])
        return settled


def _settled_boxes(scores: Array, ours: Array, theirs: Array) -> Array:
    """Return rows (batch, class, box) with the expected row in the place of each row of the same batch and class whose
    score is the same as that of an expected row which `ours` lacks. scores: (batches, classes, boxes)."""
    settled = ours.copy()
    rows, free = set(map(tuple, ours.tolist())), set(map(tuple, theirs.tolist()))
    places = [i for i, row in enumerate(ours.tolist()) if tuple(row) not in free and min(row) >= 0]
    free -= rows
    rounding = _rounding(scores)
    for i in places:
        batch, label, box = ours[i].tolist()
        near = (row for row in free if row[:2] == (batch, label))
        of_row = scores[batch, label]
        same = next((row for row in near if abs(float(of_row[row[2]]) - float(of_row[box])) <= rounding), None)
        if same is not None:
            settled[i] = same
            free.remove(same)
    return settled


def _rounding(scores: Array) -> float:
    """Return the largest difference of two scores that are equal but for rounding."""
    return max(_ALIKE * float(np.ptp(scores)), _ALIKE_OF_LARGEST * float(np.abs(scores).max()))


def _moved(got: Array, rows: Array, expected: Array) -> Array:
    """Return what an output would be if its rows were the expected ones: its error over `rows`, added to `expected`."""
    if got.dtype.kind != "f":
        return np.where(got == rows, expected, got)
    return np.where(np.isfinite(got - rows), expected + (got - rows), got).astype(got.dtype)


def _alike(choice: _Choice, scores: Array, ours: Array, theirs: Array) -> tuple[Array, Array]:
    """Return where two arrays of indices choose scores that are equal but for rounding, and where they choose scores
    that are near to each other, each in the shape of the choice."""
    count = scores.shape[choice.axis]
    indices = [np.asarray(side.reshape(choice.shape), np.int64) for side in (ours, theirs)]
    inside = (indices[0] >= 0) & (indices[0] < count)
    chosen = [np.take_along_axis(scores, np.where(inside, side, 0), choice.axis).astype(np.float64) for side in indices]
    with np.errstate(invalid="ignore"):
        difference, rounding = np.abs(chosen[0] - chosen[1]), _rounding(scores)
        near = max(_NEAR * float(np.ptp(scores)), rounding)
        return inside & (difference <= rounding), inside & (difference <= near)


def _rows(model: ir.Model, choices: Sequence[_Choice]) -> ir.Model | None:
    """Return a graph that computes outputs from given choices; None if no output is computed from a choice.

    Changes `model`.
    """
    names = {choice.chosen[0] for choice in choices}
    made = [value for node in model.graph for value in node.outputs if value.name in names]
    given = []
    for value in made:
        chosen = ir.Value(name=_given(str(value.name)), type=ir.TensorType(ir.DataType.INT64), shape=value.shape)
        for node, position in list(value.uses()):
            node.replace_input_with(position, chosen)
        given.append(chosen)
    model.graph.inputs.extend(given)
    own = {choice.output for choice in choices}
    rows = [
        output
        for output in model.graph.outputs
        if str(output.name) not in own and set(given) & set(needed_nodes([output], given)[1])
    ]
    return part_of(model, list(model.graph.inputs), rows) if rows else None


def _given(name: str) -> str:
    return f"{name}_chosen"


def _scores_of_search(output: ir.Value) -> ir.Value | None:
    """Return the scores by which a NonMaxSuppression chooses the boxes that an output is, or None for any other."""
    node = output.producer()
    return node.inputs[1] if node is not None and node.op_type == "NonMaxSuppression" and not node.domain else None


def _choice(output: ir.Value) -> tuple[_Choice, ir.Value] | None:
    """Return the choice that an output is, and its scores; None for any other output, or without static sizes."""
    value = output
    while (node := value.producer()) is not None and node.op_type in _KEEPING and node.inputs[0] is not None:
        value = node.inputs[0]
    if node is None or node.op_type not in _CHOOSING or node.domain or node.inputs[0] is None:
        return None
    if node.op_type == "TopK" and value is not node.outputs[1]:
        return None
    scores = node.inputs[0]
    shape, chosen = static_shape(scores), static_shape(value)
    if shape is None or chosen is None:
        return None
    axis = node.attributes.get_int("axis", -1 if node.op_type == "TopK" else 0) % len(shape)
    count = chosen[axis] if node.op_type == "TopK" else 1
    indices = (*shape[:axis], count, *shape[axis + 1 :])
    return _Choice(str(output.name), str(scores.name), axis, indices, (str(value.name), chosen)), scores
