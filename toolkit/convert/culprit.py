"""Which operator of a TFLite file a runtime does not survive: each kind of them is run in a file of its own."""

import tempfile
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from backends.errors import InvalidArtifact
from toolkit.convert.tflite_graph import Graph, Node, Tensor, read_graph
from toolkit.convert.tflite_writer import write_graph
from toolkit.convert.trial import Trial, TrialEnded

_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}


def deadly_operator(path: Path, trial: Trial) -> str | None:
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
            except TrialEnded:
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
