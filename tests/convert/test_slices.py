"""A graph is cut where little passes, every slice keeps to the limit, and all of them together are the graph."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from backends.errors import InvalidInput
from backends.tensor import Array
from graphs.onnx.file import save
from tests.seal_tiny import NAMES, exported
from toolkit.convert.slices import open_graph, plan, write_slice

LIMIT = 40_000


@pytest.fixture(params=NAMES)
def graph(request: pytest.FixtureRequest) -> Path:
    return exported(request.param).folder / "detector.onnx"


def _run(path: Path, feeds: dict[str, Array]) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def _weight_bytes(model: ir.Model) -> int:
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)


def test_slices_run_one_after_the_other_are_the_graph(graph: Path, tmp_path: Path) -> None:
    model = open_graph(graph)
    slices = plan(model, LIMIT)
    assert len(slices) > 2
    values = {"image": np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)}
    expected = _run(graph, values)
    for i, piece in enumerate(slices):
        assert piece.weight_bytes <= LIMIT
        (path,) = write_slice(model, piece, tmp_path / f"{i}.onnx")
        assert _weight_bytes(ir.load(path)) == piece.weight_bytes
        values |= _run(path, {name: values[name] for name in piece.inputs})
    np.testing.assert_allclose(values["logits"], expected["logits"], rtol=0, atol=1e-6)


def test_every_tensor_of_the_graph_keeps_its_name(graph: Path) -> None:
    names = [{str(v.name) for node in m.graph for v in node.outputs} for m in (ir.load(graph), open_graph(graph))]
    assert names[0] <= names[1], "a name that is free could be taken by another tensor"


def test_one_tensor_passes_where_one_can(graph: Path) -> None:
    pieces = plan(open_graph(graph), 2 * LIMIT)
    assert len(pieces) > 1
    for piece in pieces:
        assert (len(piece.inputs), len(piece.outputs)) == (1, 1)


def test_a_graph_under_the_limit_is_one_slice(graph: Path) -> None:
    (piece,) = plan(open_graph(graph), 1 << 30)
    assert (piece.inputs, piece.outputs) == (("image",), ("logits",))


def test_a_node_over_the_limit_is_named_with_the_limit_that_would_do(graph: Path) -> None:
    with pytest.raises(InvalidInput, match=r"node 'node_.*' alone has \d+ bytes of weights: expected a slice limit"):
        plan(open_graph(graph), 1000)


_WIDE = """<ir_version: 10, opset_import: ["": 20]>
g (float[1,4] x) => (float[1,4] early, float[1,4] y)
<float[4,4] a = {1,0,0,0, 0,2,0,0, 0,0,3,0, 0,0,0,4}, float[4,4] b = {1,2,3,4, 5,6,7,8, 9,10,11,12, 13,14,15,16}> {
  left = Gemm(x, a)
  early = Gemm(left, b)
  right = Gemm(x, b)
  shape = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>()
  sum = Add(left, right)
  more = Gemm(sum, a)
  y = Add(more, shape)
}"""


def test_several_tensors_pass_where_they_must(tmp_path: Path) -> None:
    import onnx.parser

    path = tmp_path / "wide.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(_WIDE)), path)
    model = open_graph(path)
    slices = plan(model, 80)
    # No constant passes, inputs and early outputs serve wherever they are wanted.
    assert [(piece.inputs, piece.outputs) for piece in slices] == [
        (("x",), ("left",)),
        (("left", "x"), ("sum", "early")),
        (("sum",), ("y",)),
    ]
    values = {"x": np.ones((1, 4), np.float32)}
    expected = _run(path, values)
    for i, piece in enumerate(slices):
        write_slice(model, piece, tmp_path / f"{i}.onnx")
        values |= _run(tmp_path / f"{i}.onnx", {name: values[name] for name in piece.inputs})
    for name, value in expected.items():
        np.testing.assert_array_equal(values[name], value)


def test_weights_beside_a_graph_are_read_slice_by_slice(graph: Path, tmp_path: Path) -> None:
    beside = tmp_path / "large.onnx"
    ir.save(ir.load(graph), beside, external_data="large.onnx.data", size_threshold_bytes=0)
    first, second = open_graph(graph), open_graph(beside)
    assert plan(first, LIMIT) == plan(second, LIMIT)
    kept = ir.load(beside).graph.initializers.keys()  # kernels that were split, and epsilons, are in memory
    values = [value for name, value in second.graph.initializers.items() if name in kept and value.uses()]
    assert len(values) > len(kept) / 2
    assert all(isinstance(value.const_value, ir.ExternalTensor) for value in values)
    for piece in plan(first, LIMIT):
        one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
        write_slice(first, piece, one), write_slice(second, piece, two)
        weights_of = [
            {name: value.const_value.numpy() for name, value in ir.load(path).graph.initializers.items()}
            for path in (one, two)
        ]
        np.testing.assert_equal(*weights_of)


def test_writing_again_gives_the_same_bytes(graph: Path, tmp_path: Path) -> None:
    model = open_graph(graph)
    piece = plan(model, LIMIT)[1]
    texts = {write_slice(model, piece, tmp_path / name)[0].read_bytes() for name in ("a.onnx", "b.onnx")}
    assert len(texts) == 1
    save(model, tmp_path / "whole.onnx")  # what was written left the graph itself as it was
    values = {"image": np.zeros((1, 3, 64, 64), np.float32)}
    whole, expected = _run(tmp_path / "whole.onnx", values), _run(graph, values)
    # The passes for lowering add up in another order.
    np.testing.assert_allclose(whole["logits"], expected["logits"], rtol=0, atol=1e-6)
