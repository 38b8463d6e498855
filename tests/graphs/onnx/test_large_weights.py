"""Weights that a rewriting tool never sees: the graph comes out the same, and they are computed only when written."""

import gc
import weakref
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxsim
import pytest

from backends.bundle import sha256_of
from backends.tensor import probe
from graphs.export import build_loaded, export, run_module
from graphs.networks.spec import GraphSpec
from graphs.onnx import file as onnx_file
from graphs.onnx import weights as large_weights
from graphs.onnx.file import external_name, load, save, weight_bytes
from graphs.onnx.weights import attach_weights, detach_weights, lazy_tensor, transposed
from graphs.passes.pipeline import prepare, run_once
from graphs.passes.simplify import simplify
from tests.seal_tiny import spec, weights

DETECTOR = ("chunkyseal-tiny", "detector")
EMBEDDER = ("videoseal-1.0-tiny", "embedder")
SMALL = 300  # bytes; nearly every weight of the tiny networks is larger


@cache
def _traced(name: str, role: str) -> onnx.ModelProto:
    """Return a graph as the exporter wrote it. Not to be changed."""
    graph = spec(name).graph(role)
    return ir.to_proto(export(build_loaded(graph, weights(name).states[role]), graph))


def prepared(name: str, role: str, stepwise: bool = True) -> tuple[ir.Model, GraphSpec]:
    graph = spec(name).graph(role)
    return prepare(ir.from_proto(_traced(name, role)), probe(graph.inputs), stepwise=stepwise)[0], graph


@pytest.mark.parametrize(("name", "role"), [DETECTOR, EMBEDDER])
def test_the_graph_is_the_same_whether_or_not_the_tools_see_its_weights(
    name: str, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, graph = prepared(name, role)
    monkeypatch.setattr(large_weights, "LARGE_BYTES", SMALL)
    unseen, _ = prepared(name, role, stepwise=False)
    assert Counter(node.op_type for node in unseen.graph) == Counter(node.op_type for node in seen.graph)
    assert [value.name for value in unseen.graph.inputs] == [tensor.name for tensor in graph.inputs]
    assert abs(weight_bytes(unseen) - weight_bytes(seen)) < 1000

    feeds = probe(graph.inputs, seed=5)
    output = graph.outputs[0].name
    expected = run_module(build_loaded(graph, weights(name).states[role]), graph, feeds)[output]
    for model in (seen, unseen):
        np.testing.assert_allclose(run_once(model, feeds, name)[output], expected, atol=1e-4)


def test_onnxsim_sees_no_large_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = onnxsim.simplify

    def watched(model: onnx.ModelProto, **options: Any) -> Any:
        sizes.append(max(len(tensor.raw_data) for tensor in model.graph.initializer))
        return original(model, **options)

    monkeypatch.setattr(onnxsim, "simplify", watched)
    monkeypatch.setattr(large_weights, "LARGE_BYTES", SMALL)
    prepared(*DETECTOR, stepwise=False)
    assert sizes
    assert max(sizes) < SMALL


def _chain() -> ir.Model:
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[2,3] x) => (float[2,4] y) <float[3,4] w, float[3,4] unread> { y = MatMul(x, w) }"""
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(0)
    del proto.graph.initializer[:]
    for name in ("w", "unread"):
        values = random.standard_normal((3, 4), dtype=np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return ir.from_proto(proto)


def test_what_was_set_aside_comes_back_unless_nothing_reads_it() -> None:
    model = _chain()
    before = model.graph.initializers["w"].const_value
    taken = detach_weights(model, at_least_bytes=1)
    assert taken.keys() == {"w", "unread"}
    assert [value.name for value in model.graph.inputs] == ["x", "w", "unread"]
    assert not model.graph.initializers
    attach_weights(model, taken)
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert list(model.graph.initializers) == ["w"]
    assert model.graph.initializers["w"].const_value is before


def test_a_computed_weight_is_made_once_for_each_time_it_is_written(tmp_path: Path) -> None:
    model = _chain()
    made = []
    source = model.graph.initializers["w"].const_value
    assert source is not None

    def make() -> Any:
        made.append(1)
        return source.numpy() * 2

    model.graph.initializers["w"].const_value = lazy_tensor((3, 4), source, make)
    taken = detach_weights(model, at_least_bytes=1)
    attach_weights(model, taken)
    assert weight_bytes(model) == 48
    assert not made
    save(model, tmp_path / "a.onnx")
    assert len(made) == 1
    read = load(tmp_path / "a.onnx").graph.initializers["w"].const_value
    assert read is not None
    np.testing.assert_array_equal(read.numpy(), source.numpy() * 2)


def test_the_transpose_of_a_transpose_is_the_weight_itself() -> None:
    source = ir.tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    once = transposed(source)
    assert tuple(once.shape.numpy()) == (3, 2)
    np.testing.assert_array_equal(once.numpy(), source.numpy().T)
    assert transposed(once) is source


def test_external_data_is_written_the_same_twice_and_readable_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, graph = prepared(*DETECTOR)
    (embedded,) = save(whole, tmp_path / "whole.onnx")
    monkeypatch.setattr(onnx_file, "_EMBED_LIMIT_BYTES", 0)
    digests = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        files = save(prepared(*DETECTOR)[0], folder / "detector.onnx")
        assert [file.name for file in files] == ["detector.onnx", external_name("detector.onnx")]
        assert files[0].stat().st_mode == files[1].stat().st_mode == embedded.stat().st_mode
        digests.append(sha256_of(*files))
    assert digests[0] == digests[1]
    assert files[0].stat().st_size < embedded.stat().st_size / 2
    feeds = probe(graph.inputs)
    for name, value in run_once(load(embedded), feeds, "embedded").items():
        np.testing.assert_array_equal(run_once(load(files[0]), feeds, "external")[name], value)


def test_nothing_holds_the_weights_once_the_graph_is_gone() -> None:
    graph = spec(DETECTOR[0]).graph("detector")
    module = build_loaded(graph, weights(DETECTOR[0]).states["detector"])
    alive = [weakref.ref(parameter) for parameter in module.parameters()]
    model, _ = prepare(export(module, graph), probe(graph.inputs), stepwise=False)
    assert all(reference() is not None for reference in alive)
    del module, model
    gc.collect()
    assert not [reference for reference in alive if reference() is not None]


def test_a_graph_whose_weights_lie_in_another_file_can_be_simplified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "_EMBED_LIMIT_BYTES", 0)
    model, graph = prepared(*DETECTOR, stepwise=False)
    path = save(model, tmp_path / "detector.onnx")[0]
    feeds = probe(graph.inputs)
    again, _ = simplify(load(path))
    np.testing.assert_allclose(
        run_once(again, feeds, "again")["logits"], run_once(load(path), feeds, "before")["logits"], atol=1e-6
    )
