"""Each pass keeps what the reference computed, does what it is for, and a pass that does not is stopped."""

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.errors import InvalidArtifact
from backends.tensor import Array
from graphs.export import build_loaded, export
from graphs.onnx.readers import static_shape
from graphs.onnx.rewriting import add_constant
from graphs.passes.activation import erf_to_gelu
from graphs.passes.linear import fold_affine, matmul_to_gemm
from graphs.passes.norm import layer_norm_over_channels, shorten_grn
from graphs.passes.pipeline import prepare, run_once, run_pass
from graphs.passes.positions import join_relative_positions
from graphs.passes.registry import GraphPass, passes
from tests.seal_tiny import EMBEDDER_NAME, NAMES, spec, tensors, weights

GOLDENS = [*NAMES, EMBEDDER_NAME]
TOLERANCE = 2e-5  # as the torch modules are held to


class Exported:
    """A tiny network as the exporter wrote it, with the reference's inputs and outputs. Copies are free to change."""

    def __init__(self, name: str, most: int | None = None) -> None:
        role = "embedder" if name == "videoseal-embedder-tiny" else "detector"
        model = "videoseal-1.0-tiny" if role == "embedder" else name
        golden = tensors(name)
        graph = spec(model).graph(role)
        image = golden["outputs/resized"] if role == "embedder" else golden["inputs/image"]
        image = image[:most]
        self.feeds = {"image": image.numpy()}
        if role == "embedder":
            self.feeds["message"] = golden["inputs/message"].float().numpy()
        self.output = graph.outputs[0].name
        self.expected = golden[f"outputs/{self.output}"][:most].numpy()
        module = build_loaded(graph, weights(model).states[role])
        self._proto = ir.to_proto(export(module, graph, batch=len(image)))

    def copy(self) -> ir.Model:
        return ir.from_proto(self._proto)

    def check(self, model: ir.Model, what: str) -> None:
        got = run_once(model, self.feeds, what)
        np.testing.assert_allclose(got[self.output], self.expected, atol=TOLERANCE, rtol=0, err_msg=what)


@cache
def exported_once(name: str) -> Exported:
    return Exported(name)


@pytest.fixture(params=GOLDENS)
def exported(request: pytest.FixtureRequest) -> Exported:
    return exported_once(request.param)


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def test_every_pass_keeps_the_golden(exported: Exported) -> None:
    exported.check(exported.copy(), "as exported")
    model = exported.copy()
    for step in passes("export"):
        alone, _ = step.run(exported.copy())
        exported.check(alone, f"{step.name} alone")
        model, changed = run_pass(step, model)
        untold = [v.name for node in model.graph for v in node.outputs if v.type is None or static_shape(v) is None]
        assert not (changed and untold), f"{step.name}: tensors whose shape the next pass cannot read"
        exported.check(model, f"up to {step.name}")
    again, changed = prepare(model, exported.feeds)
    assert set(changed) <= {"simplify"}, "a second run of the passes finds nothing more to rewrite"
    exported.check(again, "prepared twice")
    lowered, _ = prepare(again, exported.feeds, passes("lowering"))
    exported.check(lowered, "prepared and about to be lowered")
    assert not set(prepare(lowered, exported.feeds, passes("lowering"))[1]), "nothing more to split"


def test_the_prepared_graph_has_no_operator_that_a_runtime_runs_badly(exported: Exported) -> None:
    model, changed = prepare(exported.copy(), exported.feeds)
    found = operators(model)
    assert not {"Erf", "ReduceL2", "Constant", "Identity", "BatchNormalization"} & set(found)
    for node in model.graph:
        if node.op_type == "MatMul":  # a matrix for each row of a grid is no linear layer
            ranks = [len(v.shape) for v in node.inputs if v is not None and v.is_initializer() and v.shape]
            assert all(rank > 2 for rank in ranks)
    if exported.output == "logits":
        assert "matmul_to_gemm" in changed


def test_linear_layers_become_one_gemm_with_its_bias() -> None:
    exported = exported_once("videoseal-1.0-tiny")
    before = operators(exported.copy())
    model, changed = matmul_to_gemm(exported.copy())
    after = operators(model)
    assert changed
    assert before["MatMul"] == 10
    assert (after["MatMul"], after["Gemm"] - before["Gemm"]) == (0, 10)
    assert before["Add"] - after["Add"] == 10


