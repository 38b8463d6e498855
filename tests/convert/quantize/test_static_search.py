"""Static files of imported graphs: convolutions compute in integers, but for the layers that would make a file fail."""

import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import onnx.parser
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.registry import open_session
from graphs.onnx.file import load
from graphs.tflite.graph import Node, read_graph
from tests.convert.quantize.test_onnx_static import write_graph
from tests.shared import made_once
from toolkit.convert.calibration import Calibration
from toolkit.convert.job import Job
from toolkit.convert.outcome import Conversion, Made
from toolkit.convert.pipeline import convert_bundle
from toolkit.convert.quantize.static_search import put_back
from toolkit.import_model import import_model
from toolkit.parity.agreement import conversion_rules

NAMES = tuple("abcdef")
_CODES = schema.BuiltinOperator
LAYERS = (_CODES.CONV_2D, _CODES.DEPTHWISE_CONV_2D, _CODES.FULLY_CONNECTED)


def _search(needed: set[str], errors: dict[str, float]) -> tuple[Made, list[tuple[str, ...]]]:
    """Search in a world where a file passes once all layers that are needed in float are in float."""
    tried: list[tuple[str, ...]] = []

    def make(in_float: Collection[str]) -> Made:
        tried.append(tuple(in_float))
        artifact = cast(Artifact, SimpleNamespace(file="model.int8-static.onnx"))
        return Made(artifact, (), () if needed <= set(in_float) else ("too far",))

    def alone(groups: Sequence[Sequence[str]]) -> list[float]:
        return [sum(errors[name] for name in group) for group in groups]

    return put_back(NAMES, 1000, make, alone), tried


def test_a_file_that_passes_is_made_once() -> None:
    made, tried = _search(set(), {})
    assert (made.over, made.notes, tried) == ((), (), [()])


def test_the_layers_that_hurt_most_are_put_back_and_said() -> None:
    made, tried = _search({"c", "e"}, {"a": 1, "b": 2, "c": 9, "d": 0, "e": 3, "f": 0})
    assert made.over == ()
    assert tried[-1] == ("c", "e")
    assert made.notes == (
        "model.int8-static.onnx: 2 of 6 layers compute in float32, with int8 weights, or it would be over its "
        "tolerance: c, e",
    )


def test_nothing_is_searched_where_rounded_weights_alone_are_too_far() -> None:
    made, tried = _search({"no layer"}, {})
    assert (made.over, made.notes, tried) == (("too far",), (), [(), NAMES, ()])


@pytest.mark.parametrize(("nbytes", "groups"), [(1000, 48), (64 << 20, 16), (1 << 30, 8)])
def test_the_larger_the_file_the_fewer_groups_are_tried(nbytes: int, groups: int) -> None:
    sizes: list[int] = []

    def make(in_float: Collection[str]) -> Made:
        artifact = cast(Artifact, SimpleNamespace(file="model.int8-static.onnx"))
        return Made(artifact, (), () if in_float else ("too far",))

    def alone(groups: Sequence[Sequence[str]]) -> list[float]:
        sizes.append(len(groups))
        return [1.0 for _ in groups]

    put_back([f"layer {i}" for i in range(100)], nbytes, make, alone)
    assert sizes == [groups]


def test_a_file_of_which_no_layer_could_be_static_is_over_its_tolerance() -> None:
    made, tried = _search(set(NAMES), dict.fromkeys(NAMES, 1))
    assert (made.over, made.notes, tried[-1]) == (("too far",), (), ())


def _convert(folder: Path) -> None:
    bundle = import_model(write_graph(folder / "source.onnx"), folder / "foreign", {})
    conversion = convert_bundle(
        bundle.folder, conversion_rules, ("int8-static", "int8-full"), calibration=Calibration(None)
    )
    assert not conversion.failed
    assert not conversion.over


@pytest.fixture
def converted() -> Bundle:
    return Bundle.open(made_once("static-foreign", _convert) / "foreign")


def _operators(path: Path) -> Counter[str]:
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    return Counter(names[node.code[0]] for node in read_graph(path).nodes)


def _layers(path: Path) -> list[Node]:
    return [node for node in read_graph(path).nodes if node.code[0] in LAYERS]


def _in_float(path: Path) -> list[Node]:
    return [node for node in _layers(path) if node.outputs[0] is not None and node.outputs[0].dtype == "float32"]


