"""Nodes that compute a weight from large weights alone are replaced by the weight."""

from pathlib import Path

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from backends.tensor import Array
from graphs.onnx.sizes import infer_shapes
from graphs.passes.simplify import compute_weights, simplify

# As torch's exporter reorders the gates of an LSTM, and as it writes a layer with weight_norm.
_GATES = """a = Slice(w, zero, half, zero) b = Slice(w, half, end, zero)
    c = Concat<axis = 0>(b, a) y = MatMul(x, c)"""
_NORM = """square = ReduceL2<keepdims = 1>(w, zero) unit = Div(w, square) v = Mul(unit, gain) y = MatMul(x, v)"""
_PARTS = """a, b = Split<axis = 0, num_outputs = 2>(w) c = Concat<axis = 0>(b, a) y = MatMul(x, c)"""


def _model(nodes: str) -> ir.Model:
    text = f'<ir_version: 8, opset_import: ["": 18]> g (float[2,256] x) => (float[2,n] y) {{ {nodes} }}'
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, array in {
        "w": rng.normal(size=(256, 128)).astype(np.float32),
        "gain": rng.random(128, np.float32),
        "zero": np.array([0]), "half": np.array([128]), "end": np.array([256]), "four": np.array([4, 256, 128]),
        "scale": np.array(0.1, np.float32), "bytes": rng.integers(-128, 127, (256, 512), np.int8),
    }.items():  # fmt: skip
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return infer_shapes(ir.from_proto(proto))


def _run(model: ir.Model) -> Array:
    x = np.random.default_rng(1).normal(size=(2, 256)).astype(np.float32)
    (y,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    return np.asarray(y)


@pytest.mark.parametrize("nodes", [_GATES, _NORM, _PARTS], ids=["gates", "weight norm", "parts"])
def test_a_weight_takes_the_place_of_the_nodes_that_compute_it(nodes: str) -> None:
    model = _model(nodes)
    before = _run(model)
    model, changed = compute_weights(model)
    assert changed
    assert [node.op_type for node in model.graph] == ["MatMul"]
    np.testing.assert_allclose(_run(model), before, rtol=1e-6, atol=1e-5)
    assert compute_weights(model)[1] is False


@pytest.mark.parametrize(
    "nodes",
    [
        "v = Relu(gain) y = Mul(x, one)".replace("one", "scale"),
        "many = Expand(w, four) y = MatMul(x, many)",
        "v = DequantizeLinear(bytes, scale) y = MatMul(x, v)",
        "m = MatMul(x, w) y = Relu(m)",
    ],
    ids=["small", "larger than its inputs", "quantized", "of an input"],
)
def test_other_nodes_stay(nodes: str) -> None:
    model = _model(nodes)
    before = [node.op_type for node in model.graph]
    model, changed = compute_weights(model)
    assert not changed
    assert [node.op_type for node in model.graph] == before


def test_a_weight_is_computed_in_a_branch_that_onnxsim_takes() -> None:
    branch = f"<then_branch = t () => (float[2,n] t) {{ {_GATES.replace('y =', 't =')} }}, "
    branch += "else_branch = e () => (float[2,128] e) { e = MatMul(x, w) }>"
    model = _model(f"axes = Shape(x) rank = Size(axes) is_image = Equal(rank, four) y = If(is_image) {branch}")
    model.graph.initializers["four"].const_value = ir.tensor(np.array(2))
    before = _run(model)
    model, changed = simplify(model)
    assert changed
    assert [node.op_type for node in model.graph] == ["MatMul"]
    np.testing.assert_allclose(_run(model), before, rtol=1e-6, atol=1e-5)


def test_the_weight_is_written_with_the_graph(tmp_path: Path) -> None:
    model, _ = compute_weights(_model(_GATES))
    ir.save(model, tmp_path / "m.onnx")
    np.testing.assert_array_equal(_run(ir.load(tmp_path / "m.onnx")), _run(model))
