"""Parts of a TFLite file that run alone: cut out by their outputs, or single operators, to find one that crashes."""

import math
import tempfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from backends.errors import InvalidArtifact, one_line
from backends.litert import open_interpreter
from backends.sandbox import SandboxDied, SandboxProcess
from backends.tensor import Array
from graphs.tflite.graph import Graph, Node, Tensor, read_graph
from graphs.tflite.writer import write_graph


def cut(graph: Graph, outputs: Iterable[Tensor], given: Collection[Tensor]) -> Graph:
    """Return the part of a graph that computes `outputs`, with no other operators.

    The inputs of the part are those tensors of `given` that it needs. Inputs and outputs are called by the names of
    their tensors. Weights stay in their file until the part is written.
    Raises InvalidArtifact if the part needs a tensor that no operator makes.
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
            elif math.prod(tensor.shape) and not tensor.table.isVariable:
                # A constant without values has no bytes either, and a variable starts as zeros.
                raise InvalidArtifact(f"tensor {tensor.name!r} is made by no operator of the file")
    nodes: list[Node] = [node for node in graph.nodes if id(node) in needed]
    return Graph(
        b"",
        {tensor.name: tensor for tensor in inputs.values()},
        {tensor.name: tensor for tensor in results},
        nodes,
    )


class TflitePartSession:
    """A LiteRT interpreter for the file of a part. It runs any number of times; the file may be deleted meanwhile."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Load the file. Raises InvalidArtifact if LiteRT cannot load it."""
        try:
            self._interpreter = open_interpreter(path, threads)
            self._interpreter.allocate_tensors()
            self._inputs = {detail["name"]: detail["index"] for detail in self._interpreter.get_input_details()}
            self._outputs = {detail["name"]: detail["index"] for detail in self._interpreter.get_output_details()}
        except (ValueError, RuntimeError) as error:
            raise InvalidArtifact(f"LiteRT cannot load a part of the file alone: {one_line(error)}") from error

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the part once, and return its outputs by name.

        Feeds and outputs go by the names of their tensors and have the dtypes, shapes and order of axes of the file.
        Raises InvalidArtifact if LiteRT cannot run the part.
        """
        try:
            for name, index in self._inputs.items():
                self._interpreter.set_tensor(index, feeds[name])
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            made = ", ".join(map(repr, self._outputs))
            raise InvalidArtifact(f"LiteRT cannot run the part that makes {made} alone: {one_line(error)}") from error
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}


_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


def find_crashing_op(path: Path, trial: SandboxProcess) -> str | None:
    """Return the first operator that ends the process when it runs alone, such as "GREATER of int8 ('y')", or None.

    `trial` is the process that runs the operators. Of operators of one kind with the same dtypes and shapes, only the
    first runs. A file that read_graph refuses gives None.
    """
    try:
        graph = read_graph(path)
    except InvalidArtifact:
        return None  # the converter did not write this file, and only its graphs can be searched
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


@dataclass(frozen=True)
class RefusedOp:
    """An operator that LiteRT does not load. name: as in the schema, such as "BATCH_MATMUL".

    outputs: the names of its output tensors. quantized: whether it reads or makes integers of 8 or 16 bits.
    """

    name: str
    outputs: tuple[str, ...]
    quantized: bool
    reason: str


def find_refused_ops(path: Path, trial: SandboxProcess) -> list[RefusedOp]:
    """Return every operator of a file that LiteRT does not load when it is alone in a file, in running order.

    `trial` is the process that loads the operators. Of operators of one kind with the same dtypes and shapes, only the
    first is loaded. An operator that ends the process is not among them.
    """
    found = []
    reasons: dict[tuple[object, ...], str | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "operator.tflite"
        for node in read_graph(path).nodes:
            kind = _kind(node)
            if kind not in reasons:
                write_graph(_alone(node), alone)
                with suppress(SandboxDied):
                    reasons[kind] = trial.call(load_error, alone)
            if (reason := reasons.setdefault(kind, None)) is not None:
                tensors = [tensor for tensor in (*node.inputs, *node.outputs) if tensor is not None]
                outputs = tuple(tensor.name for tensor in node.outputs if tensor is not None)
                quantized = any(tensor.dtype in ("int8", "int16") for tensor in tensors)
                found.append(RefusedOp(_operator(node), outputs, quantized, reason))
    return found


def load_error(path: Path, delegated: bool = True) -> str | None:
    """Return LiteRT's reason why it does not load a TFLite file, or None if it does. delegated: with XNNPACK."""
    try:
        open_interpreter(path, delegated=delegated).allocate_tensors()
    except (ValueError, RuntimeError) as error:
        return one_line(error)
    return None


def run_alone(path: Path) -> None:
    """Run a TFLite file once. Errors of the runtime are ignored: the caller only looks for a crash of the process.

    Float inputs are random numbers in [0, 1), all other inputs are 1.
    """
    random = np.random.default_rng(0)
    try:
        interpreter = open_interpreter(path)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            values = random.random(detail["shape"]) if np.dtype(detail["dtype"]).kind == "f" else 1
            interpreter.tensor(detail["index"])()[...] = values
        interpreter.invoke()
    except (ValueError, RuntimeError):
        return  # an error, but no crash


def _alone(node: Node) -> Graph:
    given = {f"input {i}": t for i, t in enumerate(node.inputs) if t is not None and t.payload is None}
    made = {f"output {i}": t for i, t in enumerate(node.outputs) if t is not None}
    return Graph(b"", given, made, [node])


def _kind(node: Node) -> tuple[object, ...]:
    return (node.code, *(None if t is None else (t.table.type, t.shape) for t in (*node.inputs, *node.outputs)))


def _described(node: Node) -> str:
    dtypes = dict.fromkeys(tensor.dtype for tensor in node.inputs if tensor is not None)
    made = [repr(tensor.name) for tensor in node.outputs if tensor is not None]
    return f"{_operator(node)} of {' and '.join(dtypes)} ({', '.join(made)})"


def _operator(node: Node) -> str:
    builtin, custom, _ = node.code
    return custom.decode() if custom else str(_OPERATORS.get(builtin, builtin))
