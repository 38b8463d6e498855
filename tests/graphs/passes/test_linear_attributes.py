"""Every rewrite that meets a Gemm keeps what it computes, whatever its alpha, beta, transA and transB are."""

from collections.abc import Callable
from itertools import product

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from backends.precision import RECIPES
from graphs.onnx.readers import read_linear
from graphs.passes.attention import split_qkv
from graphs.passes.linear import fold_affine, fold_scale, matmul_to_gemm, plain_gemm
from graphs.passes.lowering import split_large_gemm
from graphs.passes.norm import fold_norm
from graphs.passes.pipeline import prepare, run_once
from toolkit.convert.quantize.onnx import quantize_model

# Twelve rows of twelve values: transA turns the rows into columns, and the shapes fit either way.
SIZE = 12
Rewrite = Callable[[ir.Model], tuple[ir.Model, bool]]

_AROUND = {
    "plain": ("flat = Reshape(x, rows)", "y = Relu(out)"),
    "shifted": ("shifted = Add(x, shift)\n flat = Reshape(shifted, rows)", "y = Relu(out)"),
    "normed": ("normed = LayerNormalization(x, scale, shift)\n flat = Reshape(normed, rows)", "y = Relu(out)"),
    "scaled": ("flat = Reshape(x, rows)", "map = Reshape(out, apart)\n large = Mul(map, factor)\n y = Relu(large)"),
    "split": (
        "flat = Reshape(x, rows)",
        "q, k, v = Split<axis = -1>(out, sizes)\n qk = Add(q, k)\n y = Add(qk, v)",
    ),
    "gathered": (
        "flat = Reshape(x, rows)",
        "parts = Reshape(out, heads)\n turned = Transpose<perm = [2, 0, 3, 1, 4]>(parts)\n y = Gather(turned, second)",
    ),
}


