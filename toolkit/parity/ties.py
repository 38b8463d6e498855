"""Choices between numbers that are equal but for rounding: indices of an ArgMax, ArgMin or TopK, which no file can be
held to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnx_ir as ir

from backends.tensor import Array, Binding
from graphs.onnx.part import OnnxPartSession, part_of, read_with_shapes
from graphs.onnx.readers import static_shape

# Scores that differ by at most this much of their range are equal but for rounding: float32 sums in another order.
_ALIKE = 1e-5
_CHOOSING = frozenset({"ArgMax", "ArgMin", "TopK"})
# Operators between the choice and the output that keep its numbers in their order.
_KEEPING = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class _Choice:
    """An output of indices along an axis of `scores`. shape: of the indices, with that axis."""

    output: str
    scores: str
    axis: int
    shape: tuple[int, ...]


class Ties:
    """The numbers among which the outputs of a graph choose, for each sample."""

    def __init__(self, choices: Sequence[_Choice], session: OnnxPartSession) -> None:
        self._choices = choices
        self._session = session

    @classmethod
    def of(cls, path: Path, outputs: Sequence[Binding]) -> Self | None:
        """Open the part of a graph before its choices. Returns None for a graph without an output of indices.

        outputs: of the graph; without integers among them it is not read. Raises InvalidArtifact if ONNX Runtime cannot
        load the part.
        """
        if not any(np.dtype(binding.spec.dtype).kind in "iu" for binding in outputs):
            return None
        model = read_with_shapes(path)
        found = [one for value in model.graph.outputs if (one := _choice(value)) is not None]
        if not found:
            return None
        scores = list(dict.fromkeys(value for _, value in found))
        part = part_of(model, list(model.graph.inputs), scores)
        return cls([choice for choice, _ in found], OnnxPartSession(part, path.parent))

    def settle(
        self, feeds: Mapping[str, Array], expected: Mapping[str, Array], results: Sequence[Mapping[str, Array]]
    ) -> list[dict[str, Array]]:
        """Return results of one sample with the expected index wherever the score of another index is the same."""
        scores = self._session.run(feeds)
        return [self._settled(scores, expected, got) for got in results]

    def _settled(
        self, scores: Mapping[str, Array], expected: Mapping[str, Array], got: Mapping[str, Array]
    ) -> dict[str, Array]:
        settled = dict(got)
        for choice in self._choices:
            ours, theirs = got[choice.output], expected[choice.output]
            if ours.shape == theirs.shape and not np.array_equal(ours, theirs):
                alike = _alike(choice, scores[choice.scores], ours, theirs)
                settled[choice.output] = np.where(alike.reshape(ours.shape), theirs, ours)
        return settled


def _alike(choice: _Choice, scores: Array, ours: Array, theirs: Array) -> Array:
    """Return where two arrays of indices choose scores that are equal but for rounding, in the shape of the choice."""
    count = scores.shape[choice.axis]
    indices = [np.asarray(side.reshape(choice.shape), np.int64) for side in (ours, theirs)]
    inside = (indices[0] >= 0) & (indices[0] < count)
    chosen = [np.take_along_axis(scores, np.where(inside, side, 0), choice.axis).astype(np.float64) for side in indices]
    with np.errstate(invalid="ignore"):
        near = np.abs(chosen[0] - chosen[1]) <= _ALIKE * float(np.ptp(scores))
    return np.asarray(inside & near)


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
    return _Choice(str(output.name), str(scores.name), axis, (*shape[:axis], count, *shape[axis + 1 :])), scores
