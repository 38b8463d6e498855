"""The passes that keep work on matrices: nothing is reshaped, split or summed in a shape that a runtime is slow in."""

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from graphs.onnx.readers import static_shape
from graphs.passes.attention import split_qkv
from graphs.passes.layout import keep_rows
from graphs.passes.norm import reduce_l2_to_sum
from graphs.passes.pipeline import run_once


def _joint(text: str) -> tuple[ir.Model, dict[str, np.ndarray]]:
    """A graph of one joint layer, 4 to 30 features, with drawn weights in the place of the text's; and an input."""
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(0)
    kept = [constant for constant in proto.graph.initializer if constant.name not in ("w", "b")]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    for name, size in {"w": (30, 4), "b": (30,)}.items():
        values = random.standard_normal(size, dtype=np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    return model, {"x": random.standard_normal((6, 4), dtype=np.float32)}


_QKV = """<ir_version: 10, opset_import: ["": 20]>
g (float[6,4] x) => (float[2,2,3,5] y)
<int64[5] heads = {2,3,3,2,5}, int64 part = {PART}, float[30,4] w, float[30] b> {
  flat = Gemm<transB = 1>(x, w, b)
  apart = Reshape(flat, heads)
  turned = Transpose<perm = [PERM]>(apart)
  y = Gather<axis = AXIS>(turned, part)
}"""


@pytest.mark.parametrize(
    ("part", "perm", "axis", "splits"),
    [
        (0, "2,0,3,1,4", 0, True),
        (2, "2,0,3,1,4", 0, True),
        (-1, "2,0,3,1,4", 0, True),
        (1, "0,3,2,1,4", 2, False),
    ],
)
def test_a_part_of_a_joint_layer_gets_a_layer_of_its_own(part: int, perm: str, axis: int, splits: bool) -> None:
    text = _QKV.replace("PART", str(part)).replace("PERM", perm).replace("AXIS", str(axis))
    model, feeds = _joint(text)
    expected = run_once(model, feeds, "before")["y"]
    model, changed = split_qkv(model)
    assert changed == splits
    assert ("Gather" not in {node.op_type for node in model.graph}) == splits
    np.testing.assert_allclose(run_once(model, feeds, "after")["y"], expected, atol=1e-5)


_SPLIT = """<ir_version: 10, opset_import: ["": 20]>
g (float[6,4] x) => (float[2,3,10] q, float[2,3,12] k, float[2,3,8] v, SECOND)
<int64[3] map = {2,3,30}, int64[3] sizes = {10,12,8}, float[30,4] w, float[30] b> {
  flat = Gemm<transB = 1>(x, w, b)
  whole = Reshape(flat, map)
  q, k, v = Split<axis = AXIS>(whole, sizes)
  second = Neg(SOURCE)
}"""


@pytest.mark.parametrize(("axis", "source", "splits"), [(-1, "v", True), (2, "k", True), (2, "whole", False)])
def test_so_does_a_part_that_is_split_off_the_last_axis(axis: int, source: str, splits: bool) -> None:
    second = {"v": "float[2,3,8] second", "k": "float[2,3,12] second", "whole": "float[2,3,30] second"}[source]
    text = _SPLIT.replace("AXIS", str(axis)).replace("SOURCE", source).replace("SECOND", second)
    model, feeds = _joint(text)
    expected = run_once(model, feeds, "before")
    model, changed = split_qkv(model)
    assert changed == splits
    assert [node.op_type for node in model.graph].count("Gemm") == (3 if splits else 1)
    got = run_once(model, feeds, "after")
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, atol=1e-5, err_msg=name)


_REDUCE = """<ir_version: 10, opset_import: ["": 20]>
g (float[SHAPE] x) => (float[OUTPUT] y) <int64[N] axes = {AXES}> { y = ReduceL2<keepdims = KEEP>(x, axes) }"""


