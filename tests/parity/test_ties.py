"""An index counts as changed only where the number that it stands for is another one."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from backends.artifact import Artifact
from backends.bundle import Bundle, WeightsOrigin
from backends.tensor import Array, Binding, TensorSpec
from tests.foreign_graphs import onnx_artifact
from toolkit.parity.agreement import disagreements
from toolkit.parity.ties import Ties


def _written(path: Path, nodes: str, output: str) -> Path:
    """Write a graph in which two of six columns of scores are the same."""
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[4,8] x) => ({output} y) {{ {nodes} }}'
    model = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    weight[:, 4] = weight[:, 1]
    for name, array in (("w", weight), ("k", np.array([3]))):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(model, path)
    return path


def _artifact(path: Path, shape: tuple[int, ...]) -> Artifact:
    return onnx_artifact(path, TensorSpec("x", (4, 8), "float32", None), TensorSpec("y", shape, "int32", None))


@pytest.mark.parametrize(
    ("name", "axis", "keepdims", "shape"), [("ArgMax", 1, 0, (4,)), ("ArgMax", -1, 1, (4, 1)), ("ArgMin", 1, 0, (4,))]
)
def test_the_other_of_two_equal_scores_is_no_other_answer(
    tmp_path: Path, name: str, axis: int, keepdims: int, shape: tuple[int, ...]
) -> None:
    def disagree(other: str, last: int) -> tuple[str, ...]:
        choosing = f"{name}<axis = {axis}, keepdims = {keepdims}, select_last_index = "
        output = f"int32[{','.join(map(str, shape))}]"
        source = _written(tmp_path / "a.onnx", f"s = MatMul(x, w) i = {choosing}0>(s) y = Cast<to = 6>(i)", output)
        path = _written(
            tmp_path / "b.onnx", f"s = MatMul(x, w) n = {other}(s) i = {choosing}{last}>(n) y = Cast<to = 6>(i)", output
        )
        parent, artifact = _artifact(source, shape), _artifact(path, shape)
        weights = WeightsOrigin("checkpoint", "0" * 64, "a.onnx")
        bundle = Bundle(tmp_path, {"name": "a", "kind": "tensor"}, weights, (parent,))
        return disagreements(bundle, source, parent, path, artifact)

    assert disagree("Identity", 1) == ()
    assert disagree("Neg", 0)


def test_the_indices_of_a_top_k_are_settled_where_their_values_are_the_same(tmp_path: Path) -> None:
    nodes = "scores = MatMul(x, w) values, y = TopK<axis = 1, sorted = 1>(scores, k)"
    path = _written(tmp_path / "a.onnx", nodes, "int64[4,3]")
    ties = Ties.of(path, [Binding.same(TensorSpec("y", (4, 3), "int64", None))])
    assert ties is not None
    x = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    scores = x @ numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    expected = {"y": np.argsort(-scores, axis=1, kind="stable")[:, :3]}
    assert {1, 4} <= set(expected["y"].flat)
    swapped = {"y": np.choose(np.isin(expected["y"], (1, 4)), [expected["y"], 5 - expected["y"]])}
    other = {"y": expected["y"][:, ::-1].copy()}
    outside = {"y": np.full((4, 3), 99)}
    settled = ties.settle({"x": x}, expected, [swapped, other, outside])
    np.testing.assert_array_equal(settled[0]["y"], expected["y"])
    assert not np.array_equal(settled[1]["y"], expected["y"])
    np.testing.assert_array_equal(settled[2]["y"], outside["y"])


def test_a_graph_without_indices_has_no_ties(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.onnx", "s = MatMul(x, w) y = Cast<to = 7>(s)", "int64[4,6]")
    assert Ties.of(path, [Binding.same(TensorSpec("y", (4, 6), "int64", None))]) is None
    assert Ties.of(tmp_path / "unread.onnx", [Binding.same(TensorSpec("y", (4, 6), "float32", None))]) is None


def test_boxes_of_the_same_score_are_the_same_choice(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1,4,4] b, float[1,2,4] s) => (int64[n,3] y)
        <int64 k = {2}> { y = NonMaxSuppression(b, s, k) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "a.onnx")
    ties = Ties.of(tmp_path / "a.onnx", [Binding.same(TensorSpec("y", (4, 3), "int64", None))])
    assert ties is not None
    b = np.array([[[n, n, n + 1, n + 1] for n in range(0, 8, 2)]], np.float32)
    feeds = {"b": b, "s": np.array([[[0.5, 0.9, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4]]], np.float32)}
    expected = {"y": np.array([[0, 0, 1], [0, 0, 0], [0, 1, 3], [0, 1, 2]])}
    other = {"y": np.array([[0, 0, 1], [0, 0, 3], [0, 1, 3], [0, 1, 0], [-1, -1, -1]])}
    (settled,) = ties.settle(feeds, expected, [other])
    np.testing.assert_array_equal(settled["y"], [[0, 0, 1], [0, 0, 0], [0, 1, 3], [0, 1, 0], [-1, -1, -1]])


def _gathering(path: Path) -> Path:
    """Write a graph that gathers rows of `x` by the three largest of eight scores, of which two are the same."""
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1,8] s, float[8,4] x)
        => (int64[1,3] i, float[1,3,4] rows, int64[1,3] twice) {
        v, i = TopK(s, k) rows = Gather(x, i) twice = Add(i, i)
    }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(np.array([3]), "k"))
    onnx.save(model, path)
    return path


def _rows_by(index: list[int], x: Array) -> dict[str, Array]:
    chosen = np.array([index])
    return {"i": chosen, "rows": x[chosen], "twice": 2 * chosen}


# Of the range of the scores: one tenth of _ALIKE and ten of it, _NEAR less a fifth and twice _NEAR.
@pytest.mark.parametrize(
    ("apart", "same", "near"), [(1e-6, True, True), (1e-4, False, True), (8e-3, False, True), (2e-2, False, False)]
)
def test_rows_are_held_to_those_of_the_chosen_index_where_its_score_is_near(
    tmp_path: Path, apart: float, same: bool, near: bool
) -> None:
    ties = Ties.of(_gathering(tmp_path / "a.onnx"), [Binding.same(TensorSpec("i", (1, 3), "int64", None))])
    assert ties is not None
    s = np.array([[0.0, 0.1, 1.0, 0.1, 0.8, 0.8 - apart, 0.2, 0.3]], np.float32)
    x = np.random.default_rng(2).normal(size=(8, 4)).astype(np.float32)
    expected, got = _rows_by([2, 4, 5], x), _rows_by([2, 5, 4], x)
    wrong = {**got, "rows": got["rows"] + np.float32(0.5)}
    right, off = ties.settle({"s": s, "x": x}, expected, [got, wrong])
    assert np.array_equal(right["i"], expected["i"]) == same
    assert np.array_equal(right["twice"], expected["twice"]) == near
    assert (np.abs(right["rows"] - expected["rows"]).max() < 1e-6) == near
    assert np.allclose(off["rows"] - expected["rows"], 0.5) == near


@pytest.mark.parametrize(("apart", "same"), [(5e-7, True), (5e-6, False)])
def test_scores_that_are_all_nearly_one_number_are_the_same_but_for_rounding(
    tmp_path: Path, apart: float, same: bool
) -> None:
    ties = Ties.of(_gathering(tmp_path / "a.onnx"), [Binding.same(TensorSpec("i", (1, 3), "int64", None))])
    assert ties is not None
    s = np.full((1, 8), 1.0, np.float32)
    s[0, 5] -= np.float32(apart)
    expected, got = (_rows_by(index, np.zeros((8, 4), np.float32)) for index in ([0, 1, 2], [5, 1, 2]))
    (settled,) = ties.settle({"s": s, "x": np.zeros((8, 4), np.float32)}, expected, [got])
    assert np.array_equal(settled["i"], expected["i"]) == same
