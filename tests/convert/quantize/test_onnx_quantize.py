"""Recipes for ONNX Runtime: the numbers of its own quantizer, from a mapped file, a weight at a time."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from backends.errors import InvalidArtifact, InvalidInput
from backends.precision import RECIPES
from backends.tensor import Array, probe
from graphs.onnx import file as onnx_file
from graphs.onnx.file import load, save
from tests.seal_tiny import NAMES, exported, spec
from toolkit.convert.quantize import layers as onnx_layers
from toolkit.convert.quantize import onnx as quantizing
from toolkit.convert.quantize.layers import layers
from toolkit.convert.quantize.onnx import calibrated_tensors, quantize_onnx


def prepared(name: str, path: Path) -> Path:
    """Write the exported detector of a model to `path`; its weights may go to a file of their own."""
    return save(load(exported(name).folder / "detector.onnx"), path)[0]


def run(path: Path, name: str) -> Array:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits: Array = session.run(None, probe(spec(name).graph("detector").inputs))[0]
    return logits


@pytest.mark.parametrize("name", NAMES)
def test_products_compute_what_the_runtimes_own_quantizer_makes_of_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = prepared(name, tmp_path / "detector.onnx")
    monkeypatch.setattr(onnx_layers, "_SMALLEST_CONV_WEIGHT", 1 << 30)  # theirs leaves convolutions alone here
    monkeypatch.setattr(quantizing, "store_constants", lambda *_, **__: None)  # and constants of other operators
    (ours,) = quantize_onnx(source, tmp_path / "ours.onnx", RECIPES["int8"])
    model = onnx.load(source)
    # Ours quantizes matrices; a stack of small ones, as relative positions are, stays in float32.
    ranks = {weight.name: len(weight.dims) for weight in model.graph.initializer}
    stacks = [node.name for node in model.graph.node if node.op_type == "MatMul" and ranks.get(node.input[1], 2) > 2]
    # Shapes recorded for weights become wrong when theirs transposes them, and it then refuses the graph.
    del model.graph.value_info[:]
    logging.disable(logging.WARNING)  # it advises, on the root logger, to run its own simplifier first
    try:
        quantize_dynamic(
            model,
            tmp_path / "theirs.onnx",
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=stacks,
        )
    finally:
        logging.disable(logging.NOTSET)
    theirs = onnx.load(tmp_path / "theirs.onnx")
    assert Counter(node.op_type for node in load(ours).graph) == Counter(node.op_type for node in theirs.graph.node)
    np.testing.assert_allclose(run(ours, name), run(tmp_path / "theirs.onnx", name), atol=1e-6)
    assert not {"Gemm"} & {node.op_type for node in load(ours).graph}


def test_weights_in_a_file_of_their_own_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "chunkyseal-tiny"
    whole = quantize_onnx(prepared(name, tmp_path / "whole.onnx"), tmp_path / "whole.int8.onnx", RECIPES["int8"])
    monkeypatch.setattr(onnx_file, "_EMBED_LIMIT_BYTES", 0)
    source = prepared(name, tmp_path / "split.onnx")
    split = quantize_onnx(source, tmp_path / "split.int8.onnx", RECIPES["int8"])
    assert (len(whole), len(split)) == (1, 2)
    np.testing.assert_array_equal(run(whole[0], name), run(split[0], name))
    again = quantize_onnx(source, tmp_path / "split.int8.onnx", RECIPES["int8"])
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in split]


def relative_error(got: Array, expected: Array) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", NAMES)
def test_stored_weights_are_rounded_and_nothing_else(name: str, tmp_path: Path) -> None:
    source = prepared(name, tmp_path / "detector.onnx")
    model = load(source)
    for layer in layers(model.graph):
        tensor = layer.weight.const_value
        assert tensor is not None
        values = tensor.numpy()
        axes = tuple(i for i in range(values.ndim) if i != layer.axis)
        scale = np.abs(values).max(axis=axes, keepdims=True) / np.float32(127)
        layer.weight.const_value = ir.tensor(np.rint(values / scale) * scale, name=layer.weight.name)
    rounded = save(model, tmp_path / "rounded.onnx")[0]
    (ours,) = quantize_onnx(source, tmp_path / "int8-w.onnx", RECIPES["int8-w"])
    np.testing.assert_allclose(run(ours, name), run(rounded, name), rtol=1e-4, atol=1e-5)
    assert relative_error(run(ours, name), run(source, name)) > 1e-4
    (half,) = quantize_onnx(source, tmp_path / "fp16.onnx", RECIPES["fp16"])
    assert 0 < relative_error(run(half, name), run(source, name)) < 1e-2
    assert half.stat().st_size > ours.stat().st_size


@pytest.mark.parametrize("name", NAMES)
def test_static_layers_run_on_the_runtimes_integer_kernels(name: str, tmp_path: Path) -> None:
    source = prepared(name, tmp_path / "detector.onnx")
    graph = load(source).graph
    dense = sum(layer.dense for layer in layers(graph))
    ranges = dict.fromkeys(calibrated_tensors(graph), (-8.0, 8.0))
    (static,) = quantize_onnx(source, tmp_path / "static.onnx", RECIPES["int8-static"], ranges)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(static, options, providers=["CPUExecutionProvider"])
    kernels = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kernels["QGemm"] + kernels["MatMulIntegerToFloat"] == dense > 0
    assert kernels["DequantizeLinear"] == 0


@pytest.mark.parametrize("bias", ["matrix", "computed", "vector"])
def test_a_static_layer_adds_any_bias(bias: str, tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 20]> g (float[4,32] x) => (float[4,16] y) {
        computed = Neg(matrix)
        y = Gemm<transB = 1>(x, w, BIAS)
    }"""
    model = onnx.parser.parse_model(text.replace("BIAS", bias))
    rng = np.random.default_rng(0)
    for name, shape in {"w": (16, 32), "matrix": (4, 16), "vector": (16,)}.items():
        values = rng.normal(0, 1, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, tmp_path / "plain.onnx")
    x = rng.normal(0, 1, (4, 32)).astype(np.float32)
    (static,) = quantize_onnx(tmp_path / "plain.onnx", tmp_path / "s.onnx", RECIPES["int8-static"], {"x": (-3.5, 3.5)})
    got, expected = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for path in (static, tmp_path / "plain.onnx")
    )
    assert 0 < relative_error(got, expected) < 0.02


