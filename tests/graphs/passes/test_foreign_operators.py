"""Operators that TFLite or its converter would get wrong, rewritten: the same results on ONNX Runtime."""

from collections.abc import Callable

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from backends.tensor import Array
from graphs.passes.activation import scale_elu, write_out_log_softmax
from graphs.passes.layout import pin_io_layout
from graphs.passes.lowering import keep_small_bounds, slice_uneven_splits, widen_small_integers
from graphs.passes.norm import write_out_lp_norm
from graphs.passes.pipeline import run_once

Rewrite = Callable[[ir.Model], tuple[ir.Model, bool]]


def _model(text: str) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def _both(rewrite: Rewrite, model: ir.Model, feeds: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    expected = run_once(model, feeds, "before")
    names = [output.name for output in model.graph.outputs]
    model, changed = rewrite(model)
    assert changed
    assert [output.name for output in model.graph.outputs] == names
    return run_once(model, feeds, "after"), expected


@pytest.mark.parametrize(
    ("operator", "dtype"),
    [
        (operator, dtype)
        for operator in ("Add", "Sub", "Mul", "Max", "Div")
        for dtype in ("int8", "uint8", "int16")
        if (operator, dtype) != ("Max", "int16")  # ONNX Runtime has no such kernel to compare with
    ],
)
def test_small_integers_wrap_around_as_before(operator: str, dtype: str) -> None:
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    feeds = {name: rng.integers(limits.min, limits.max, (64,), dtype, endpoint=True) for name in "ab"}
    feeds["b"][feeds["b"] == 0] = 1
    feeds["b"][feeds["b"] == -1] = 2  # -128 / -1 is what C leaves open
    model = _model(f"({dtype}[64] a, {dtype}[64] b) => ({dtype}[64] y) {{ y = {operator}(a, b) }}")
    got, expected = _both(widen_small_integers, model, feeds)
    np.testing.assert_array_equal(got["y"], expected["y"])
    assert got["y"].dtype == dtype


def test_a_comparison_of_small_integers_stays_one_of_booleans() -> None:
    feeds = {"a": np.array([-128, -1, 0, 127], np.int8), "b": np.array([127, -1, 1, -128], np.int8)}
    got, expected = _both(
        widen_small_integers, _model("(int8[4] a, int8[4] b) => (bool[4] y) { y = Greater(a, b) }"), feeds
    )
    np.testing.assert_array_equal(got["y"], expected["y"])


def test_a_value_between_small_operators_keeps_its_type_for_others() -> None:
    text = """(int8[4] a) => (int8[4] y, float[4] z)
    { s = Add(a, a)  y = Neg(s)  z = Cast<to = 1>(s) }"""
    feeds = {"a": np.array([-100, -1, 7, 127], np.int8)}
    got, expected = _both(widen_small_integers, _model(text), feeds)
    for name in ("y", "z"):
        np.testing.assert_array_equal(got[name], expected[name])


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_a_scaled_elu_is_the_same(alpha: float) -> None:
    x = np.concatenate([np.linspace(-8, 8, 63), [0]]).astype(np.float32)
    got, expected = _both(
        scale_elu, _model(f"(float[64] x) => (float[64] y) {{ y = Elu<alpha = {alpha}>(x) }}"), {"x": x}
    )
    np.testing.assert_allclose(got["y"], expected["y"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("p", [1, 2])
def test_a_norm_that_is_written_out_is_the_same_and_leaves_zeros(axis: int, p: int) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    x[:, 1] = x[0] = x[:, :, 2] = 0
    text = f"(float[3,4,5] x) => (float[3,4,5] y) {{ y = LpNormalization<axis = {axis}, p = {p}>(x) }}"
    got, expected = _both(write_out_lp_norm, _model(text), {"x": x})
    np.testing.assert_allclose(got["y"], expected["y"], rtol=1e-5, atol=1e-7)
    assert (got["y"][0] == 0).all()


@pytest.mark.parametrize(("of", "axis"), [("2,4,5", 1), ("3,4,5", 0), ("1,4,6,6", 1), ("1,4,6,6", -2), ("7", -1)])
def test_a_log_softmax_that_is_written_out_is_the_same_and_finite(of: str, axis: int) -> None:
    x = np.random.default_rng(0).standard_normal(tuple(map(int, of.split(",")))).astype(np.float32) * 1e3
    text = f"(float[{of}] x) => (float[{of}] y) {{ y = LogSoftmax<axis = {axis}>(x) }}"
    got, expected = _both(write_out_log_softmax, _model(text), {"x": x})
    assert (expected["y"] < -1000).any()
    np.testing.assert_allclose(got["y"], expected["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("more", ["<axis = 1>(x, sizes)", "<axis = -1, num_outputs = 3>(x)"])
def test_an_uneven_split_is_slices(more: str) -> None:
    text = f"""(float[2,7] x) => (float[2,a] p, float[2,b] q, float[2,c] r)
    <int64[3] sizes = {{3, 3, 1}}> {{ p, q, r = Split{more} }}"""
    model = _model(text)
    x = np.arange(14, dtype=np.float32).reshape(2, 7)
    got, expected = _both(slice_uneven_splits, model, {"x": x})
    assert [got[name].shape for name in "pqr"] == [(2, 3), (2, 3), (2, 1)]
    for name in "pqr":
        np.testing.assert_array_equal(got[name], expected[name])


def test_an_output_of_five_axes_leaves_as_it_is() -> None:
    x = np.random.default_rng(0).random((1, 2, 3, 4, 5), np.float32)
    text = "(float[1,2,3,4,5] x) => (float[1,2,3,4,5] y) { y = Sqrt(x) }"
    got, expected = _both(pin_io_layout, _model(text), {"x": x})
    np.testing.assert_array_equal(got["y"], expected["y"])


def test_an_output_with_a_row_of_channels_leaves_as_it_is() -> None:
    x = np.random.default_rng(0).random((2, 3, 5), np.float32)
    text = "(float[2,3,5] x) => (float[2,3,5] y) { s = MaxPool<kernel_shape = [1]>(x) y = Neg(s) }"
    got, expected = _both(pin_io_layout, _model(text), {"x": x})
    np.testing.assert_array_equal(got["y"], expected["y"])


@pytest.mark.parametrize(
    "text",
    [
        "(float[2,6,5] x) => (float[2,5,6] y) { t = Transpose<perm = [0,2,1]>(x) y = Relu(t) }",
        "(float[2,6,5] x) => (float[2,5,6] y) { r = Relu(x) y = Transpose<perm = [0,2,1]>(r) }",
        "(float[2,6,5,3] x) => (float[2,3,6,5] y) { t = Transpose<perm = [0,3,1,2]>(x) e = Exp(t) y = Neg(e) }",
        "(float[2,6,5] x, float[2,2,5] q) => (float[2,2,6] y) { t = Transpose<perm = [0,2,1]>(x) y = MatMul(q, t) }",
    ],
    ids=["before a map", "last", "of four axes", "of an input, into a product"],
)
def test_axes_that_are_turned_at_the_rim_of_a_graph_come_and_leave_as_stated(text: str) -> None:
    model = _model(text)
    rng = np.random.default_rng(0)
    feeds = {str(v.name): rng.random(tuple(map(int, v.shape or ())), np.float32) for v in model.graph.inputs}
    got, expected = _both(pin_io_layout, model, feeds)
    np.testing.assert_array_equal(got["y"], expected["y"])
    assert sum(node.op_type == "Reshape" for node in model.graph) == 2


@pytest.mark.parametrize("bounded", ["Max(x, tiny)", "Max(tiny, x)", "Clip(x, tiny)", "Clip(x, tiny, most)"])
def test_a_tiny_bound_stays_one(bounded: str) -> None:
    text = f"(float[8] x) => (float[8] y) <float tiny = {{1e-12}}, float most = {{0.5}}> {{ y = {bounded} }}"
    x = np.array([-1, -1e-13, 0, 1e-13, 1e-12, 1e-6, 0.4, 3], np.float32)
    got, expected = _both(keep_small_bounds, _model(text), {"x": x})
    np.testing.assert_array_equal(got["y"], expected["y"])
    assert got["y"][2] == np.float32(1e-12)


@pytest.mark.parametrize(
    ("rewrite", "text"),
    [
        (widen_small_integers, "(int32[4] a) => (int32[4] y) { y = Add(a, a) }"),
        (widen_small_integers, "(int8[4] a) => (int8[4] y) { y = Identity(a) }"),
        (keep_small_bounds, "(float[4] a, float[4] b) => (float[4] y) { y = Max(a, b) }"),
        (keep_small_bounds, "(float[4] a) => (float[4] y) <float c = {0}, float d = {6}> { y = Clip(a, c, d) }"),
        (scale_elu, "(float[4] a) => (float[4] y) { y = Elu(a) }"),
        (slice_uneven_splits, "(float[4] a) => (float[2] y, float[2] z) { y, z = Split<num_outputs = 2>(a) }"),
        (pin_io_layout, "(float[1,2,3,4] a) => (float[1,2,3,4] y) { y = Sqrt(a) }"),
        (pin_io_layout, "(float[1,5,3] a) => (float[1,5,3] y) { y = Sqrt(a) }"),
        (pin_io_layout, "(float[2,3] a) => (float[2,3] y) { y = Sqrt(a) }"),
        (pin_io_layout, "(float[2,3] a) => (float[3,2] y) { t = Transpose<perm = [1,0]>(a) y = Sqrt(t) }"),
        (pin_io_layout, "(float[2,4,3] a) => (float[3,4,2] y) { t = Transpose<perm = [2,1,0]>(a) y = Sqrt(t) }"),
    ],
)
def test_what_is_lowered_right_stays(rewrite: Rewrite, text: str) -> None:
    assert not rewrite(_model(text))[1]