def test_the_affine_parts_of_a_convnext_move_into_its_linear_layers() -> None:
    exported = exported_once("videoseal-1.0-tiny")
    blocks = 5
    before, _ = matmul_to_gemm(exported.copy())
    short, changed = shorten_grn(before)
    assert changed
    adds = operators(short)["Add"]
    model, changed = fold_affine(short)
    assert changed
    assert adds - operators(model)["Add"] == blocks, "each GRN's beta is part of a bias now"
    norms = [node for node in model.graph if node.op_type == "LayerNormalization"]
    assert len(norms) == blocks
    for norm in norms:
        scale = norm.inputs[1]
        assert scale is not None
        assert scale.const_value is not None
        assert (scale.const_value.numpy() == 1).all()
        assert len(norm.inputs) == 2
    exported.check(model, "folded")


def test_layer_norms_over_channels_become_one_operator_between_transposes() -> None:
    exported = exported_once("videoseal-1.0-tiny")
    before = operators(exported.copy())
    model, changed = layer_norm_over_channels(exported.copy())
    after = operators(model)
    assert changed
    # The stem's, three downsamplings' and the decoder's.
    assert after["LayerNormalization"] - before["LayerNormalization"] == 5
    assert after["Transpose"] - before["Transpose"] == 10
    assert before["Sqrt"] - after["Sqrt"] == 5
    exported.check(model, "layer norms")


def test_an_attention_is_three_linear_layers_and_two_products() -> None:
    exported = exported_once("videoseal-0.0-tiny")
    before = operators(exported.copy())
    model, changed = prepare(exported.copy(), exported.feeds)
    found = operators(model)
    blocks = before["Softmax"]
    sizes = [shape[-1] for node in model.graph if node.op_type == "Softmax" if (shape := node.outputs[0].shape)]
    windowed = sizes.count(min(sizes))
    assert 0 < windowed < blocks == len(sizes)
    assert {"split_qkv", "join_relative_positions"} <= set(changed)
    assert before["Einsum"] == 2 * blocks
    assert {"einsum_to_matmul"} <= set(changed), "the whole grid of this tiny one is wider than its features"
    assert found["Einsum"] == 0
    assert found["MatMul"] == 4 * blocks, "scores, values, and the positions by row and by column"
    assert "Gather" not in found
    places = [name for name in model.graph.initializers if name.startswith("places.")]
    assert len(places) == 1, "one for all windows"


@pytest.mark.parametrize(("features", "joined"), [(8, True), (7, False)])
def test_positions_are_joined_while_they_are_no_more_than_the_features(features: int, joined: bool) -> None:
    side, tokens = 4, 16
    text = f"""<ir_version: 10, opset_import: ["": 20]>
    g (float[1,2,{tokens},{features}] q, float[1,2,{features},{tokens}] k) => (float[1,2,{tokens},{tokens}] y)
    <int64[5] grid = {{1, 2, {side}, {side}, {features}}}, int64[4] flat = {{1, 2, {tokens}, {tokens}}},
     int64[1] last = {{5}}, int64[1] before = {{4}}>
    {{
      maps = Reshape(q, grid)
      rows = Einsum<equation = "bnhwc,hkc->bnhwk">(maps, by_row)
      columns = Einsum<equation = "bnhwc,wkc->bnhwk">(maps, by_column)
      tall = Unsqueeze(rows, last)
      wide = Unsqueeze(columns, before)
      both = Add(tall, wide)
      bias = Reshape(both, flat)
      scores = MatMul(q, k)
      y = Add(scores, bias)
    }}"""
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(0)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(random.standard_normal((side, side, features), dtype=np.float32), name)
        for name in ("by_row", "by_column")
    )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    shapes = {"q": (1, 2, tokens, features), "k": (1, 2, features, tokens)}
    feeds = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    expected = run_once(model, feeds, "before")["y"]
    model, changed = join_relative_positions(model)
    assert changed == joined
    np.testing.assert_allclose(run_once(model, feeds, "after")["y"], expected, atol=1e-5)


def test_between_two_linear_layers_nothing_is_reshaped_but_a_row() -> None:
    exported = Exported("videoseal-1.0-tiny", most=1)  # as models are shipped: one image at a time
    model, changed = prepare(exported.copy(), exported.feeds)
    exported.check(model, "prepared")
    assert "keep_rows" in changed
    for node in model.graph:
        if node.op_type == "Reshape" and (source := node.inputs[0]) is not None and (made := source.producer()):
            assert made.op_type != "Gelu", "GELU leaves a matrix for the Gemm that reads it"
        if node.op_type == "ReduceSum":
            (summed,) = (value for value in node.inputs if value is not None and not value.is_initializer())
            assert summed.shape is not None
            assert len(summed.shape) == 2, "rows of a matrix are what is summed quickly"


