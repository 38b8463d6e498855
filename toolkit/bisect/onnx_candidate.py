"""An ONNX file that is held to another: quantized from it, or rewritten by passes, which keep the names of tensors."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from backends.tensor import Array
from graphs.onnx_file import save
from graphs.onnx_part import OpenPart, needed_nodes, part_of
from toolkit.bisect.graph import named_values, read_with_shapes, shape_and_dtype
from toolkit.bisect.tensors import Stored
from toolkit.convert.correspondence import Order


class OnnxPart:
    """Nodes of one graph; their weights stay where they are."""

    def __init__(self, model: ir.Model, inputs: list[ir.Value], output: ir.Value, nodes: list[ir.Node], folder: Path):
        self._cut = (model, inputs, output)
        self._folder = folder
        self.inputs = tuple(str(value.name) for value in inputs)
        self.operators = tuple(node.op_type for node in nodes)

    def run(self, feeds: Sequence[Mapping[str, Array]], threads: int) -> list[dict[str, Array]]:
        part = OpenPart(self._model(), self._folder, threads)
        return [part.run(one) for one in feeds]

    def write(self, path: Path) -> None:
        save(self._model(), path)

    def _model(self) -> ir.Model:
        model, inputs, output = self._cut
        return part_of(model, inputs, [output])


class OnnxCandidate:
    """Tensors are found by their names."""

    suffix = ".onnx"
    missing = "the file holds no such tensor"

    def __init__(self, path: Path) -> None:
        self._model = read_with_shapes(path)
        self._folder = path.parent
        self._values = named_values(self._model)
        self._index = {node: i for i, node in enumerate(self._model.graph)}

    def places(self) -> Mapping[str, tuple[Stored, Order]]:
        found = {}
        for name, value in self._values.items():
            if (known := shape_and_dtype(value)) is not None:
                found[name] = (Stored(name, *known), None)
        return found

    def cut(self, stored: str, given: Collection[str]) -> OnnxPart | None:
        value = self._values[stored]
        if value.producer() is None:
            return None
        nodes, inputs = needed_nodes([value], {self._values[name] for name in given if name != stored})
        return OnnxPart(self._model, inputs, value, sorted(nodes, key=self._index.__getitem__), self._folder)
