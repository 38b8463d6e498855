"""Runs a graph from its inputs to its end, some nodes at a time: only what is still needed stays in memory."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from backends.tensor import Array
from graphs.onnx_part import OpenPart, part_of


class Stream:
    """Each node runs once for each of some samples, and each weight is read once, in the mapped file where it lies."""

    def __init__(self, model: ir.Model, folder: Path, samples: Sequence[Mapping[str, Array]], threads: int) -> None:
        """samples: the inputs of the graph by name. folder: where the weights beside it lie."""
        self._model = model
        self._folder = folder
        self._threads = threads
        self._nodes = list(model.graph)
        index = {node: i for i, node in enumerate(self._nodes)}
        # A value that a graph inside a node reads is kept to the end: such uses are not told by position.
        values = (*model.graph.inputs, *(value for node in self._nodes for value in node.outputs))
        self._last = {v: max((index.get(use.node, len(index)) for use in v.uses()), default=-1) for v in values}
        self._values = {value: [feeds[str(value.name)] for feeds in samples] for value in model.graph.inputs}
        self._at = 0

    def advance(self, end: int, wanted: Collection[ir.Value]) -> dict[str, list[Array]]:
        """Run the nodes up to, and without, the one at `end`.

        Returns those of `wanted` that they make, by name, of each sample.
        """
        nodes = self._nodes[self._at : end]
        made = [value for node in nodes for value in node.outputs]
        passing = [value for value in made if self._last[value] >= end]
        outputs = list(dict.fromkeys([*passing, *(value for value in made if value in wanted)]))
        read = {value for node in nodes for value in node.inputs}
        inputs = [value for value in self._values if value in read or self._last[value] >= len(self._nodes)]
        results = self._run(inputs, outputs) if outputs else {}
        self._values |= {value: results[value] for value in passing}
        self._values = {value: arrays for value, arrays in self._values.items() if self._last[value] >= end}
        self._at = end
        return {str(value.name): results[value] for value in made if value in wanted}

    def _run(self, inputs: list[ir.Value], outputs: list[ir.Value]) -> dict[ir.Value, list[Array]]:
        part = OpenPart(part_of(self._model, inputs, outputs), self._folder, self._threads)
        by_name = {str(value.name): self._values[value] for value in inputs}
        runs = [part.run(dict(zip(by_name, arrays, strict=True))) for arrays in zip(*by_name.values(), strict=True)]
        return {value: [run[str(value.name)] for run in runs] for value in outputs}
