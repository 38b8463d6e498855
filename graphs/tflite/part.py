"""Some operators of a TFLite file, cut out and run alone."""

import math
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from backends.errors import InvalidArtifact, one_line
from backends.sandbox import SandboxDied, SandboxProcess
from backends.tensor import Array
from graphs.tflite.graph import Graph, Node, Tensor, read_graph
from graphs.tflite.writer import write_graph


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


class TflitePartSession:
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


_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}

_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}


def find_crashing_op(path: Path, trial: SandboxProcess) -> str | None:
    """The first operator that ends the process when it runs alone: "GREATER of int8 ('y')"; None where none does.

    Operators of one kind, on the same dtypes and sizes, are run once.
    """
    try:
        graph = read_graph(path)
    except InvalidArtifact:
        return None  # not one of the converter's slices: nothing more can be said of it
    seen = set()
    for node in graph.nodes:
        kind = _kind(node)
        if kind in seen:
            continue
        seen.add(kind)
        with tempfile.TemporaryDirectory() as folder:
            alone = Path(folder) / "operator.tflite"
            write_graph(_alone(node), alone)
            try:
                trial.call(run_alone, alone)
            except SandboxDied:
                return _described(node)
    return None


def run_alone(path: Path) -> None:
    """Run a file once on numbers between 0 and 1, and on ones where it takes integers. Errors are none of ours."""
    random = np.random.default_rng(0)
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            values = random.random(detail["shape"]) if np.dtype(detail["dtype"]).kind == "f" else 1
            interpreter.tensor(detail["index"])()[...] = values
        interpreter.invoke()
    except (ValueError, RuntimeError):
        return  # it lives


def _alone(node: Node) -> Graph:
    given = {f"input {i}": t for i, t in enumerate(node.inputs) if t is not None and t.payload is None}
    made = {f"output {i}": t for i, t in enumerate(node.outputs) if t is not None}
    return Graph(b"", given, made, [node])


def _kind(node: Node) -> tuple[object, ...]:
    return (node.code, *(None if t is None else (t.table.type, t.shape) for t in (*node.inputs, *node.outputs)))


def _described(node: Node) -> str:
    dtypes = dict.fromkeys(_TYPES.get(tensor.table.type, "?") for tensor in node.inputs if tensor is not None)
    made = [_name(tensor) for tensor in node.outputs if tensor is not None]
    return f"{_OPERATORS.get(node.code[0], node.code[0])} of {' and '.join(dtypes)} ({', '.join(made)})"


def _name(tensor: Tensor) -> str:
    name = tensor.table.name
    return repr(name.decode() if isinstance(name, bytes) else name)