def _model(around: str, attributes: str) -> ir.Model:
    before, after = _AROUND[around]
    text = f"""<ir_version: 10, opset_import: ["": 20]>
    g (float[3,4,{SIZE}] x) => (float[a] y)
    <int64[2] rows = {{{SIZE}, {SIZE}}}, int64[3] apart = {{3, 4, {SIZE}}}, int64[5] heads = {{3, 4, 3, 2, 2}},
     int64[3] sizes = {{4, 4, 4}}, int64 second = {{1}}, float factor = {{3.0}}>
    {{ {before}
       out = Gemm<{attributes}>(flat, w, b)
       {after} }}"""
    proto = onnx.parser.parse_model(text)
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    random = np.random.default_rng(0)
    for name, sizes in {"w": (SIZE, SIZE), "b": (SIZE,), "scale": (SIZE,), "shift": (SIZE,)}.items():
        values = random.standard_normal(sizes, dtype=np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def _run(model: ir.Model) -> np.ndarray:
    feeds = {"x": np.random.default_rng(1).standard_normal((3, 4, SIZE), dtype=np.float32)}
    return run_once(model, feeds, "the graph")["y"]


ATTRIBUTES = [
    f"alpha = {alpha}, beta = {beta}, transA = {trans_a}, transB = {trans_b}"
    for alpha, beta, trans_a, trans_b in product((1.0, 0.5), (1.0, -2.0), (0, 1), (0, 1))
]
PLAIN = "alpha = 1.0, beta = 1.0, transA = 0, transB = 1"


def _split_small(model: ir.Model) -> tuple[ir.Model, bool]:
    return split_large_gemm(model, 300)


# By rewrite: the graph that it is for, and what a plain Gemm there shows of it.
REWRITES: dict[str, tuple[Rewrite, str]] = {
    "fold_affine of a shift": (fold_affine, "shifted"),
    "fold_affine of a norm": (fold_affine, "normed"),
    "fold_norm": (fold_norm, "normed"),
    "fold_scale": (fold_scale, "scaled"),
    "split_qkv of a Split": (split_qkv, "split"),
    "split_qkv of a Gather": (split_qkv, "gathered"),
    "split_large_gemm": (_split_small, "plain"),
}


@pytest.mark.parametrize("name", REWRITES)
def test_a_plain_gemm_is_rewritten(name: str) -> None:
    rewrite, around = REWRITES[name]
    assert rewrite(_model(around, PLAIN))[1]


@pytest.mark.parametrize("attributes", ATTRIBUTES)
@pytest.mark.parametrize("name", REWRITES)
def test_a_gemm_computes_the_same_after_each_rewrite(name: str, attributes: str) -> None:
    rewrite, around = REWRITES[name]
    expected = _run(_model(around, attributes))
    got = _run(rewrite(_model(around, attributes))[0])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("attributes", ATTRIBUTES)
@pytest.mark.parametrize("around", _AROUND)
def test_a_gemm_computes_the_same_after_all_passes(around: str, attributes: str) -> None:
    expected = _run(_model(around, attributes))
    got = _run(prepare(_model(around, attributes), {}, stepwise=False)[0])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("attributes", ATTRIBUTES)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_quantized_gemm_computes_nearly_the_same(precision: str, attributes: str) -> None:
    expected = _run(_model("plain", attributes))
    got = _run(quantize_model(_model("plain", attributes), RECIPES[precision]))
    assert np.abs(got - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("attributes", ATTRIBUTES)
def test_every_gemm_of_a_constant_becomes_plain_and_is_quantized(attributes: str) -> None:
    expected = _run(_model("plain", attributes))
    model, changed = plain_gemm(_model("plain", attributes))
    assert changed == (attributes != PLAIN)
    (gemm,) = [node for node in model.graph if node.op_type == "Gemm"]
    assert read_linear(gemm).is_plain  # type: ignore[union-attr]  # its weight is constant
    np.testing.assert_allclose(_run(model), expected, rtol=1e-5, atol=1e-5)
    quantized = quantize_model(model, RECIPES["int8"])
    assert "MatMulInteger" in {node.op_type for node in quantized.graph}
    assert np.abs(_run(quantized) - expected).max() < 0.03 * np.abs(expected).max()


def test_a_bias_that_is_computed_keeps_its_factor() -> None:
    model = _model("plain", "alpha = 0.5, beta = -2.0, transA = 1")
    sign = ir.node("Neg", [model.graph.initializers["b"]], outputs=[ir.Value(name="computed")])
    model.graph.insert_before(model.graph[0], sign)
    (gemm,) = [node for node in model.graph if node.op_type == "Gemm"]
    gemm.replace_input_with(2, sign.outputs[0])
    expected = _run(model.clone())
    model, changed = plain_gemm(model)
    assert changed
    np.testing.assert_allclose(_run(model), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rewrite", [fold_affine, fold_norm])
@pytest.mark.parametrize("attributes", [text for text in ATTRIBUTES if text != PLAIN])
def test_a_norm_stays_whole_before_a_gemm_that_is_not_plain(rewrite: Rewrite, attributes: str) -> None:
    model, changed = rewrite(_model("normed", attributes))
    assert not changed
    (norm,) = [node for node in model.graph if node.op_type == "LayerNormalization"]
    assert len(norm.inputs) == 3


@pytest.mark.parametrize("beta", [1.0, -2.0])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("around", ["split", "gathered"])
def test_the_parts_of_a_joint_layer_are_scaled_as_it_is(around: str, alpha: float, beta: float) -> None:
    model, changed = split_qkv(_model(around, f"alpha = {alpha}, beta = {beta}, transB = 1"))
    assert changed
    parts = [node for node in model.graph if node.op_type == "Gemm"]
    assert len(parts) == (3 if around == "split" else 1)
    for part in parts:
        got = [part.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
        assert got == [alpha, beta]


def test_a_product_of_two_maps_becomes_no_linear_layer() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[2,3] x, float[3,4] w) => (float[2,4] y) { y = MatMul(x, w) }"""
    assert not matmul_to_gemm(ir.from_proto(onnx.parser.parse_model(text)))[1]
