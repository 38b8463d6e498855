"""Cuts a candidate file of any format into layers, between the tensors that it has in common with the reference."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir

from backends.tensor import Array
from graphs.onnx.part import named_values, shape_and_dtype
from graphs.tflite.tensor_map import Order
from toolkit.bisect.candidates import MatchedTensor, Stored, unfit
from toolkit.bisect.result import Unmatched


class Part(Protocol):
    """Some operators of a file that run alone. inputs: names of the tensors they read; operators: their types."""

    inputs: tuple[str, ...]
    operators: tuple[str, ...]

    def run(self, feeds: Sequence[Mapping[str, Array]], threads: int) -> list[dict[str, Array]]:
        """Load only the part and run it on each of `feeds`. Returns its output, by name, for each.

        Inputs and outputs have the file's tensor names, layouts and dtypes.
        Raises InvalidArtifact if the runtime cannot run the part, or crashes.
        """

    def write(self, path: Path) -> None:
        """Write the part as a complete model file."""


class Candidate(Protocol):
    """A file that is compared with a reference.

    suffix: of its file name; missing: the reason to give for a reference tensor that `places` does not list.
    """

    suffix: str
    missing: str

    def places(self) -> Mapping[str, tuple[Stored, Order]]:
        """Return the file's own map of tensors: name in the reference -> (stored tensor, order of its axes)."""

    def cut(self, stored: str, given: Collection[str]) -> Part | None:
        """Return the part that computes the tensor `stored` from the tensors `given`; None if no operator makes it."""


@dataclass(frozen=True)
class Layer:
    """The operators of a candidate between tensors that the reference has too.

    match: its output; value: the same tensor in the reference; index: of the reference's node that computes it.
    inputs: the tensors it reads.
    """

    match: MatchedTensor
    value: ir.Value
    index: int
    inputs: tuple[MatchedTensor, ...]
    part: Part

    @property
    def bytes(self) -> int:
        """Size of the layer's result in the reference and in the candidate together, at the reference's dtype."""
        return 2 * math.prod(self.match.shape) * np.dtype(self.match.dtype).itemsize


@dataclass(frozen=True)
class Cuts:
    """Layers in the running order of the reference, the inputs that both files have, and the unmatched tensors."""

    layers: tuple[Layer, ...]
    inputs: tuple[MatchedTensor, ...]
    unmatched: tuple[Unmatched, ...]


def cut_layers(reference: ir.Model, candidate: Candidate) -> Cuts:
    """Match the tensors of a graph with those of a candidate, and cut the candidate into layers at the matches.

    One tensor of the candidate may hold several tensors of the reference that differ only in layout: the first of them
    is matched. A tensor that the candidate computes from a tensor which comes later in the reference is not matched.
    """
    values = named_values(reference)
    order = {name: i for i, name in enumerate(values)}
    matches, unmatched = _matches(values, candidate)
    while True:
        by_stored = {match.stored.name: match for match in matches.values()}
        parts = {name: candidate.cut(match.stored.name, by_stored) for name, match in matches.items()}
        bad = {name: why for name, part in parts.items() if (why := _misplaced(name, part, values, by_stored, order))}
        if not bad:
            break
        unmatched |= bad
        matches = {name: match for name, match in matches.items() if name not in bad}
    index = {node: i for i, node in enumerate(reference.graph)}
    layers = []
    for name, part in parts.items():
        node = values[name].producer()
        if part is not None and node is not None:
            inputs = tuple(by_stored[stored] for stored in part.inputs)
            layers.append(Layer(matches[name], values[name], index[node], inputs, part))
    return Cuts(
        tuple(layers),
        tuple(match for name, match in matches.items() if values[name].producer() is None),
        tuple(Unmatched(name, unmatched[name]) for name in order if name in unmatched),
    )


def _matches(values: dict[str, ir.Value], candidate: Candidate) -> tuple[dict[str, MatchedTensor], dict[str, str]]:
    """Return, by names of the reference, the matches (at most one for a tensor of the candidate), and the reasons of
    tensors without a match."""
    places = candidate.places()
    found: dict[str, MatchedTensor] = {}
    unmatched: dict[str, str] = {}
    taken: set[str] = set()
    for name, value in values.items():
        known = shape_and_dtype(value)
        if known is None:
            unmatched[name] = "the reference does not state its shape"
        elif name not in places:
            unmatched[name] = candidate.missing
        elif (why := unfit(*known, *places[name])) is not None:
            unmatched[name] = why
        elif (stored := places[name][0]).name not in taken:
            taken.add(stored.name)
            found[name] = MatchedTensor(name, *known, *places[name])
    return found, unmatched


def _misplaced(
    name: str,
    part: Part | None,
    values: dict[str, ir.Value],
    by_stored: dict[str, MatchedTensor],
    order: dict[str, int],
) -> str | None:
    made = values[name].producer() is not None
    if part is None:
        return "a constant in the file" if made else None
    if not made:
        return "an input of the reference, which the file computes"
    later = [stored for stored in part.inputs if order[by_stored[stored].name] >= order[name]]
    return f"made of {later[0]!r} in the file, which comes later in the reference" if later else None


def groups(layers: Sequence[Layer], limit_bytes: int) -> Iterator[list[Layer]]:
    """Yield groups of neighbouring layers whose results together fit `limit_bytes`; each group has at least one."""
    group: list[Layer] = []
    for layer in layers:
        if group and sum(one.bytes for one in (*group, layer)) > limit_bytes:
            yield group
            group = []
        group.append(layer)
    if group:
        yield group
