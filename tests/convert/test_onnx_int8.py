"""INT8 for ONNX Runtime: the numbers of its own quantizer, from a mapped file, a weight at a time."""

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from backends.tensor import Array
from graphs import onnx_file
from graphs.export import build_loaded, export, probe
from graphs.onnx_file import load, save
from graphs.prepare.pipeline import prepare
from tests.seal_tiny import NAMES, spec, weights
from toolkit.convert import onnx_int8
from toolkit.convert.onnx_int8 import quantize_onnx


def prepared(name: str, path: Path) -> Path:
    graph = spec(name).graph("detector")
    model = export(build_loaded(graph, weights(name).states["detector"]), graph)
    return save(prepare(model, probe(graph.inputs), stepwise=False)[0], path)[0]


def run(path: Path, name: str) -> Array:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits: Array = session.run(None, probe(spec(name).graph("detector").inputs))[0]
    return logits


@pytest.mark.parametrize("name", NAMES)
def test_products_compute_what_the_runtimes_own_quantizer_makes_of_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = prepared(name, tmp_path / "detector.onnx")
    monkeypatch.setattr(onnx_int8, "_SMALLEST_CONV_WEIGHT", 1 << 30)  # theirs leaves convolutions alone here
    (ours,) = quantize_onnx(source, tmp_path / "ours.onnx")
    model = onnx.load(source)
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
        )
    finally:
        logging.disable(logging.NOTSET)
    theirs = onnx.load(tmp_path / "theirs.onnx")
    assert Counter(node.op_type for node in load(ours).graph) == Counter(node.op_type for node in theirs.graph.node)
    np.testing.assert_allclose(run(ours, name), run(tmp_path / "theirs.onnx", name), atol=1e-6)
    assert not {"Gemm"} & {node.op_type for node in load(ours).graph}


def test_weights_in_a_file_of_their_own_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "chunkyseal-tiny"
    whole = quantize_onnx(prepared(name, tmp_path / "whole.onnx"), tmp_path / "whole.int8.onnx")
    monkeypatch.setattr(onnx_file, "_EMBED_LIMIT_BYTES", 0)
    source = prepared(name, tmp_path / "split.onnx")
    split = quantize_onnx(source, tmp_path / "split.int8.onnx")
    assert (len(whole), len(split)) == (1, 2)
    np.testing.assert_array_equal(run(whole[0], name), run(split[0], name))
    again = quantize_onnx(source, tmp_path / "split.int8.onnx")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in split]
