"""The tensors of an ONNX graph are found in its TFLite file, also with integer inputs and with states."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from backends.tensor import TO_NHWC, Array
from graphs.tflite.tensor_map import Order, TensorLocation, _difference, map_tensors
from tests.shared import made_once
from toolkit.convert.converter import run_worker

_HEAD = '<ir_version: 10, opset_import: ["": 20]> g'
# onnx2tf keeps the input in 64 bits.
_TOKENS = """(int64[1,4] ids) => (float[1,5,2,2] y) <int64[4] sizes = {1, 8, 2, 2}> {
    x = Gather(table, ids)
    map = Reshape(x, sizes)
    inner = Conv<pads = [1, 1, 1, 1]>(map, w)
    bent = Relu(inner)
    y = Conv<pads = [1, 1, 1, 1]>(bent, v)
}"""
# onnx2tf writes the zeros that both start from as variables of the file.
_GRU = """(float[3,1,6] x) => (float[3,1,1,4] y) {
    z = Sigmoid(x)
    states, last = GRU<hidden_size = 4, linear_before_reset = 1>(z, w, r)
    y = Relu(states)
}"""
_LSTM = """(float[3,1,6] x) => (float[3,1,1,4] y) {
    z = Sigmoid(x)
    states, last, cell = LSTM<hidden_size = 4>(z, w, r)
    y = Relu(states)
}"""
# onnx2tf fuses the Relu into the Conv, and says of the fused tensor that it holds the Conv's values.
_FUSED = """(float[1,4,8,6] x) => (float[1,4,8,6] y) {
    inner = Conv<pads = [1, 1, 1, 1]>(x, w)
    bent = Relu(inner)
    other = Conv<pads = [1, 1, 1, 1]>(bent, v)
    y = Add(other, bent)
}"""
_GRAPHS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "tokens": (_TOKENS, {"table": (10, 8), "w": (5, 8, 3, 3), "v": (5, 5, 3, 3)}),
    "fused": (_FUSED, {"w": (4, 4, 3, 3), "v": (4, 4, 3, 3)}),
    "gru": (_GRU, {"w": (1, 12, 6), "r": (1, 12, 4)}),
    "lstm": (_LSTM, {"w": (1, 16, 6), "r": (1, 16, 4)}),
}


def _lower(folder: Path) -> None:
    """Write NAME.onnx, NAME.tflite and NAME.names of each graph."""
    rng = np.random.default_rng(0)
    models = {}
    for name, (text, weights) in _GRAPHS.items():
        model = onnx.parser.parse_model(_HEAD + text)
        for weight, shape in weights.items():
            values = rng.standard_normal(shape).astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, weight))
        for i, node in enumerate(model.graph.node):
            node.name = f"node{i}"
        onnx.save(onnx.shape_inference.infer_shapes(model), folder / f"{name}.onnx")
        models[name] = str(folder / f"{name}.onnx")
    made = run_worker({"task": "lower", "models": models}, folder, folder / "log", 300, lambda step: None).files
    for name in models:
        made[name].rename(folder / f"{name}.tflite")
        made[f"{name}.names"].rename(folder / f"{name}.names")


def _mapped(tmp_path: Path, name: str, known: dict[str, Order], feeds: dict[str, Array]) -> dict[str, TensorLocation]:
    """Map the tensors of a graph by the names that the lowering gave."""
    folder = shutil.copytree(made_once("mapped-graphs", _lower), tmp_path / "graphs")
    names = json.loads((folder / f"{name}.names").read_text(encoding="utf-8"))
    graph = onnx.load(folder / f"{name}.onnx").graph
    shapes = {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    return map_tensors(folder / f"{name}.onnx", folder / f"{name}.tflite", names, shapes, known, feeds)


def test_integers_are_given_to_the_file_in_the_size_that_it_has(tmp_path: Path) -> None:
    found = _mapped(tmp_path, "tokens", {"ids": None, "y": TO_NHWC}, {"ids": np.array([[1, 3, 5, 7]])})
    assert found["x"] == ("x", None)
    assert found["bent"][1] == TO_NHWC


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_a_state_that_the_file_keeps_is_not_missing(tmp_path: Path, name: str) -> None:
    x = np.random.default_rng(1).random((3, 1, 6), dtype=np.float32)
    found = _mapped(tmp_path, name, {"x": None, "y": None}, {"x": x})
    assert found["z"] == ("z", None)
    if name == "gru":
        assert found["states"][1] is None


def test_a_name_whose_tensor_holds_other_values_is_not_believed(tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((1, 4, 8, 6)).astype(np.float32)
    found = _mapped(tmp_path, "fused", {"x": TO_NHWC, "y": TO_NHWC}, {"x": x})
    assert "inner" not in found
    # Both are found before the TRANSPOSE that makes them channels first: the stitched file has none.
    assert found["bent"] == ("node2_input_nhwc", TO_NHWC)
    assert found["other"] == ("node2_output_nhwc", TO_NHWC)


@pytest.mark.parametrize("side", [8, 64])  # all values are compared, and some
def test_values_that_are_not_the_same_differ_by_far_more_than_rounding(side: int) -> None:
    values = np.random.default_rng(0).standard_normal((1, 40, side, side)).astype(np.float32)
    values[0, 0, 0, 0] = -np.inf
    stored = np.ascontiguousarray(values.transpose(TO_NHWC))
    assert _difference(stored, values, TO_NHWC) == 0
    assert 0 < _difference(stored * np.float32(1 + 1e-6), values, TO_NHWC) < 2e-6
    assert _difference(np.maximum(stored, 0), values, TO_NHWC) > 0.5
    assert _difference(values.reshape(stored.shape), values, TO_NHWC) > 1
    assert not _difference(np.full_like(stored, np.nan), values, TO_NHWC) <= 1e-3
