"""Names that the lowering does not carry are replaced for it, and are the graph's own again in every file."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.bundle import Bundle
from graphs.tflite.graph import read_graph
from toolkit.convert.names import carry_names
from toolkit.convert.pipeline import convert_bundle
from toolkit.import_model import import_model
from toolkit.parity.agreement import conversion_rules
from toolkit.parity.compare import compare_bundle


def _saved(path: Path, names: dict[str, str]) -> Path:
    """Write two layers whose tensors have these names: x, w, v, h, y."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.1, shape).astype(np.float32), names[name])
        for name, shape in (("w", (64, 96)), ("v", (96, 64)))
    ]
    nodes = [
        helper.make_node("MatMul", [names["x"], names["w"]], [names["h"]], name="a:first layer"),
        helper.make_node("MatMul", [names["h"], names["v"]], [names["y"]], name="a_first_layer"),
    ]
    values = [helper.make_tensor_value_info(names[name], TensorProto.FLOAT, [4, 64]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


_NAMES = [
    {"x": "x:0", "w": "w/ReadVariableOp:0", "v": "v:0", "h": "h:0", "y": "y/out:0"},
    {"x": "onnx::Gather_572", "w": "onnx::w", "v": "onnx::v", "h": "h", "y": "onnx__Gather_572"},
    {"x": "the image", "w": "w;1", "v": "w 1", "h": "h%", "y": "größe,"},
]


@pytest.mark.parametrize("names", _NAMES, ids=["tensorflow", "torch", "anything"])
@pytest.mark.parametrize("limit_bytes", [1 << 20, 25_000])
def test_every_file_has_the_names_of_the_graph(tmp_path: Path, names: dict[str, str], limit_bytes: int) -> None:
    import_model(_saved(tmp_path / "source.onnx", names), tmp_path / "named", {})
    conversion = convert_bundle(
        tmp_path / "named", conversion_rules, ("fp32", "int8"), slice_limit_bytes=limit_bytes, strict=True
    )
    assert compare_bundle(conversion.bundle).passed
    for artifact in conversion.bundle.artifacts:
        assert [binding.spec.name for binding in (*artifact.inputs, *artifact.outputs)] == [names["x"], names["y"]]
    graph = read_graph(tmp_path / "named" / "model.fp32.tflite")
    assert ([*graph.inputs], [*graph.outputs]) == ([names["x"]], [names["y"]])
    origins = {origin.name for origin in graph.origins}
    assert {names["x"], names["y"]} <= origins
    assert names["h"] in origins or limit_bytes == 1 << 20  # the tensor between two slices, at least


def test_the_other_route_has_them_too(tmp_path: Path) -> None:
    import_model(_saved(tmp_path / "source.onnx", _NAMES[0]), tmp_path / "named", {})
    conversion = convert_bundle(tmp_path / "named", conversion_rules, ("fp32",), "tf", strict=True)
    assert compare_bundle(conversion.bundle).passed
    assert [*read_graph(tmp_path / "named" / "model.fp32.tf.tflite").inputs] == ["x:0"]


def test_two_names_never_become_one_and_good_names_stay(tmp_path: Path) -> None:
    model = ir.load(
        _saved(tmp_path / "source.onnx", {"x": "x:0", "w": "x_0", "v": "x;0", "h": "/h/Add_0.rows", "y": "y"})
    )
    names = carry_names(model)
    assert [names.carried(name) for name in ("x:0", "x_0", "x;0", "/h/Add_0.rows", "y")] == [
        "x_0_2", "x_0", "x_0_3", "/h/Add_0.rows", "y"
    ]  # fmt: skip
    assert [names.own(names.carried(name)) for name in ("x:0", "x_0", "x;0")] == ["x:0", "x_0", "x;0"]
    assert [node.name for node in model.graph] == ["a_first_layer_2", "a_first_layer"]
    assert [value.name for value in model.graph.inputs] == ["x_0_2"]
    assert set(model.graph.initializers) == {"x_0", "x_0_3"}


def test_the_shipped_graphs_have_no_name_that_must_change() -> None:
    import toolkit

    bundle = Bundle.open(Path(toolkit.__file__).parent / "bundles" / "pocketseal")
    for artifact in bundle.artifacts:
        if artifact.format == "onnx":
            assert not carry_names(ir.load(bundle.folder / artifact.file))
