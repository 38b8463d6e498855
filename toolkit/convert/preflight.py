"""What can be known before hours of work: whether the disk has room, and whether the runtime loads files over 2 GB."""

import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from backends.errors import NotAvailable, one_line
from backends.tensor import Array
from toolkit import room
from toolkit.convert.recipes import RECIPES
from toolkit.convert.steps import kept_bytes
from toolkit.convert.tflite_graph import Graph, Node, Payload, Tensor
from toolkit.convert.tflite_writer import LARGEST_FLATBUFFER_BYTES, write_graph

# What the tables and the slices in the making come to beside the weights.
_SPARE_BYTES = 64 << 20


def check_room(folder: Path, weight_bytes: int, slice_bytes: int, precisions: Sequence[str]) -> None:
    """Raise NotAvailable if `folder` has too little room for the files of a conversion and what it makes on its way.

    weight_bytes are those of the float32 graph, slice_bytes those of its largest slice.
    """
    recipes = [RECIPES[precision] for precision in precisions]
    shares = sum(recipe.share * (2 if recipe.for_onnx else 1) for recipe in recipes)
    # A slice exists as ONNX, in float32, and a second time while it is copied into the whole file.
    need = int(weight_bytes * shares) + 4 * slice_bytes + _SPARE_BYTES
    room.check_room(folder, need, freed_bytes=kept_bytes(folder))


def check_large_files(folder: Path, weight_bytes: int, precisions: Sequence[str]) -> None:
    """Raise NotAvailable if a file would pass 2 GB and this machine's LiteRT cannot load such a file."""
    large = [p for p in precisions if weight_bytes * RECIPES[p].share > LARGEST_FLATBUFFER_BYTES]
    if large and (reason := _cannot_load_large(folder)):
        raise NotAvailable(
            f"ai-edge-litert {version('ai-edge-litert')} cannot load a file over 2 GB, as {', '.join(large)} would be "
            f"({reason}): leave it out, or install another version"
        )


def _cannot_load_large(folder: Path) -> str | None:
    """Run a file whose one weight lies behind byte 2^32. It takes no disk: what comes before is a hole."""
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=folder) as name:
        path = Path(name) / "large.tflite"
        weight = np.arange(1, 5, dtype="<f4")
        _write_large(path, weight)
        try:
            interpreter = Interpreter(model_path=str(path), num_threads=1)
            interpreter.allocate_tensors()
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ones(4, np.float32))
            interpreter.invoke()
            got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        except (ValueError, RuntimeError) as error:
            return one_line(error)
    return None if np.array_equal(got, 1 + weight) else f"it computes {got}, expected {1 + weight}"


def _write_large(path: Path, weight: Array) -> None:
    """y = x + weight, with the weight behind byte 2^32."""
    tensors = []
    for name in (b"x", b"weight", b"y"):
        table = schema.TensorT()
        table.name, table.shape, table.type = name, list(weight.shape), schema.TensorType.FLOAT32
        tensors.append(Tensor(table, None))
    x, constant, y = tensors
    constant.payload = Payload(None, 0, weight.nbytes, weight.tobytes())
    operator = schema.OperatorT()
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    node = Node(operator, (schema.BuiltinOperator.ADD, None, 1), [x, constant], [y], [])
    graph = Graph(b"", {"x": x}, {"y": y}, [node])
    write_graph(graph, path, flatbuffer_limit_bytes=0, weights_from=1 << 32)