def test_a_range_that_was_not_seen_is_an_error(tmp_path: Path) -> None:
    source = prepared(NAMES[0], tmp_path / "detector.onnx")
    with pytest.raises(InvalidArtifact, match="the range of '.*' was not seen"):
        quantize_onnx(source, tmp_path / "static.onnx", RECIPES["int8-static"], {})


def test_kept_layers_are_float16_and_the_others_are_not(tmp_path: Path) -> None:
    name = NAMES[0]
    source = prepared(name, tmp_path / "detector.onnx")
    names = [layer.name for layer in layers(load(source).graph)]
    whole = {p: quantize_onnx(source, tmp_path / f"{p}.onnx", RECIPES[p])[0] for p in ("fp16", "int8")}
    (all_kept,) = quantize_onnx(source, tmp_path / "all.onnx", RECIPES["mixed"], kept=names)
    assert all_kept.read_bytes() == whole["fp16"].read_bytes()
    (none_kept,) = quantize_onnx(source, tmp_path / "none.onnx", RECIPES["mixed"])
    assert none_kept.read_bytes() == whole["int8"].read_bytes()
    (half,) = quantize_onnx(source, tmp_path / "half.onnx", RECIPES["mixed"], kept=names[::2])
    stored = Counter(value.dtype for value in load(half).graph.initializers.values())
    assert stored[ir.DataType.FLOAT16] == len(names[::2])
    with pytest.raises(InvalidInput, match="no layer 'node_gone' to keep; there is node_"):
        quantize_onnx(source, tmp_path / "half.onnx", RECIPES["mixed"], kept=["node_gone"])
