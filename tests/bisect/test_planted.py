"""A fault that is planted into one layer of a file is found there, whatever it is and whatever the file's format."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.tensor import Array
from graphs.tflite.graph import Graph, Node, Payload, Tensor, read_graph, read_payload
from graphs.tflite.transposes import transpose
from graphs.tflite.writer import write_graph
from tests.bisect.small import replaced, small
from toolkit.bisect.bundle import bisect_bundle
from toolkit.bisect.result import BisectReport
from toolkit.metrics.error import LARGEST

# Between two float32 runs of one layer: sums of at most 72 products, each rounded to 24 bits.
FLOAT32_ROUNDING = 72 * 2.0**-24
# Weights in float16 are rounded to 11 bits.
FLOAT16_ROUNDING = 2.0**-11
# Eight bits for the weights and for what they meet: a step is 1/127 of the largest, which is at most 8 times the RMS.
INT8_ROUNDING = 2 * 8 / 127 / 12**0.5


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return small(tmp_path)


def _find(bundle: Bundle, format: str, precision: str) -> Artifact:
    return bundle.find("model", format, precision)


@pytest.mark.parametrize(
    ("format", "precision", "rounding"),
    [
        ("tflite", "fp32", FLOAT32_ROUNDING),
        ("tflite", "fp16", FLOAT16_ROUNDING),
        ("tflite", "int8", INT8_ROUNDING),
        ("onnx", "fp16", FLOAT16_ROUNDING),
        ("onnx", "int8", INT8_ROUNDING),
    ],
)
def test_a_healthy_file_has_no_layer_above_rounding(
    bundle: Bundle, format: str, precision: str, rounding: float
) -> None:
    report = bisect_bundle(bundle, _find(bundle, format, precision).file)
    assert {"stem", "mixed", "wide", "logits"} <= {layer.tensor for layer in report.layers}
    assert 0 < report.ranked()[0].introduced < rounding
    assert report.layers[-1].tensor == "logits"
    assert report.layers[-1].inherited < 4 * rounding


@dataclass(frozen=True)
class Fault:
    """What is done to a file, in which precision, and the tensor whose layer then is the culprit."""

    precision: str
    culprit: str
    plant: Callable[..., None]


def _maker(graph: Graph, held: str) -> Node:
    """The operator that makes the tensor which holds one of the network."""
    (tensor,) = [one.tensor for one in graph.origins if one.name == held]
    (node,) = [node for node in graph.nodes if any(output is tensor for output in node.outputs)]
    return node


def _weight(tensor: Tensor | None, dtype: str, change: Callable[[Array], Array]) -> None:
    assert tensor is not None
    assert tensor.payload is not None
    values = np.frombuffer(read_payload(tensor.payload), dtype).reshape(tensor.shape).copy()
    data = np.ascontiguousarray(change(values)).tobytes()
    tensor.payload = Payload(None, 0, len(data), data)


def _wrong_transpose(graph: Graph) -> None:
    """Rows and columns of the map that the second convolution reads change places."""
    node = _maker(graph, "mixed")
    source = node.inputs[0]
    assert source is not None
    turned = Tensor(copy.copy(source.table), None)
    turned.table.name = b"turned by mistake"
    graph.nodes.insert(graph.nodes.index(node), transpose(source, (0, 2, 1, 3), turned))
    node.inputs[0] = turned


def _wrong_padding(graph: Graph) -> None:
    """The border of the first convolution, one pixel on each side, lies on two sides only."""
    padded = _maker(graph, "stem").inputs[0]
    (pad,) = [node for node in graph.nodes if padded in node.outputs]
    _weight(pad.inputs[1], "<i4", lambda pads: np.array([[0, 0], [0, 2], [0, 2], [0, 0]], "<i4"))


def _doubled_scale(graph: Graph) -> None:
    weight = _maker(graph, "wide").inputs[1]
    assert weight is not None
    weight.table.quantization.scale = np.asarray(weight.table.quantization.scale) * 2


def _overflow(graph: Graph) -> None:
    """One weight is as float16 has what is larger than 65504."""
    expanded = _maker(graph, "wide").inputs[1]
    (dequantize,) = [node for node in graph.nodes if expanded in node.outputs]
    with np.errstate(over="ignore"):
        _weight(dequantize.inputs[0], "<f2", lambda w: np.where(w == w.max(), np.float32(1e5), w).astype("<f2"))


def _swapped_channels(graph: Graph) -> None:
    """The first convolution takes red for blue."""
    _weight(_maker(graph, "stem").inputs[1], "<f4", lambda weight: weight[..., ::-1])


TFLITE = {
    "a wrong transpose": Fault("fp32", "mixed", _wrong_transpose),
    "a wrong padding": Fault("fp32", "stem", _wrong_padding),
    "a scale off by 2": Fault("int8", "wide", _doubled_scale),
    "an overflow in float16": Fault("fp16", "wide", _overflow),
    "a swapped channel order": Fault("fp32", "stem", _swapped_channels),
}


@pytest.mark.parametrize("fault", TFLITE.values(), ids=TFLITE)
def test_a_fault_in_a_tflite_file_is_found_and_shown(bundle: Bundle, fault: Fault, tmp_path: Path) -> None:
    artifact = _find(bundle, "tflite", fault.precision)
    path = bundle.folder / artifact.file
    graph = read_graph(path)
    fault.plant(graph)
    write_graph(graph, tmp_path / artifact.file)
    (tmp_path / artifact.file).replace(path)
    _found(replaced(bundle, artifact), artifact.file, fault.culprit)


def _node(model: ir.Model, output: str) -> ir.Node:
    (node,) = [node for node in model.graph if node.outputs[0].name == output]
    return node


def _constant(value: ir.Value | None, change: Callable[[Array], Array]) -> None:
    assert value is not None
    assert value.const_value is not None
    value.const_value = ir.tensor(np.ascontiguousarray(change(value.const_value.numpy())), name=value.name)


def _wrong_transpose_node(model: ir.Model) -> None:
    node = _node(model, "mixed")
    turn = ir.node("Transpose", [node.inputs[0]], {"perm": [0, 1, 3, 2]}, name="turn")
    turn.outputs[0].name = "turned_by_mistake"
    model.graph.insert_before(node, turn)
    node.replace_input_with(0, turn.outputs[0])


def _wrong_padding_attribute(model: ir.Model) -> None:
    _node(model, "stem").attributes["pads"] = ir.AttrInt64s("pads", [0, 0, 2, 2])


def _doubled_scale_constant(model: ir.Model) -> None:
    _constant(model.graph.initializers["head.wide.weight_scale"], lambda scale: scale * 2)


def _overflowing_constant(model: ir.Model) -> None:
    with np.errstate(over="ignore"):
        _constant(
            model.graph.initializers["head.wide.weight_float16"],
            lambda w: np.where(w == w.max(), np.float32(1e5), w).astype(np.float16),
        )


def _swapped_channels_constant(model: ir.Model) -> None:
    _constant(_weights_of(model, "stem"), lambda weight: weight[:, ::-1])


def _weights_of(model: ir.Model, output: str) -> ir.Value | None:
    return _node(model, output).inputs[1]


# FP16 and INT8 leave convolutions as small as these in float32, so any of their files can have these faults.
ONNX = {
    "a wrong transpose": Fault("fp16", "mixed", _wrong_transpose_node),
    "a wrong padding": Fault("int8", "stem", _wrong_padding_attribute),
    "a scale off by 2": Fault("int8", "wide", _doubled_scale_constant),
    "an overflow in float16": Fault("fp16", "wide", _overflowing_constant),
    "a swapped channel order": Fault("fp16", "stem", _swapped_channels_constant),
}


@pytest.mark.parametrize("fault", ONNX.values(), ids=ONNX)
def test_a_fault_in_an_onnx_file_is_found_and_shown(bundle: Bundle, fault: Fault) -> None:
    artifact = _find(bundle, "onnx", fault.precision)
    path = bundle.folder / artifact.file
    model = ir.load(path)
    fault.plant(model)
    ir.save(model, path)
    _found(replaced(bundle, artifact), artifact.file, fault.culprit)


def _found(bundle: Bundle, file: str, culprit: str) -> None:
    """The culprit comes first, well before the others, and the repro shows the very same error by itself."""
    report = bisect_bundle(bundle, file)
    first, second = report.ranked()[:2]
    assert first.tensor == culprit
    assert first.introduced > 5 * second.introduced
    _shows(report)


def _shows(report: BisectReport) -> None:
    assert report.repro is not None
    script = Path(report.repro) / "repro.py"
    # -I: neither this project nor the folder it is called from can be imported.
    done = subprocess.run([sys.executable, "-I", script], capture_output=True, text=True, check=True, cwd="/")
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    first = report.ranked()[0]
    if first.introduced == LARGEST:
        assert int(lines["not finite"].split()[0]) > 0
    else:
        told = json.loads((Path(report.repro) / "layer.json").read_text())["introduced"]
        assert float(lines["difference over signal (RMS)"]) == pytest.approx(told, rel=1e-3)
        assert told >= first.introduced * (1 - 1e-6), "of the sample that shows it most, not of all together"
    assert first.tensor in done.stdout
    assert f"({report.weights.origin} weights)" in done.stdout
