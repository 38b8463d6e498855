"""The number types in which a file computes are read from both formats, with the runtimes' own rules of fusing."""

from pathlib import Path

import numpy as np
import onnx.parser
import pytest

import toolkit
from toolkit.convert.operations import computed_operations, number_types

_POCKETSEAL = Path(toolkit.__file__).parent / "bundles" / "pocketseal"
_HEAD = '<ir_version: 10, opset_import: ["": 20]> g'


@pytest.mark.parametrize(
    ("file", "in_int8"),
    [
        ("detector.onnx", 0.0),
        ("detector.fp32.tflite", 0.0),
        ("detector.fp16.onnx", 0.0),  # stored in float16, and computed in float32
        ("detector.fp16.tflite", 0.0),
        ("detector.int8.onnx", 0.869),
        ("detector.int8.tflite", 0.939),
        ("detector.int8-static.onnx", 0.798),  # convolutions stay in float32
        ("detector.int8-static.tflite", 0.798),
    ],
)
def test_a_file_computes_in_the_types_that_its_precision_says(file: str, in_int8: float) -> None:
    operations = computed_operations(_POCKETSEAL / file)
    assert operations.total() == 97_275_072  # the same in every file
    shares = dict(number_types(_POCKETSEAL / file).operations)
    assert shares.get("int8", 0.0) == pytest.approx(in_int8, abs=5e-4)
    assert shares.keys() <= {"int8", "float32"}


def _operations(tmp_path: Path, text: str, **weights: np.ndarray) -> dict[str, int]:
    model = onnx.parser.parse_model(_HEAD + text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(values, name) for name, values in weights.items())
    onnx.save(model, tmp_path / "model.onnx")
    return dict(computed_operations(tmp_path / "model.onnx"))


_BETWEEN = """(uint8[1,2,4,4] q) => ({given})
<float s = {{0.1}}, uint8 z = {{128}}, float t = {{0.1}}, int8 i = {{0}}> {{
    x = DequantizeLinear(q, s, z)
    v = DequantizeLinear(w, t, i)
    h = Conv(x, v)
    {end}
}}"""


@pytest.mark.parametrize(
    ("given", "end", "dtype"),
    [
        ("uint8[1,3,4,4] y", "y = QuantizeLinear(h, s, z)", "int8"),
        ("uint8[1,3,4,4] y", "r = Relu(h) y = QuantizeLinear(r, s, z)", "int8"),
        ("float[1,3,4,4] y", "y = Relu(h)", "float32"),
        ("uint8[1,3,4,4] y, float[1,3,4,4] h", "y = QuantizeLinear(h, s, z)", "float32"),
    ],
)
def test_a_convolution_computes_in_integers_where_both_ends_are_quantized(
    tmp_path: Path, given: str, end: str, dtype: str
) -> None:
    w = np.ones((3, 2, 1, 1), np.int8)
    assert _operations(tmp_path, _BETWEEN.format(given=given, end=end), w=w) == {dtype: 3 * 16 * 2}


def test_a_product_computes_in_integers_wherever_both_sides_are_dequantized(tmp_path: Path) -> None:
    text = """(uint8[5,4] q, float[5,4] p) => (float[5,3] y, float[5,3] u)
    <float s = {0.1}, uint8 z = {128}, float t = {0.1}, int8 i = {0}> {
        x = DequantizeLinear(q, s, z)
        v = DequantizeLinear(w, t, i)
        y = MatMul(x, v)
        u = MatMul(p, v)
    }"""
    assert _operations(tmp_path, text, w=np.ones((4, 3), np.int8)) == {"int8": 60, "float32": 60}


def test_each_kind_of_operator_is_counted_by_its_multiplications(tmp_path: Path) -> None:
    text = """(float[1,4,5,5] x, float[2,3,4] a, float[2,4,6] b, float[7,1,3] t) =>
    (float[1,6,11,11] y, float[2,3,6] p, float[7,1,1,2] s) {
        y = ConvTranspose<strides = [2, 2]>(x, k)
        p = MatMul(a, b)
        s = LSTM<hidden_size = 2>(t, w, r)
    }"""
    weights = {"k": (4, 6, 3, 3), "w": (1, 8, 3), "r": (1, 8, 2)}
    found = _operations(tmp_path, text, **{name: np.ones(shape, np.float32) for name, shape in weights.items()})
    assert found == {"float32": 4 * 25 * 6 * 9 + 2 * 3 * 6 * 4 + 7 * (24 + 16)}


def test_operators_count_alike_where_sizes_are_not_known(tmp_path: Path) -> None:
    text = """(float[n,4] x) => (float[n,3] y, float[n,3] h) {
        y = MatMul(x, w)
        h = MatMul(x, w)
    }"""
    assert _operations(tmp_path, text, w=np.ones((4, 3), np.float32)) == {"float32": 2}
