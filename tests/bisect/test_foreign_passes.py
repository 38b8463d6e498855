"""A graph of somebody else's is rewritten before it is lowered; bisect still finds its tensors, and faults behind them.

Each pass that only foreign graphs need is on the way of one branch.
"""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from backends.bundle import Bundle
from graphs.onnx.part import named_values, read_with_shapes
from graphs.passes.registry import find_pass
from graphs.tflite.graph import Graph, Payload, read_graph, read_payload
from graphs.tflite.writer import write_graph
from tests.bisect.foreign import foreign
from tests.bisect.small import replaced
from tests.deadly import FLOAT32
from toolkit.bisect.bundle import bisect_bundle

# By pass: the tensors whose operators it rewrites, and a layer with weights behind them.
BRANCHES = {
    "scale_elu": (("elu",), "elu_out"),
    "write_out_lp_norm": (("lp",), "lp_out"),
    "write_out_log_softmax": (("logs",), "logs_out"),
    "keep_small_bounds": (("bound",), "bound_out"),
    "widen_small_integers": (("small_sum", "small"), "small_out"),
    "slice_uneven_splits": (("left", "right"), "split_right"),
    "pin_io_layout": (("axes_out", "channels_out"), "axes_out"),
}
NORMED = (("normed",), "normed_out")
FILE = "model.fp32.tflite"
# Between two float32 runs of one layer: sums of at most 36 products, each rounded to 24 bits.
ROUNDING = 36 * 2.0**-24


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return foreign(tmp_path)


@pytest.mark.parametrize("name", BRANCHES)
def test_each_pass_rewrites_this_graph(bundle: Bundle, name: str) -> None:
    model = ir.load(bundle.folder / "model.onnx")
    made = {value.name: node for node in model.graph for value in node.outputs}
    before = {tensor: made[tensor] for tensor in BRANCHES[name][0]}
    _, changed = find_pass(name)(model)
    made = {value.name: node for node in model.graph for value in node.outputs}
    assert changed
    assert all(made[tensor] is not node for tensor, node in before.items())


def test_the_batch_norm_is_in_the_convolution_before_it(bundle: Bundle) -> None:
    operators = {node.op_type for node in onnx.load(bundle.folder / "model.onnx").graph.node}
    assert "BatchNormalization" not in operators
    assert {"Conv", "Elu", "LpNormalization", "Max", "Split"} <= operators


def test_every_tensor_is_a_layer_of_rounding_or_listed(bundle: Bundle) -> None:
    report = bisect_bundle(bundle, FILE)
    layers = {layer.tensor: layer for layer in report.layers}
    for rewritten, behind in (*BRANCHES.values(), NORMED):
        assert {*rewritten, behind} <= set(layers)
    listed = {one.tensor for one in report.unmatched}
    model = read_with_shapes(bundle.folder / "model.onnx")
    graph_inputs = {value.name for value in model.graph.inputs}
    assert layers.keys() | listed | graph_inputs == named_values(model).keys()
    assert not layers.keys() & listed
    assert all(one.why for one in report.unmatched)
    assert report.ranked()[0].introduced < ROUNDING


@pytest.mark.parametrize("culprit", [behind for _, behind in (*BRANCHES.values(), NORMED)])
def test_a_fault_behind_a_rewritten_operator_is_found_first(bundle: Bundle, culprit: str, tmp_path: Path) -> None:
    artifact = bundle.find("model", "tflite", "fp32")
    path = bundle.folder / artifact.file
    graph = read_graph(path)
    _double_weight(graph, culprit)
    write_graph(graph, tmp_path / FILE)
    (tmp_path / FILE).replace(path)
    report = bisect_bundle(replaced(bundle, artifact), FILE)
    first, second = report.ranked()[:2]
    # A dense layer leaves through a reshape, which then is a layer of its own.
    fed = {str(value.name) for value in _maker_of(bundle, culprit).inputs if value is not None}
    assert first.tensor in {culprit, *fed}
    assert first.introduced == pytest.approx(1.0, rel=0.2)
    assert second.introduced < ROUNDING


def _maker_of(bundle: Bundle, tensor: str) -> ir.Node:
    (node,) = (n for n in ir.load(bundle.folder / "model.onnx").graph if n.outputs[0].name == tensor)
    return node


def _double_weight(graph: Graph, held: str) -> None:
    """Of the operator that makes a tensor, or the nearest one before it that has a weight."""
    makers = {id(made): node for node in graph.nodes for made in node.outputs}
    waiting = [makers[id(one.tensor)] for one in graph.origins if one.name == held]
    while True:
        node = waiting.pop(0)
        for tensor in filter(None, node.inputs):
            if tensor.payload is not None and tensor.table.type == FLOAT32:
                values = np.frombuffer(read_payload(tensor.payload), "<f4") * 2
                tensor.payload = Payload(None, 0, values.nbytes, values.tobytes())
                return
            if id(tensor) in makers:
                waiting.append(makers[id(tensor)])
