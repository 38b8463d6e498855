"""Runs a graph from its inputs to its end, some nodes at a time: only what is still needed stays in memory."""

from collections.abc import Collection, Mapping
from pathlib import Path

import onnx_ir as ir

from backends.tensor import Array
from graphs.onnx_part import OpenPart, part_of


class Stream:
    """Each node runs once, and each weight is read once, in the mapped file where it lies."""

    def __init__(self, model: ir.Model, folder: Path, feeds: Mapping[str, Array], threads: int) -> None:
        """feeds: the inputs of the graph by name. folder: where the weights beside it lie."""
        self._model = model
        self._folder = folder
        self._threads = threads
        self._nodes = list(model.graph)
        index = {node: i for i, node in enumerate(self._nodes)}
        # A value that a graph inside a node reads is kept to the end: such uses are not told by position.
        values = (*model.graph.inputs, *(value for node in self._nodes for value in node.outputs))
        self._last = {v: max((index.get(use.node, len(index)) for use in v.uses()), default=-1) for v in values}
        self._values = {value: feeds[str(value.name)] for value in model.graph.inputs}
        self._at = 0

    def advance(self, end: int, wanted: Collection[ir.Value]) -> dict[str, Array]:
        """Run the nodes up to, and without, the one at `end`. Returns those of `wanted` that they make, by name."""
        nodes = self._nodes[self._at : end]
        made = [value for node in nodes for value in node.outputs]
        passing = [value for value in made if self._last[value] >= end]
        outputs = list(dict.fromkeys([*passing, *(value for value in made if value in wanted)]))
        read = {value for node in nodes for value in node.inputs}
        inputs = [value for value in self._values if value in read or self._last[value] >= len(self._nodes)]
        results: dict[str, Array] = {}
        if outputs:
            feeds = {str(value.name): self._values[value] for value in inputs}
            results = OpenPart(part_of(self._model, inputs, outputs), self._folder, self._threads).run(feeds)
        self._values |= {value: results[str(value.name)] for value in passing}
        self._values = {value: array for value, array in self._values.items() if self._last[value] >= end}
        self._at = end
        return {str(value.name): results[str(value.name)] for value in made if value in wanted}