def test_both_runtimes_compute_the_convolutions_of_an_imported_graph_in_integers(converted: Bundle) -> None:
    tflite = read_graph(converted.folder / "model.int8-static.tflite")
    convolutions = [
        n
        for n in tflite.nodes
        if n.code[0] in (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
    ]
    assert len(convolutions) == 3
    assert {tensor.dtype for node in convolutions for tensor in (*node.inputs[:2], *node.outputs) if tensor} == {"int8"}
    onnx_nodes = load(converted.folder / "model.int8-static.onnx").graph
    fed = [node.inputs[0].producer() for node in onnx_nodes if node.op_type == "Conv" and node.inputs[0] is not None]
    assert [node.op_type for node in fed if node is not None] == ["DequantizeLinear"] * 3


def test_a_full_file_takes_and_gives_integers_on_both_runtimes(converted: Bundle) -> None:
    operators = _operators(converted.folder / "model.int8-full.tflite")
    assert operators == {
        "CONV_2D": 2, "ADD": 1, "DEPTHWISE_CONV_2D": 1, "MEAN": 1, "RESHAPE": 1, "FULLY_CONNECTED": 1
    }  # fmt: skip
    x = np.random.default_rng(3).random((1, 3, 16, 16), np.float32)
    with open_session(converted, converted.find("model", "onnx", "fp32"), "ort", 1) as session:
        expected = session.run({"x": x})["y"]
    for file_format, backend, dtype in (("onnx", "ort", "uint8"), ("tflite", "tflite", "int8")):
        artifact = converted.find("model", file_format, "int8-full")
        assert {one.stored.dtype for one in (*artifact.inputs, *artifact.outputs)} == {dtype}
        assert 4 * artifact.bytes < 1.6 * converted.find("model", "onnx", "fp32").bytes
        with open_session(converted, artifact, backend, 1) as session:
            got = session.run({"x": x})["y"]
        assert 0 < np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.1


def test_constants_beside_an_activation_take_its_scale_in_a_full_file(tmp_path: Path) -> None:
    """The pad of a MaxPool is a constant of fewer axes, as in a ResNet; so is the bound of a Max."""
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[1,3,16,16] x) => (float[1,8,8,8] y) {
        h = Conv<pads = [1, 1, 1, 1]>(x, w)
        bounded = Max(h, low)
        y = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(bounded)
    }"""
    model = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).normal(0, 0.2, (8, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-0.5], np.float32), "low"))
    onnx.save(model, tmp_path / "source.onnx")
    bundle = import_model(tmp_path / "source.onnx", tmp_path / "foreign", {})
    arguments: dict[str, Any] = {"calibration": Calibration(None), "runtimes": ("tflite",)}
    conversion = convert_bundle(bundle.folder, conversion_rules, ("int8-full",), **arguments)
    assert [(one.file, one.why) for one in conversion.outcomes] == [("model.int8-full.tflite", None)]
    graph = read_graph(bundle.folder / "model.int8-full.tflite")
    assert {tensor.dtype for tensor in graph.tensors()} <= {"int8", "int32"}


def test_a_division_by_computed_numbers_stays_in_float(tmp_path: Path) -> None:
    """In integers, the divisor of an image of one colour is rounded to 0, with which LiteRT ends the run."""
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[1,3,16,16] x) => (float[1,8,16,16] y)
        <float half = {0.5}, float least = {0.001}> {
        h = Conv<pads = [1, 1, 1, 1]>(x, w)
        r = Relu(h)
        n = Add(r, least)
        [share] d = Div(h, n)
        y = Mul(d, half)
    }"""
    model = onnx.parser.parse_model(text)
    weight = np.random.default_rng(0).normal(0, 0.2, (8, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "source.onnx")
    bundle = import_model(tmp_path / "source.onnx", tmp_path / "foreign", {})
    arguments: dict[str, Any] = {"calibration": Calibration(None), "runtimes": ("tflite",)}
    (row,) = convert_bundle(bundle.folder, conversion_rules, ("int8-full",), **arguments).outcomes
    assert row.why is None
    assert row.in_float == ("DIV of node 'share' (Div)",)
    (division,) = (
        node
        for node in read_graph(bundle.folder / "model.int8-full.tflite").nodes
        if node.code[0] == schema.BuiltinOperator.DIV
    )
    assert {tensor.dtype for tensor in (*division.inputs, *division.outputs) if tensor is not None} == {"float32"}


def _precisions(conversion: Conversion) -> dict[str, str]:
    return {one.precision: str(one.why) for one in conversion.failed}


def test_a_graph_in_slices_has_no_integer_file_and_the_others_are_made(converted: Bundle, tmp_path: Path) -> None:
    copy = shutil.copytree(converted.folder, tmp_path / "copy")
    arguments: dict[str, Any] = {
        "calibration": Calibration(None),
        "runtimes": ("tflite",),
        "slice_limit_bytes": 150_000,
    }
    conversion = convert_bundle(copy, conversion_rules, ("int8-static", "int8-full"), **arguments)
    assert list(_precisions(conversion)) == ["int8-full"]
    assert "slices meet in float32: give a larger --slice-mb, or int8-static" in _precisions(conversion)["int8-full"]


def test_the_search_of_a_tflite_file_puts_layers_back(
    converted: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of this test passes once two of the four layers compute in float32."""
    copy = Bundle.open(shutil.copytree(converted.folder, tmp_path / "copy"))
    judge = Job._judged

    def strict(self: Job, path: Path, artifact: Artifact, error: Any) -> tuple[str, ...]:
        if path.suffix != ".tflite" or artifact.precision != "int8-static":
            return judge(self, path, artifact, error)
        return () if len(_in_float(path)) >= 2 else ("too many layers are in integers",)

    monkeypatch.setattr(Job, "_judged", strict)
    arguments: dict[str, Any] = {"calibration": Calibration(None), "runtimes": ("tflite",)}
    conversion = convert_bundle(copy.folder, conversion_rules, ("int8-static",), **arguments)
    assert not conversion.over
    (note,) = conversion.notes
    assert "of 4 layers compute in float32, with int8 weights, or it would be over its tolerance" in note
    assert len(_in_float(copy.folder / "model.int8-static.tflite")) == 2
    assert note.startswith("model.int8-static.tflite: 2 ")
    assert conversion.outcomes[0].weights[0][0] == "int8"
    assert conversion.outcomes[0].weights[0][1] > 0.9
