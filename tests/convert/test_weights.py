"""The types of a file's weights are read from both formats, and a file that a precision does not change is refused."""

from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import toolkit
from backends.errors import NotAvailable
from backends.precision import FP32, INT8, MIXED
from toolkit.convert.weights import StoredWeights, check_changed, mostly_float, shares, stored_weights

_POCKETSEAL = Path(toolkit.__file__).parent / "bundles" / "pocketseal"


@pytest.mark.parametrize(
    ("file", "dtype", "least"),
    [
        ("detector.onnx", "float32", 1.0),
        ("detector.fp32.tflite", "float32", 1.0),
        ("detector.fp16.onnx", "float16", 0.96),
        ("detector.fp16.tflite", "float16", 0.98),
        ("detector.int8.onnx", "int8", 0.91),
        ("detector.int8.tflite", "int8", 0.91),
    ],
)
def test_most_weights_have_the_type_of_the_precision(file: str, dtype: str, least: float) -> None:
    found = shares(stored_weights(_POCKETSEAL / file))
    assert found[0][0] == dtype
    assert least <= found[0][1] < least + 0.01
    assert sum(share for _, share in found) == pytest.approx(1)


def test_both_formats_of_a_graph_have_as_many_weights() -> None:
    graph, lowered = (stored_weights(_POCKETSEAL / f"detector.{end}") for end in ("onnx", "fp32.tflite"))
    assert lowered.total() == pytest.approx(graph.total(), rel=0.02)


def test_constants_of_nodes_and_of_subgraphs_count_and_sizes_do_not(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[4,4] x, bool sure) => (float[16] y) <int64[1] flat = {16}> {
        w = Constant<value = float[2,2] {1, 2, 3, 4}>()
        h = Pad<mode = "reflect">(x, w)
        z = If(sure)<
            then_branch = yes () => (float[4,4] a) <float[4,4] part> { a = Add(x, part) },
            else_branch = no () => (float[4,4] b) { b = Identity(x) }
        >
        y = Reshape(z, flat)
    }"""
    model = onnx.parser.parse_model(text)
    branch = model.graph.node[2].attribute[0].g
    branch.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4), np.float16), "part"))
    onnx.save(model, tmp_path / "model.onnx")
    assert stored_weights(tmp_path / "model.onnx") == {("float32", "Pad"): 16, ("float16", "Add"): 32}


def test_operators_that_keep_more_than_half_of_the_bytes_are_named() -> None:
    weights = StoredWeights({("float32", "GATHER"): 60, ("float32", "ADD"): 41, ("int8", "FULLY_CONNECTED"): 100})
    assert mostly_float(INT8, weights) == ("GATHER (60 bytes)", "ADD (41 bytes)")
    assert mostly_float(INT8, weights + StoredWeights({("int8", "CONV_2D"): 1})) == ()
    assert (
        mostly_float(INT8, StoredWeights({("float16", "ADD"): 9, ("float32", "ADD"): 2, ("int8", "CONV_2D"): 1})) == ()
    )
    assert mostly_float(FP32, StoredWeights({("float32", "GATHER"): 1, ("int8", "FULLY_CONNECTED"): 100})) == ()


def test_what_a_precision_does_not_change_is_refused_with_the_operators_to_blame() -> None:
    weights = StoredWeights({("float32", "CONV_3D"): 500, ("float32", "ADD"): 20, ("float16", "GATHER"): 1})
    message = r"int8 is impossible here: all weights belong to CONV_3D \(500 bytes\), ADD \(20 bytes\), GATHER"
    with pytest.raises(NotAvailable, match=message):
        check_changed("model.int8.tflite", INT8, weights)
    check_changed("model.int8.tflite", INT8, weights + StoredWeights({("int8", "CONV_2D"): 1}))
    check_changed("model.fp32.tflite", FP32, weights)
    check_changed("model.mixed.tflite", MIXED, weights)  # a recipe file may keep every layer
