"""Graphs that were quantized before their import: operators on integers become float ones between pairs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from backends.bundle import Bundle
from backends.registry import open_session
from graphs.onnx.sizes import infer_shapes
from graphs.passes.integers import floats_with_ranges, integers_to_pairs, is_quantized
from graphs.passes.pipeline import run_once
from graphs.tflite.graph import read_graph
from toolkit.cli import main
from toolkit.convert.calibration import Calibration
from toolkit.convert.pipeline import convert_bundle
from toolkit.import_model import import_model
from toolkit.parity.agreement import conversion_rules
from toolkit.parity.compare import compare_bundle

# Every operator that ONNX Runtime's quantizer has for networks of pictures, and a classifier.
TEXT = """<ir_version: 10, opset_import: ["": 20]> g (float[1,3,16,16] x) => (float[1,10] y)
<int64[2] flat = {1, 1024}, int64[3] apart = {1, 16, 64}> {
    c1 = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
    r1 = Relu(c1)
    c2 = Conv<pads = [1, 1, 1, 1], group = 16>(r1, w2)
    sum = Add(c2, r1)
    gate = Sigmoid(sum)
    gated = Mul(sum, gate)
    leaky = LeakyRelu<alpha = 0.1>(gated)
    both = Concat<axis = 1>(leaky, r1)
    small = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(both)
    mean = AveragePool<kernel_shape = [1, 1]>(small)
    half = Conv(mean, w3)
    rows = Reshape(half, apart)
    product = MatMul(rows, w4)
    f = Reshape(product, flat)
    y = Gemm<transB = 1>(f, w5, b5)
}"""
SHAPES = {
    "w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 1, 3, 3), "w3": (16, 32, 1, 1), "w4": (64, 64), "w5": (10, 1024),
    "b5": (10,),
}  # fmt: skip


class _Images(CalibrationDataReader):
    def __init__(self) -> None:
        rng = np.random.default_rng(2)
        self._left = [{"x": rng.normal(0, 1, (1, 3, 16, 16)).astype(np.float32)} for _ in range(8)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._left.pop() if self._left else None


def _quantized(
    folder: Path,
    quant_format: QuantFormat,
    per_channel: bool = True,
    text: str = TEXT,
    shapes: Mapping[str, tuple[int, ...]] = SHAPES,
) -> Path:
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    onnx.save(onnx.shape_inference.infer_shapes(model), folder / "float.onnx")
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    target = folder / "quantized.onnx"
    quantize_static(folder / "float.onnx", target, _Images(), quant_format, per_channel=per_channel, **kinds)
    return target


@pytest.mark.parametrize("per_channel", [True, False])
def test_operators_on_integers_become_float_ones(per_channel: bool, tmp_path: Path) -> None:
    source = ir.load(_quantized(tmp_path, QuantFormat.QOperator, per_channel))
    operators = {node.op_type for node in source.graph}
    assert operators >= {
        "QLinearConv", "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearConcat", "QGemm",
        "QLinearMatMul", "QLinearAveragePool", "MaxPool",
    }  # fmt: skip
    assert is_quantized(source)
    feeds = {"x": np.random.default_rng(5).normal(0, 1, (1, 3, 16, 16)).astype(np.float32)}
    expected = run_once(source, feeds, "before")["y"]
    rewritten, changed = integers_to_pairs(source)
    assert changed
    left = {node.op_type for node in rewritten.graph}
    assert not [name for name in left if name.startswith("QLinear") or name == "QGemm"]
    pool = next(node for node in rewritten.graph if node.op_type == "MaxPool")
    assert pool.inputs[0] is not None
    assert pool.inputs[0].producer().op_type == "DequantizeLinear"  # type: ignore[union-attr]  # it is computed
    got = run_once(rewritten, feeds, "after")["y"]
    # An operator may round to the next level: a few of 256.
    assert np.abs(got - expected).max() <= 0.03 * np.ptp(expected)
    assert not integers_to_pairs(rewritten)[1]


def test_a_float_graph_is_not_quantized_and_does_not_change(tmp_path: Path) -> None:
    _quantized(tmp_path, QuantFormat.QDQ)
    plain = ir.load(tmp_path / "float.onnx")
    assert not is_quantized(plain)
    assert not integers_to_pairs(plain)[1]
    assert is_quantized(ir.load(tmp_path / "quantized.onnx"))


# OpenVINO reads no model of quantized operators (QLinearConv), and rounds one of the other format to other levels.
@pytest.mark.parametrize(
    "quant_format", [pytest.param(QuantFormat.QDQ, marks=pytest.mark.openvino), QuantFormat.QOperator]
)
def test_a_quantized_model_comes_through_and_is_said_to_be_one(quant_format: QuantFormat, tmp_path: Path) -> None:
    source = _quantized(tmp_path, quant_format)
    shown = CliRunner().invoke(main, ["import", str(source), "-o", str(tmp_path / "m")], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "the model is quantized already: ONNX Runtime runs it as it is" in shown.stderr
    assert "no TFLite file can be made" not in shown.stderr
    bundle = Bundle.open(tmp_path / "m")
    assert bundle.find("model", "onnx", "fp32").bytes < 1.2 * source.stat().st_size
    conversion = convert_bundle(bundle.folder, conversion_rules)
    assert not conversion.failed
    assert not conversion.over
    assert conversion.notes == (
        "model.onnx is quantized already, and ONNX Runtime runs it as it is: its other files there gain little",
    )
    assert compare_bundle(Bundle.open(bundle.folder)).passed


def test_a_float_model_is_not_said_to_be_quantized(tmp_path: Path) -> None:
    _quantized(tmp_path, QuantFormat.QDQ)
    said: list[str] = []
    bundle = import_model(tmp_path / "float.onnx", tmp_path / "m", {}, note=said.append)
    assert said == []
    assert "quantized" not in bundle.model


@pytest.mark.parametrize("quant_format", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_the_float_graph_of_a_quantized_one_has_the_ranges_of_its_scales(
    quant_format: QuantFormat, tmp_path: Path
) -> None:
    source = infer_shapes(ir.load(_quantized(tmp_path, quant_format)))
    feeds = {"x": np.random.default_rng(5).normal(0, 0.4, (1, 3, 16, 16)).astype(np.float32)}
    expected = run_once(ir.load(tmp_path / "float.onnx"), feeds, "before it was quantized")["y"]
    before = onnx.load(tmp_path / "quantized.onnx").graph
    scales = {one.name: numpy_helper.to_array(one) for one in before.initializer if one.name.startswith("x_")}
    model, ranges = floats_with_ranges(source)
    assert not {node.op_type for node in model.graph} & {"QuantizeLinear", "DequantizeLinear"}
    assert [node.op_type for node in model.graph].count("Relu") == 1
    got = run_once(model, feeds, "after")["y"]
    assert 0 < np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.02  # the weights are rounded
    step, zero = float(scales["x_scale"]), int(scales["x_zero_point"])
    assert ranges["x"] == (pytest.approx(-zero * step), pytest.approx((255 - zero) * step))
    assert "y" in ranges
    low, high = ranges["y"]
    assert low < expected.min() < expected.max() < high
    assert len(ranges) >= 10


def test_a_quantized_model_becomes_integers_throughout_by_its_own_scales(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 20]> g (float[1,3,16,16] x) => (float[1,10] y)
    <int64[2] flat = {1, -1}> {
        c1 = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
        r1 = Relu(c1)
        c2 = Conv<pads = [1, 1, 1, 1], group = 16>(r1, w2)
        sum = Add(c2, r1)
        small = MaxPool<kernel_shape = [4, 4], strides = [4, 4]>(sum)
        rows = Reshape(small, flat)
        y = Gemm<transB = 1>(rows, w5, b5)
    }"""
    _quantized(tmp_path, QuantFormat.QDQ, text=text, shapes=SHAPES | {"w5": (10, 256)})
    import_model(tmp_path / "quantized.onnx", tmp_path / "bundle", {})
    conversion = convert_bundle(
        tmp_path / "bundle", conversion_rules, ["int8-full", "int8-static"], calibration=Calibration(None)
    )
    assert {(row.runtime, row.precision): row.made for row in conversion.outcomes} == {
        ("ort", "int8-full"): True,
        ("ort", "int8-static"): False,
        ("tflite", "int8-full"): True,
        ("tflite", "int8-static"): True,
    }
    (refused,) = [str(row.why) for row in conversion.outcomes if not row.made]
    assert refused == (
        "int8-static is impossible here: model.onnx is quantized already, and ONNX Runtime runs it by its own scales; "
        "use fp32, which is that file"
    )
    bundle = Bundle.open(tmp_path / "bundle")
    proto = onnx.load(tmp_path / "quantized.onnx").graph
    scales = {
        one.name: numpy_helper.to_array(one) for one in proto.initializer if one.name.endswith(("_scale", "_point"))
    }
    for file_format, offset, dtype in (("onnx", 0, "uint8"), ("tflite", 128, "int8")):
        artifact = bundle.find("model", file_format, "int8-full")
        for binding in (*artifact.inputs, *artifact.outputs):
            name = binding.spec.name
            assert binding.stored.dtype == dtype
            assert binding.scale == pytest.approx(float(scales[f"{name}_scale"]), rel=1e-5)
            assert binding.zero_point == int(scales[f"{name}_zero_point"]) - offset
    graph = read_graph(bundle.folder / "model.int8-full.tflite")
    assert {tensor.dtype for tensor in graph.tensors()} == {"int8", "int32"}
    step = float(scales["y_scale"])
    reference = bundle.find("model", "onnx", "fp32")
    for seed in range(4):
        feeds = {"x": np.random.default_rng(seed).normal(0, 1, (1, 3, 16, 16)).astype(np.float32)}
        results = []
        for artifact in (
            reference,
            bundle.find("model", "onnx", "int8-full"),
            bundle.find("model", "tflite", "int8-full"),
        ):
            with open_session(bundle, artifact, "tflite" if artifact.format == "tflite" else "ort", 1) as session:
                results.append(session.run(feeds)["y"])
        np.testing.assert_allclose(results[1], results[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(results[2], results[0], rtol=0, atol=2.01 * step)