_AFFINE = """<ir_version: 10, opset_import: ["": 20]>
g (float[1,2,3,4] x) => (float[6,5] y, SECOND) <float[SHIFT] shift, int64[2] rows = {6, 4}, float[5,4] w, float[5] b> {
  shifted = Add(x, shift)
  flat = Reshape(shifted, rows)
  y = Gemm<transB = 1>(flat, w, b)
  second = Relu(SOURCE)
}"""


@pytest.mark.parametrize(
    ("shift", "source", "folds"),
    [("4", "x", True), ("1,1,1,4", "x", True), ("3,4", "x", False), ("1", "x", False), ("4", "shifted", False)],
)
def test_only_a_shift_a_channel_that_nothing_else_reads_is_folded(shift: str, source: str, folds: bool) -> None:
    random = np.random.default_rng(0)
    text = _AFFINE.replace("SHIFT", shift).replace("SECOND", "float[1,2,3,4] second").replace("SOURCE", source)
    proto = onnx.parser.parse_model(text)
    del proto.graph.initializer[:]
    sizes = {"shift": tuple(map(int, shift.split(","))), "w": (5, 4), "b": (5,)}
    values = {name: random.standard_normal(size, dtype=np.float32) for name, size in sizes.items()}
    values["rows"] = np.array([6, 4])
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in values.items())
    feeds = {"x": random.standard_normal((1, 2, 3, 4), dtype=np.float32)}
    model = ir.from_proto(proto)
    expected = run_once(model, feeds, "before")
    model, changed = fold_affine(model)
    assert changed == folds
    assert operators(model)["Add"] == (0 if folds else 1)
    got = run_once(model, feeds, "after")
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, atol=1e-5)


_ERF = """<ir_version: 10, opset_import: ["": 20]>
g (float[2,3] x) => (float[2,3] y)
<float root = {1.4142135}, float inverse = {0.70710677}, float half = {0.5}, float one = {1.0}> {
  scaled = SCALED
  e = Erf(scaled)
  factor = FACTOR
  PRODUCT
}"""


@pytest.mark.parametrize("scaled", ["Div(x, root)", "Mul(x, inverse)", "Mul(inverse, x)"])
@pytest.mark.parametrize("factor", ["Add(e, one)", "Add(one, e)"])
@pytest.mark.parametrize(
    "product",
    [
        "h = Mul(x, half)\n y = Mul(h, factor)",
        "h = Mul(half, x)\n y = Mul(factor, h)",
        "h = Mul(x, factor)\n y = Mul(half, h)",
        "h = Mul(factor, half)\n y = Mul(x, h)",
    ],
)
def test_every_way_to_write_gelu_becomes_one_operator(scaled: str, factor: str, product: str) -> None:
    text = _ERF.replace("SCALED", scaled).replace("FACTOR", factor).replace("PRODUCT", product)
    feeds = {"x": np.linspace(-4, 4, 6, dtype=np.float32).reshape(2, 3)}
    model = ir.from_proto(onnx.parser.parse_model(text))
    expected = run_once(model, feeds, "before")
    model, changed = erf_to_gelu(model)
    assert changed
    assert operators(model) == {"Gelu": 1}
    np.testing.assert_allclose(run_once(model, feeds, "after")["y"], expected["y"], atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [("half = {0.5}", "half = {0.4}"), ("1.4142135", "1.5"), ('"": 20', '"": 17')])
def test_what_only_looks_like_gelu_stays(old: str, new: str) -> None:
    text = _ERF.replace("SCALED", "Div(x, root)").replace("FACTOR", "Add(e, one)")
    text = text.replace("PRODUCT", "h = Mul(x, half)\n y = Mul(h, factor)").replace(old, new)
    model, changed = erf_to_gelu(ir.from_proto(onnx.parser.parse_model(text)))
    assert not changed
    assert operators(model)["Erf"] == 1


