"""Attentions over maps that are too large to be there at once."""

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from graphs.onnx.readers import static_shape
from graphs.onnx.rewriting import state_shapes
from graphs.passes.attention import split_queries
from graphs.passes.pipeline import prepare, run_once
from tests.graphs.passes.test_passes import exported_once, operators

HEADS, SIDE, FEATURES = 2, 4, 3
TOKENS = SIDE * SIDE
SCORES_BYTES = 4 * HEADS * TOKENS**2


def _attention(text: str, outputs: str = "y") -> ir.Model:
    proto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 20]>
    g (float[1,{HEADS},{TOKENS},{FEATURES}] q, float[1,{HEADS},{FEATURES},{TOKENS}] k,
       float[1,{HEADS},{TOKENS},{FEATURES}] v, float[{TOKENS}] mask,
       float[1,{HEADS},{SIDE},{SIDE},{SIDE}] rows, float[1,{HEADS},{SIDE},{SIDE},{SIDE}] columns)
    => ({", ".join(f"float[a,b,c,d] {name}" for name in outputs.split())})
    <int64[4] flat = {{1, {HEADS}, {TOKENS}, {TOKENS}}}, int64[1] last = {{5}}, int64[1] before = {{4}},
     float scale = {{0.5}}>
    {{ {text} }}"""
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


_POSITIONS = """scores = MatMul(q, k)
tall = Unsqueeze(rows, last)
wide = Unsqueeze(columns, before)
both = Add(tall, wide)
bias = Reshape(both, flat)
biased = Add(scores, bias)
weights = Softmax<axis = -1>(biased)
y = MatMul(weights, v)"""
_MASKED = """scaled = Mul(q, scale)
scores = MatMul(scaled, k)
masked = Add(scores, mask)
weights = Softmax<axis = 3>(masked)
y = MatMul(weights, v)"""


def _feeds() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    grid = (1, HEADS, SIDE, SIDE, SIDE)
    shapes = {
        "q": (1, HEADS, TOKENS, FEATURES),
        "k": (1, HEADS, FEATURES, TOKENS),
        "v": (1, HEADS, TOKENS, FEATURES),
        "mask": (TOKENS,),
        "rows": grid,
        "columns": grid,
    }
    return {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("text", [_POSITIONS, _MASKED], ids=["positions", "mask"])
@pytest.mark.parametrize("parts", [2, 4])
def test_no_value_has_the_scores_of_all_queries_and_the_results_are_the_same(text: str, parts: int) -> None:
    model = _attention(text)
    expected = run_once(model, _feeds(), "before")["y"]
    model, changed = split_queries(model, SCORES_BYTES // parts)
    assert changed
    np.testing.assert_allclose(run_once(model, _feeds(), "after")["y"], expected, rtol=1e-6, atol=1e-6)
    state_shapes(model)
    shapes = [static_shape(value) for node in model.graph for value in node.outputs]
    assert max(4 * np.prod(shape) for shape in shapes if shape is not None) <= SCORES_BYTES // parts
    assert None not in shapes
    assert sum(node.op_type == "Softmax" for node in model.graph) == parts


def test_scores_within_the_limit_stay_one_map() -> None:
    assert not split_queries(_attention(_POSITIONS), SCORES_BYTES)[1]


@pytest.mark.parametrize(("heads", "parts"), [(8, 1), (9, 2), (12, 2), (17, 4)])
def test_scores_are_split_from_128_mib_on(heads: int, parts: int) -> None:
    side = 2048  # one head's scores are 16 MiB, and 17 heads' would not fit the limit in 2 parts
    text = f"""<ir_version: 10, opset_import: ["": 20]>
    g (float[1,{heads},{side},4] q, float[1,{heads},4,{side}] k, float[1,{heads},{side},4] v)
    => (float[1,{heads},{side},4] y)
    {{ scores = MatMul(q, k)
       weights = Softmax<axis = -1>(scores)
       y = MatMul(weights, v) }}"""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    model, changed = split_queries(model)
    assert changed == (parts > 1)
    assert operators(model)["Softmax"] == parts


def test_scores_that_something_else_reads_are_made_whole_and_split() -> None:
    model = _attention(_MASKED, outputs="y masked")
    expected = run_once(model, _feeds(), "before")
    model, changed = split_queries(model, SCORES_BYTES // 2)
    assert changed
    got = run_once(model, _feeds(), "after")
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-6, atol=1e-6)


def test_a_network_computes_the_same_a_few_queries_at_a_time() -> None:
    exported = exported_once("videoseal-0.0-tiny")
    model, _ = prepare(exported.copy(), exported.feeds)
    before = operators(model)["Softmax"]
    model, changed = split_queries(model, limit_bytes=4096)
    assert changed
    assert operators(model)["Softmax"] > before
    exported.check(model, "split")


def test_scores_of_three_axes_are_split_along_the_queries() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[2,6,3] q, float[2,3,7] k, float[2,7,5] v) => (float[2,6,5] y)
    { scores = MatMul(q, k)
      weights = Softmax(scores)
      y = MatMul(weights, v) }"""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    random = np.random.default_rng(0)
    shapes = {"q": (2, 6, 3), "k": (2, 3, 7), "v": (2, 7, 5)}
    feeds = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    expected = run_once(model, feeds, "before")["y"]
    model, changed = split_queries(model, 4 * 2 * 6 * 7 // 2)
    assert changed
    np.testing.assert_array_equal(run_once(model, feeds, "after")["y"], expected)
    state_shapes(model)
    softmaxes = [static_shape(node.outputs[0]) for node in model.graph if node.op_type == "Softmax"]
    assert softmaxes == [(2, 3, 7)] * 2


def test_a_softmax_over_the_queries_is_computed_whole() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[2,6] gates, float[2,6,7] scores, float[2,7,5] v) => (float[2,6,5] y)
    <int64[1] last = {2}>
    { shares = Softmax(gates)
      tall = Unsqueeze(shares, last)
      scaled = Mul(scores, tall)
      weights = Softmax(scaled)
      y = MatMul(weights, v) }"""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    random = np.random.default_rng(0)
    shapes = {"gates": (2, 6), "scores": (2, 6, 7), "v": (2, 7, 5)}
    feeds = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    expected = run_once(model, feeds, "before")["y"]
    model, changed = split_queries(model, 4 * 2 * 6 * 7 // 2)
    assert changed
    np.testing.assert_array_equal(run_once(model, feeds, "after")["y"], expected)