@pytest.mark.parametrize(
    ("shape", "axes", "keepdims", "rank"),
    [
        ((1, 4, 5, 3), (1, 2), 1, 2),
        ((2, 4, 5, 3), (0, -3, 2), 1, 2),
        ((2, 4, 5, 3), (1, 2), 1, 4),
        ((1, 4, 5, 3), (2, 3), 1, 4),
        ((1, 4, 5, 3), (1, 2), 0, 4),
        ((1, 4, 5, 3), (1,), 1, 4),
    ],
)
def test_a_norm_over_all_but_the_last_axis_sums_the_rows_of_a_matrix(
    shape: tuple[int, ...], axes: tuple[int, ...], keepdims: int, rank: int
) -> None:
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    expected = np.sqrt((x.astype(np.float64) ** 2).sum(axis=axes, keepdims=bool(keepdims)))
    text = _REDUCE.replace("SHAPE", ",".join(map(str, shape))).replace("OUTPUT", ",".join(map(str, expected.shape)))
    text = text.replace("N]", f"{len(axes)}]").replace("AXES", ",".join(map(str, axes))).replace("KEEP", str(keepdims))
    model = ir.from_proto(onnx.parser.parse_model(text))
    model, changed = reduce_l2_to_sum(model)
    assert changed
    np.testing.assert_allclose(run_once(model, {"x": x}, "after")["y"], expected, rtol=1e-5)
    inferred = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model)))
    (summing,) = (node for node in inferred.graph if node.op_type == "ReduceSum")
    assert summing.inputs[0] is not None
    assert summing.inputs[0].shape is not None
    assert len(summing.inputs[0].shape) == rank


_ROWS = """<ir_version: 10, opset_import: ["": 20]>
g (float[6,4] x, float[SCALE] s) => (float[6,4] y, SECOND)
<int64[4] map = {1,2,3,4}, int64[2] rows = {6,4}> {
  wide = Reshape(x, map)
  scaled = Mul(wide, s)
  y = Reshape(scaled, rows)
  second = Neg(SOURCE)
}"""


@pytest.mark.parametrize(
    ("scale", "source", "moves"),
    [("1,1,1,4", "wide", True), ("4", "wide", True), ("1,1,3,1", "wide", False), ("1,1,1,4", "scaled", False)],
)
def test_only_a_factor_a_column_is_moved_onto_the_matrix(scale: str, source: str, moves: bool) -> None:
    text = _ROWS.replace("SCALE", scale).replace("SECOND", "float[1,2,3,4] second").replace("SOURCE", source)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    random = np.random.default_rng(0)
    sizes = tuple(map(int, scale.split(",")))
    feeds = {"x": random.standard_normal((6, 4), dtype=np.float32), "s": random.random(sizes, dtype=np.float32)}
    expected = run_once(model, feeds, "before")
    model, changed = keep_rows(model)
    assert changed == moves
    got = run_once(model, feeds, "after")
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value)


def test_a_factor_a_column_is_moved_where_it_is_reshaped_too() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[6,4] x, float[2,2] s) => (float[6,4] y)
    <int64[4] map = {1,2,3,4}, int64[4] row = {1,1,1,4}, int64[2] rows = {6,4}> {
      factors = Reshape(s, row)
      wide = Reshape(x, map)
      scaled = Mul(factors, wide)
      y = Reshape(scaled, rows)
    }"""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    random = np.random.default_rng(0)
    feeds = {"x": random.standard_normal((6, 4), dtype=np.float32), "s": random.random((2, 2), dtype=np.float32)}
    expected = run_once(model, feeds, "before")["y"]
    model, changed = keep_rows(model)
    assert changed
    np.testing.assert_array_equal(run_once(model, feeds, "after")["y"], expected)
    assert [list(static_shape(node.outputs[0]) or ()) for node in model.graph if node.op_type == "Mul"] == [[6, 4]]


@pytest.mark.parametrize(("rows", "moves"), [("24,10", True), ("2,4,30", False)])
def test_a_gelu_moves_before_the_reshape_of_a_matrix_alone(rows: str, moves: bool) -> None:
    """GroupNorm of a sound is a Reshape, a norm and a Reshape: behind the second stands a convolution."""
    text = f"""<ir_version: 10, opset_import: ["": 20]>
    g (float[{rows}] x) => (float[2,12,10] y) <int64[3] sizes = {{2,12,10}}> {{
        map = Reshape(x, sizes)
        y = Gelu(map)
    }}"""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    feeds = {"x": np.random.default_rng(0).standard_normal([int(n) for n in rows.split(",")], dtype=np.float32)}
    expected = run_once(model, feeds, "before")["y"]
    model, changed = keep_rows(model)
    assert changed == moves
    assert [node.op_type for node in model.graph] == (["Gelu", "Reshape"] if moves else ["Reshape", "Gelu"])
    np.testing.assert_array_equal(run_once(model, feeds, "after")["y"], expected)
