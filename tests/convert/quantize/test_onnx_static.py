"""Static files with quantized convolutions, and files that are integers throughout, on ONNX Runtime's kernels."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import numpy_helper

from backends.precision import RECIPES
from backends.tensor import Array, Binding, TensorSpec
from graphs.onnx.file import load, save
from toolkit.convert.quantize.static import integer_ends, observed_tensors, quantize_static, static_layers

# 64 steps down and up again: a convolution with a ReLU, one without, a depthwise one, and a classifier.
TEXT = """<ir_version: 10, opset_import: ["": 20]> g (float[1,3,16,16] x) => (float[1,10] y) <int64[2] flat = {1, 64}> {
    c1 = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
    r1 = Relu(c1)
    c2 = Conv<pads = [1, 1, 1, 1]>(r1, w2)
    s = Add(c2, r1)
    d = Conv<group = 64, pads = [1, 1, 1, 1]>(s, w3, b1)
    r3 = Clip(d, least, most)
    p = GlobalAveragePool(r3)
    f = Reshape(p, flat)
    y = Gemm<transB = 1>(f, w4, b4)
}"""
SHAPES = {"w1": (64, 3, 3, 3), "b1": (64,), "w2": (64, 64, 3, 3), "w3": (64, 1, 3, 3), "w4": (10, 64), "b4": (10,)}
SPECS = (TensorSpec("x", (1, 3, 16, 16), "float32", "NCHW"), TensorSpec("y", (1, 10), "float32", None))


def write_graph(path: Path) -> Path:
    model = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        values = rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    for name, bound in (("least", 0), ("most", 6)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(bound, np.float32), name))
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_graph(tmp_path / "model.onnx")


def _images() -> list[Array]:
    rng = np.random.default_rng(1)
    return [rng.normal(0, 1, (1, 3, 16, 16)).astype(np.float32) for _ in range(8)]


def _session(path: Path, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _ranges(source: Path, names: list[str], folder: Path) -> dict[str, tuple[float, float]]:
    model = onnx.load(source)
    given = {value.name for value in (*model.graph.input, *model.graph.output)}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    onnx.save(model, folder / "watched.onnx")
    session = _session(folder / "watched.onnx")
    seen = [dict(zip([o.name for o in session.get_outputs()], session.run(None, {"x": x}), strict=True)) | {"x": x}
            for x in _images()]  # fmt: skip
    return {name: (min(float(s[name].min()) for s in seen), max(float(s[name].max()) for s in seen)) for name in names}


def _made(source: Path, precision: str, folder: Path, in_float: tuple[str, ...] = ()) -> ir.Model:
    model, recipe = load(source), RECIPES[precision]
    ranges = _ranges(source, observed_tensors(model.graph, recipe), folder)
    return quantize_static(model, recipe, ranges, folder, in_float)


def _error(got: list[Array], expected: list[Array]) -> float:
    return float(np.linalg.norm(np.stack(got) - np.stack(expected)) / np.linalg.norm(np.stack(expected)))


def test_convolutions_compute_in_integers(source: Path, tmp_path: Path) -> None:
    static = save(_made(source, "int8-static", tmp_path), tmp_path / "static.onnx")[0]
    kernels = Counter(node.op_type for node in onnx.load(_optimized(static, tmp_path)).graph.node)
    assert (kernels["QLinearConv"], kernels["QGemm"]) == (3, 1)
    assert {kernels[name] for name in ("Conv", "FusedConv", "Relu", "Clip", "Gemm")} == {0}
    assert static.stat().st_size < 0.4 * source.stat().st_size
    before, after = _session(source), _session(static)
    images = _images()
    error = _error([after.run(None, {"x": x})[0] for x in images], [before.run(None, {"x": x})[0] for x in images])
    assert 0 < error < 0.05


def _optimized(path: Path, folder: Path) -> Path:
    _session(path, folder / "optimized.onnx")
    return folder / "optimized.onnx"


def test_a_layer_that_is_put_back_computes_in_float_with_int8_weights(source: Path, tmp_path: Path) -> None:
    names = [layer.name for layer in static_layers(load(source).graph)]
    assert len(names) == 4
    static = save(_made(source, "int8-static", tmp_path, (names[1],)), tmp_path / "static.onnx")[0]
    kernels = Counter(node.op_type for node in onnx.load(_optimized(static, tmp_path)).graph.node)
    assert (kernels["QLinearConv"], kernels["QGemm"], kernels["Conv"] + kernels["FusedConv"]) == (2, 1, 1)
    assert static.stat().st_size < 0.4 * source.stat().st_size
    every = save(_made(source, "int8-static", tmp_path, tuple(names)), tmp_path / "every.onnx")[0]
    assert "QuantizeLinear" not in {node.op_type for node in load(every).graph}


def test_integers_go_in_and_come_out_and_no_operator_computes_in_float(source: Path, tmp_path: Path) -> None:
    model = _made(source, "int8-full", tmp_path)
    (x,), (y,) = integer_ends(model, [Binding.same(SPECS[0])], [Binding.same(SPECS[1])])
    full = save(model, tmp_path / "full.onnx")[0]
    load(full)  # it is valid
    assert (x.stored.dtype, y.stored.dtype) == ("uint8", "uint8")
    kernels = Counter(node.op_type for node in onnx.load(_optimized(full, tmp_path)).graph.node)
    assert set(kernels) <= {"QLinearConv", "QGemm", "QLinearAdd", "QLinearGlobalAveragePool", "Reshape", "Transpose"}
    before, after = _session(source), _session(full)
    images = _images()
    got = [y.from_stored(after.run(None, {"x": x.to_stored(image)})[0]) for image in images]
    assert 0 < _error(got, [before.run(None, {"x": image})[0] for image in images]) < 0.06