def _linear(shape: tuple[int, ...], features: int, bias: bool, random: np.random.Generator) -> ir.Model:
    sizes = ",".join(map(str, shape))
    outputs = ",".join(map(str, (*shape[:-1], features)))
    body = "m = MatMul(x, w)\n y = Add(b, m)" if bias else "y = MatMul(x, w)"
    text = f"""<ir_version: 10, opset_import: ["": 20]> g (float[{sizes}] x) => (float[{outputs}] y) {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    constants: dict[str, Array] = {"w": random.standard_normal((shape[-1], features), dtype=np.float32)}
    if bias:
        constants["b"] = random.standard_normal(features, dtype=np.float32)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    return ir.from_proto(proto)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=5).map(tuple),
    features=st.integers(1, 9),
    bias=st.booleans(),
    seed=st.integers(0, 9),
)
def test_gemm_computes_what_matmul_did_on_any_shape(
    shape: tuple[int, ...], features: int, bias: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    model = _linear(shape, features, bias, random)
    feeds = {"x": random.standard_normal(shape, dtype=np.float32)}
    expected = run_once(model, feeds, "before")["y"]
    model, changed = matmul_to_gemm(model)
    assert changed
    assert operators(model)["Gemm"] == 1
    assert not {"MatMul", "Add"} & set(operators(model))
    np.testing.assert_allclose(run_once(model, feeds, "after")["y"], expected, atol=1e-5)


def test_layers_that_share_a_weight_share_its_transpose() -> None:
    model = _linear((1, 3, 5), 5, False, np.random.default_rng(0))
    (first,) = model.graph
    second = ir.node("MatMul", [first.outputs[0], first.inputs[1]], name="second")
    second.outputs[0].name, second.outputs[0].type, second.outputs[0].shape = (
        "z", first.outputs[0].type, first.outputs[0].shape
    )  # fmt: skip
    model.graph.append(second)
    model.graph.outputs[0] = second.outputs[0]
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 3, 5), dtype=np.float32)}
    expected = run_once(model, feeds, "before")["z"]
    model, _ = matmul_to_gemm(model)
    gemms = [node for node in model.graph if node.op_type == "Gemm"]
    assert len(gemms) == 2
    assert gemms[0].inputs[1] is gemms[1].inputs[1]
    np.testing.assert_allclose(run_once(model, feeds, "after")["z"], expected, atol=1e-5)


def test_matmul_of_two_computed_maps_stays() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]> g (float[2,3,4] a, float[2,4,3] b) => (float[2,3,3] y)
    { y = MatMul(a, b) }"""
    assert not matmul_to_gemm(ir.from_proto(onnx.parser.parse_model(text)))[1]


def _scaled(by: float) -> Any:
    def run(model: ir.Model) -> tuple[ir.Model, bool]:
        bias = model.graph.initializers["pixel_decoder.linear.bias"]
        assert bias.const_value is not None
        bias.const_value = ir.tensor(bias.const_value.numpy() * np.float32(by), name=bias.name)
        return model, True

    return run


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (_scaled(1.1), r"pass broken: output 'logits' moved by .* of its range, at most 2\.0e-05"),
        (_scaled(float("nan")), "pass broken: output 'logits' became .* finite: False"),
    ],
)
def test_a_pass_that_changes_the_result_is_named(broken: Any, message: str) -> None:
    exported = exported_once("videoseal-1.0-tiny")
    with pytest.raises(InvalidArtifact, match=message):
        prepare(exported.copy(), exported.feeds, (GraphPass("broken", "export", 2e-5, (), broken),))


def test_a_pass_that_breaks_the_graph_is_named() -> None:
    def cut(model: ir.Model) -> tuple[ir.Model, bool]:
        model.graph.remove(next(iter(model.graph)))
        return model, True

    exported = exported_once("videoseal-1.0-tiny")
    with pytest.raises(InvalidArtifact, match=r"not a valid ONNX model|ONNX Runtime cannot run it"):
        prepare(exported.copy(), exported.feeds, (GraphPass("cut", "export", 1.0, (), cut),))


@pytest.mark.parametrize("stepwise", [True, False])
def test_a_constant_that_a_pass_leaves_behind_is_not_kept(stepwise: bool) -> None:
    def leave(model: ir.Model) -> tuple[ir.Model, bool]:
        add_constant(model.graph, "nobody's", np.zeros(9, np.float32))
        return model, True

    exported = exported_once("videoseal-1.0-tiny")
    model, changed = prepare(exported.copy(), exported.feeds, (GraphPass("leave", "export", 0.0, (), leave),), stepwise)
    assert changed == ("leave",)
    assert "nobody's" not in model.graph.initializers
    read = {value for node in model.graph for value in node.inputs}
    assert set(model.graph.initializers.values()) <= read


@pytest.mark.parametrize("name", ["videoseal-1.0-tiny"])
def test_without_a_comparison_after_each_step_the_same_passes_run(name: str) -> None:
    exported = exported_once(name)
    _, each = prepare(exported.copy(), exported.feeds)
    model, at_once = prepare(exported.copy(), exported.feeds, stepwise=False)
    assert at_once == each
    assert len(at_once) > 1
    assert operators(model) == operators(prepare(exported.copy(), exported.feeds)[0])
