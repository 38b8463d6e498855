"""What an attention multiplies and adds beside its linear layers is part of these, where nothing else reads it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphs.passes.linear import fold_scale
from graphs.passes.norm import fold_norm
from graphs.passes.pipeline import run_once
from tests.graphs.passes.test_passes import operators

# Two heads of 4 channels over 6 tokens. BETWEEN makes `tokens` of `norm`; SCALED makes `q` of `heads`.
_ATTENTION = """<ir_version: 10, opset_import: ["": 20]>
g (float[1,2,3,8] x) => (float[2,6,4] y OUTPUTS)
<float[8] gamma, float[8] beta, float[8,8] wq, float[8] bq, float[8,8] wk, float[8] bk, float[8,8] wv, float[8] bv,
 int64[2] rows, int64[3] apart, int64[4] map, int64[8] pads, float scale = {0.35}> {
  norm = LayerNormalization <axis = -1> (x, gamma, beta)
  BETWEEN
  flat = Reshape(tokens, rows)
  queries = Gemm <transB = 1> (flat, wq, bq)
  keys = Gemm <transB = 1> (flat, wk, bk)
  values = Gemm <transB = 1> (flat, wv, bv)
  q3 = Reshape(queries, apart)
  k3 = Reshape(keys, apart)
  v3 = Reshape(values, apart)
  heads = Transpose <perm = [1, 0, 2]> (q3)
  v = Transpose <perm = [1, 0, 2]> (v3)
  k = Transpose <perm = [1, 2, 0]> (k3)
  q = SCALED
  scores = MatMul(q, k)
  weights = Softmax(scores)
  y = MatMul(weights, v)
  MORE
}"""
_WINDOWS = "tokens = Transpose <perm = [0, 2, 1, 3]> (norm)"


def attention(
    between: str = _WINDOWS, scaled: str = "Mul(heads, scale)", more: str = "", outputs: str = ""
) -> ir.Model:
    text = _ATTENTION
    for name, value in {"BETWEEN": between, "SCALED": scaled, "MORE": more, "OUTPUTS": outputs}.items():
        text = text.replace(name, value)
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(0)
    fixed = {"rows": [-1, 8], "apart": [6, 2, 4], "map": [1, 2, 3, 8], "pads": [0, 0, 0, 0, 0, 0, 0, 0]}
    del proto.graph.initializer[:]
    weights = {
        name: (8, 8) if name.startswith("w") else (8,) for name in ["gamma", "beta", "wq", "bq", "wk", "bk", "wv", "bv"]
    }
    values = {name: random.standard_normal(size, dtype=np.float32) for name, size in weights.items()}
    values |= {name: np.array(sizes) for name, sizes in fixed.items()} | {"scale": np.float32(0.35)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in values.items())
    return ir.from_proto(proto)


def check_same(before: ir.Model, after: ir.Model) -> None:
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 2, 3, 8), dtype=np.float32)}
    expected, got = run_once(before, feeds, "before"), run_once(after, feeds, "after")
    assert list(got) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, atol=1e-5)


@pytest.mark.parametrize("between", [_WINDOWS, "tokens = Reshape(norm, map)", "tokens = Identity(norm)"])
def test_a_norm_is_plain_where_only_linear_layers_read_it(between: str) -> None:
    model, changed = fold_norm(attention(between))
    assert changed == ("Identity" not in between)
    (norm,) = (node for node in model.graph if node.op_type == "LayerNormalization")
    scale = norm.inputs[1]
    assert scale is not None
    assert scale.const_value is not None
    assert (scale.const_value.numpy() == 1).all() == changed
    assert len(norm.inputs) == (2 if changed else 3)
    check_same(attention(between), model)


@pytest.mark.parametrize(
    ("between", "more", "outputs"),
    [
        ("tokens = Transpose <perm = [0, 3, 1, 2]> (norm)", "", ""),  # channels are no longer last
        ("tokens = Pad(norm, pads)", "", ""),  # what fills the border was zero, and would be -beta / gamma
        (_WINDOWS, "z = Relu(norm)", ", float[1,2,3,8] z"),
        (_WINDOWS, "z = Identity(tokens)", ", float[1,3,2,8] z"),
    ],
)
def test_a_norm_stays_where_something_else_sees_it(between: str, more: str, outputs: str) -> None:
    before = attention(between, more=more, outputs=outputs)
    model, changed = fold_norm(before)
    assert not changed
    check_same(attention(between, more=more, outputs=outputs), model)


@pytest.mark.parametrize("scaled", ["Mul(heads, scale)", "Mul(scale, heads)", "Div(heads, scale)"])
def test_the_scale_of_an_attention_is_part_of_its_queries(scaled: str) -> None:
    model, changed = fold_scale(attention(scaled=scaled))
    assert changed
    assert operators(model)["Mul"] + operators(model)["Div"] == 0
    check_same(attention(scaled=scaled), model)


def test_queries_that_are_read_unscaled_as_well_leave_it_to_the_keys() -> None:
    model, changed = fold_scale(attention(more="z = Relu(heads)", outputs=", float[2,6,4] z"))
    assert changed
    assert operators(model)["Mul"] == 0
    check_same(attention(more="z = Relu(heads)", outputs=", float[2,6,4] z"), model)


@pytest.mark.parametrize(
    ("more", "outputs"),
    [
        ("z = Relu(heads)\n t = Relu(k)", ", float[2,6,4] z, float[2,4,6] t"),  # both sides are read by others
        ("z = Relu(heads)\n t = Relu(q)", ", float[2,6,4] z, float[2,6,4] t"),  # the scaled map too
    ],
)
def test_a_scale_stays_where_it_has_nowhere_to_go(more: str, outputs: str) -> None:
    model, changed = fold_scale(attention(more=more, outputs=outputs))
    assert not changed
    assert operators(model)["Mul"] == 1


@pytest.mark.parametrize("scaled", ["Div(scale, heads)", "Mul(heads, heads)"])
def test_what_is_no_factor_is_left_alone(scaled: str) -> None:
    assert not fold_scale(attention(scaled=scaled))[1]


def test_a_scaled_layer_keeps_its_dtype() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float16[2,4] x) => (float16[2,4] y) <float16[4,4] w, float16[4] b, float16 scale> {
      h = Gemm <transB = 1> (x, w, b)
      s = Mul(h, scale)
      y = Relu(s)
    }"""
    proto = onnx.parser.parse_model(text)
    del proto.graph.initializer[:]
    values = {"w": np.ones((4, 4), np.float16), "b": np.ones(4, np.float16), "scale": np.float16(0.5)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in values.items())
    model, changed = fold_scale(ir.from_proto(proto))
    assert changed
    (gemm,) = (node for node in model.graph if node.op_type == "Gemm")
    for value in gemm.inputs[1:]:
        assert value is not None
        assert value.const_value is not None
        assert value.const_value.numpy().dtype == np.float16
        assert (value.const_value.numpy() == 0.5).all()
