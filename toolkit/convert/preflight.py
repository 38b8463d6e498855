"""Checks before a conversion: operators that the converter does not lower, disk space, files too large for LiteRT."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx_ir as ir
from ai_edge_litert import schema_py_generated as schema

from backends import machine
from backends.bundle import Bundle, Progress
from backends.errors import NotAvailable, one_line
from backends.litert import open_interpreter
from backends.precision import RECIPES
from backends.tensor import Array
from graphs.onnx.sizes import depends_on_values, how_to_fix_sizes
from graphs.tflite.graph import Graph, Node, Payload, Tensor
from graphs.tflite.writer import LARGEST_FLATBUFFER_BYTES, write_graph
from toolkit.convert.converter import ConversionFailed, run_worker
from toolkit.convert.resume import kept_bytes
from toolkit.convert.slices import open_graph
from toolkit.environments import converter_python

_TIMEOUT_S = 300.0
_SHOWN = 5
_ASKED: dict[Path, frozenset[str]] = {}  # the converters' answers, by the path of their Python


def supported_operators(log: Path, progress: Progress = lambda step: None) -> frozenset[str]:
    """Return the names of the ONNX operators that the installed converter lowers. The converter is asked only once.

    Its output is added to `log`. Raises NotAvailable without a converter, ConversionFailed if it does not answer.
    """
    python = converter_python()
    if python not in _ASKED:
        progress("asking onnx2tf which operators it lowers")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            result = run_worker({"task": "operators"}, folder, log, _TIMEOUT_S, progress)
            _ASKED[python] = frozenset(json.loads(result.files["operators"].read_text(encoding="utf-8")))
    return _ASKED[python]


def unsupported_nodes(model: ir.Model, supported: frozenset[str]) -> list[str]:
    """Return the nodes that the converter does not lower, those in subgraphs too: "'name' (Operator)" for each.

    supported: the names of operators. A node of such an operator may have an attribute or an input that the converter
    does not lower: it is then named too, as in "'name' (GridSample with mode=cubic)".
    """
    found = []
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        known = node.domain in ("", "ai.onnx") and node.op_type in supported
        if not known or (more := _not_lowered(node)):
            operator = f"{node.domain + '.' if node.domain else ''}{node.op_type}"
            described = f"{operator} with {' and '.join(more)}" if known else operator
            found.append(f"{node.name or node.outputs[0].name!r} ({described})")
    return found


# Attributes and their values that onnx2tf does not lower, of operators that it lowers otherwise.
_VALUES: Mapping[str, Mapping[str, tuple[object, ...]]] = {
    "GridSample": {"mode": ("cubic", "bicubic"), "padding_mode": ("reflection",)},
    "LSTM": {"layout": (1,), "input_forget": (1,)},
    "GRU": {"layout": (1,)},
    "RNN": {"layout": (1,)},
    "Resize": {"coordinate_transformation_mode": ("tf_crop_and_resize", "half_pixel_symmetric")},
}
# Optional inputs, by position, that onnx2tf does not lower.
_INPUTS = {
    "LSTM": {4: "sequence_lens", 7: "peepholes"},
    "GRU": {4: "sequence_lens"},
    "RNN": {4: "sequence_lens"},
}


def _not_lowered(node: ir.Node) -> list[str]:
    """Return the attributes and inputs of a node that onnx2tf does not lower, such as "mode=cubic"."""
    found = []
    for name, refused in _VALUES.get(node.op_type, {}).items():
        value = node.attributes[name].value if name in node.attributes else None
        if value in refused:
            found.append(f"{name}={value}")
    given = dict(enumerate(node.inputs))
    return [*found, *(name for at, name in _INPUTS.get(node.op_type, {}).items() if given.get(at) is not None)]


class UnsupportedOperators(NotAvailable):
    """Error: the graph has operators that the converter does not lower. The message names their nodes."""


def check_support(path: Path, model: ir.Model, supported: frozenset[str]) -> None:
    """Raise UnsupportedOperators, naming a way out, if the converter does not lower every node of a graph.

    Raises NotAvailable if a TFLite file cannot have the sizes of an output.
    """
    if why := _open_size(model):
        raise NotAvailable(f"{path}: {why}")
    if nodes := unsupported_nodes(model, supported):
        raise UnsupportedOperators(f"{path}: {_explained(nodes)}")


def _open_size(model: ir.Model) -> str | None:
    """Return why no TFLite file can have the sizes of an output, and a way out, or None."""
    for value in model.graph.outputs:
        if depends_on_values(value):
            return (
                f"no TFLite file can be made: output {value.name!r} has no largest size, and a TFLite file has fixed "
                f"sizes; {how_to_fix_sizes(value)}; or run it on ONNX Runtime (`toolkit convert --runtime ort` makes "
                "its files)"
            )
    return None


def lowering_problems(bundle: Bundle, progress: Progress = lambda step: None) -> list[str]:
    """Return one line of text for each ONNX graph of a bundle that the converter cannot lower.

    If the converter cannot be asked, the only line says why.
    """
    log = bundle.folder / "operators.log"
    try:
        supported = supported_operators(log, progress)
    except (NotAvailable, ConversionFailed) as error:
        return [f"whether TFLite has every operator is not known: {error}"]
    log.unlink(missing_ok=True)  # the log is kept only if the converter failed
    found = {
        artifact.file: open_graph(bundle.folder / artifact.file)
        for artifact in bundle.artifacts
        if artifact.format == "onnx"
    }
    problems = [(file, _open_size(model), unsupported_nodes(model, supported)) for file, model in found.items()]
    return [f"{file}: {size or _explained(nodes)}" for file, size, nodes in problems if size or nodes]


def _explained(nodes: list[str]) -> str:
    shown = ", ".join(nodes[:_SHOWN]) + (f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else "")
    return (
        f"no TFLite file can be made: onnx2tf does not lower {shown}; run it on ONNX Runtime (`toolkit convert "
        "--runtime ort` makes its files), or export the model with operators that it lowers in their place"
    )


# Disk space for everything beside the weights: tables of the files, and data of the slices.
_SPARE_BYTES = 64 << 20


def conversion_bytes(weight_bytes: int, slice_bytes: int, precisions: Sequence[str]) -> int:
    """Return the bytes of disk that a conversion's files and temporary files need.

    weight_bytes: of the float32 graph; slice_bytes: of the weights of its largest slice.
    """
    recipes = [RECIPES[precision] for precision in precisions]
    shares = sum(recipe.share * (2 if recipe.for_onnx else 1) for recipe in recipes)
    # A slice's weights exist in an ONNX file, in a float32 TFLite file, and again while they are copied.
    return int(weight_bytes * shares) + 4 * slice_bytes + _SPARE_BYTES


def check_conversion_space(folder: Path, weight_bytes: int, slice_bytes: int, precisions: Sequence[str]) -> None:
    """Raise NotAvailable if the disk of `folder` has too little space for a conversion, see `conversion_bytes`."""
    need = conversion_bytes(weight_bytes, slice_bytes, precisions)
    machine.check_disk_space(folder, need, freed_bytes=kept_bytes(folder))


def large_files(weight_bytes: int, precisions: Sequence[str]) -> list[str]:
    """Return the precisions whose file would be larger than 2 GB. weight_bytes: of the float32 graph."""
    return [p for p in precisions if weight_bytes * RECIPES[p].share > LARGEST_FLATBUFFER_BYTES]


def check_large_files(folder: Path, weight_bytes: int, precisions: Sequence[str]) -> None:
    """Raise NotAvailable if a file would be larger than 2 GB and the installed LiteRT cannot load such a file."""
    large = large_files(weight_bytes, precisions)
    if large and (reason := _cannot_load_large(folder)):
        raise NotAvailable(
            f"ai-edge-litert {version('ai-edge-litert')} cannot load a file over 2 GB, as {', '.join(large)} would be "
            f"({reason}): leave it out, or install another version"
        )


def _cannot_load_large(folder: Path) -> str | None:
    """Run a file whose only weight lies behind byte 2^32. Return why LiteRT cannot run it, or None if it can.

    The file takes almost no disk space: the bytes before the weight are a hole.
    """
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=folder) as name:
        path = Path(name) / "large.tflite"
        weight = np.arange(1, 5, dtype="<f4")
        _write_large(path, weight)
        try:
            interpreter = open_interpreter(path)
            interpreter.allocate_tensors()
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ones(4, np.float32))
            interpreter.invoke()
            got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        except (ValueError, RuntimeError) as error:
            return one_line(error)
    return None if np.array_equal(got, 1 + weight) else f"it computes {got}, expected {1 + weight}"


def _write_large(path: Path, weight: Array) -> None:
    """Write a TFLite file that computes y = x + weight, with the weight behind byte 2^32."""
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
