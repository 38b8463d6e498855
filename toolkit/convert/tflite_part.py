"""Some operators of a TFLite file, cut out and run alone."""

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter

from backends.errors import InvalidArtifact, one_line
from backends.tensor import Array
from toolkit.convert.tflite_graph import Graph, Node, Tensor


def cut(graph: Graph, outputs: Iterable[Tensor], given: Collection[Tensor]) -> Graph:
    """The operators that compute `outputs` from constants and, of `given`, what they need: no more than these.

    Inputs and outputs of the part have the tensors' own names. Weights stay in their file until the part is written.
    Raises InvalidArtifact where a tensor is needed that nothing makes.
    """
    makers = {id(tensor): node for node in graph.nodes for tensor in node.outputs if tensor is not None}
    stops = {id(tensor) for tensor in given}
    results = list(outputs)
    needed: set[int] = set()
    inputs: dict[int, Tensor] = {}
    waiting = [makers[id(tensor)] for tensor in results if id(tensor) in makers]
    while waiting:
        node = waiting.pop()
        if id(node) in needed:
            continue
        needed.add(id(node))
        for tensor in node.inputs:
            if tensor is None or tensor.payload is not None:
                continue
            if id(tensor) in stops:
                inputs[id(tensor)] = tensor
            elif (maker := makers.get(id(tensor))) is not None:
                waiting.append(maker)
            elif math.prod(tensor.shape):  # a constant without values has no bytes either
                raise InvalidArtifact(f"tensor {name_of(tensor)!r} is made by no operator of the file")
    nodes: list[Node] = [node for node in graph.nodes if id(node) in needed]
    return Graph(
        b"",
        {name_of(tensor): tensor for tensor in inputs.values()},
        {name_of(tensor): tensor for tensor in results},
        nodes,
    )


def name_of(tensor: Tensor) -> str:
    """The tensor's name in its file."""
    name: bytes = tensor.table.name
    return name.decode()


class OpenPart:
    """A part in a file of its own, ready to run any number of times. The file may go once this is made."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Raises InvalidArtifact if LiteRT cannot load it."""
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
            self._inputs = {detail["name"]: detail["index"] for detail in self._interpreter.get_input_details()}
            self._outputs = {detail["name"]: detail["index"] for detail in self._interpreter.get_output_details()}
        except (ValueError, RuntimeError) as error:
            raise InvalidArtifact(f"LiteRT cannot load a part of the file alone: {one_line(error)}") from error

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """One run. `feeds` and results are as the file stores them, by the tensors' names. Raises InvalidArtifact."""
        try:
            for name, index in self._inputs.items():
                self._interpreter.set_tensor(index, feeds[name])
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            made = ", ".join(map(repr, self._outputs))
            raise InvalidArtifact(f"LiteRT cannot run the part that makes {made} alone: {one_line(error)}") from error
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}
