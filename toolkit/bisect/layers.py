"""What bisecting needs of a file, whatever its format: its tensors, and its layers cut out one by one."""

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
from toolkit.bisect.candidates import Match, Stored, unfit


class Part(Protocol):
    """The operators of a file between some of its tensors. inputs: what they read, by name; operators: their kinds."""

    inputs: tuple[str, ...]
    operators: tuple[str, ...]

    def run(self, feeds: Sequence[Mapping[str, Array]], threads: int) -> list[dict[str, Array]]:
        """Load the part alone and run it on each of some feeds, all of it as the file stores it, by the tensors' names.

        Raises InvalidArtifact if the runtime cannot, or does not survive it.
        """

    def write(self, path: Path) -> None:
        """Write the part as a file that runs by itself."""


class Candidate(Protocol):
    """A file that is held to a reference. missing: why a tensor of the reference is none of its places."""

    suffix: str
    missing: str

    def places(self) -> Mapping[str, tuple[Stored, Order]]:
        """Where it says that it holds which tensor of the reference: the reference's name -> tensor, order of axes."""

    def cut(self, stored: str, given: Collection[str]) -> Part | None:
        """What makes a tensor out of those that are given; None for one that no operator makes."""


@dataclass(frozen=True)
class Layer:
    """What a candidate does between tensors that the reference has too.

    value: the reference's tensor that it makes, and index that of the node which does so there. inputs: what it reads.
    """

    match: Match
    value: ir.Value
    index: int
    inputs: tuple[Match, ...]
    part: Part

    @property
    def bytes(self) -> int:
        """Of its result, in both files."""
        return 2 * math.prod(self.match.shape) * np.dtype(self.match.dtype).itemsize


@dataclass(frozen=True)
class Unmatched:
    """A tensor of the reference that the candidate was not cut at, and why."""

    tensor: str
    why: str


@dataclass(frozen=True)
class Cuts:
    """Layers in the running order of the reference, the inputs that both files have, and what was not matched."""

    layers: tuple[Layer, ...]
    inputs: tuple[Match, ...]
    unmatched: tuple[Unmatched, ...]


def cut_layers(reference: ir.Model, candidate: Candidate) -> Cuts:
    """Match the tensors of a graph with a candidate's, and cut that into layers.

    One tensor of the candidate may hold several of the reference that differ by their layout alone: the first of them
    stands for all. A tensor that the candidate makes of what the reference makes later is none to cut at.
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


def _matches(values: dict[str, ir.Value], candidate: Candidate) -> tuple[dict[str, Match], dict[str, str]]:
    """By the reference's names: matches, one for each of the candidate's tensors, and why there is none."""
    places = candidate.places()
    found: dict[str, Match] = {}
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
            found[name] = Match(name, *known, *places[name])
    return found, unmatched


def _misplaced(
    name: str, part: Part | None, values: dict[str, ir.Value], by_stored: dict[str, Match], order: dict[str, int]
) -> str | None:
    made = values[name].producer() is not None
    if part is None:
        return "a constant in the file" if made else None
    if not made:
        return "the file computes it, and the reference is given it"
    later = [stored for stored in part.inputs if order[by_stored[stored].name] >= order[name]]
    return f"made of {later[0]!r} in the file, which comes later in the reference" if later else None


def groups(layers: Sequence[Layer], limit_bytes: int) -> Iterator[list[Layer]]:
    """Neighbours whose results fit the limit together; at least one at a time."""
    group: list[Layer] = []
    for layer in layers:
        if group and sum(one.bytes for one in (*group, layer)) > limit_bytes:
            yield group
            group = []
        group.append(layer)
    if group:
        yield group
