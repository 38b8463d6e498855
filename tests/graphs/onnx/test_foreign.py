"""ONNX files of anybody's: what is read, and the one line about what cannot be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.errors import InvalidArtifact, InvalidInput
from graphs.onnx.file import IR_VERSION, OPSET, save
from graphs.onnx.foreign import constants_of, read_foreign
from graphs.onnx.sizes import how_to_fix_sizes, infer_shapes, specs_of


def _file(folder: Path, opset: int = 11, sizes: tuple[object, ...] = ("n", 3, 4, 4), **options: object) -> Path:
    """y = softmax(x * w) over the last axis, whose meaning changed with opset 13."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b", "c", "d"])
    weight = numpy_helper.from_array(np.arange(1, 5, dtype=np.float32), "w")
    nodes = [helper.make_node("Mul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["y"], axis=-1)]
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path = folder / f"opset{opset}.onnx"
    onnx.save(model, path, **options)
    return path


def _run(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": x})
    return np.asarray(result)


@pytest.mark.parametrize("opset", [11, 13, OPSET, 22])
def test_a_file_of_any_opset_becomes_one_of_ours_with_its_sizes_fixed(tmp_path: Path, opset: int) -> None:
    path = _file(tmp_path, opset)
    model = read_foreign(path, {"x": (2, 3, 4, 4)})
    assert (model.opset_imports[""], model.ir_version) == (OPSET, IR_VERSION)
    model = infer_shapes(model)
    (given,) = specs_of(path, list(model.graph.inputs), "input")
    (made,) = specs_of(path, list(model.graph.outputs), "output")
    assert (given.name, given.shape, given.dtype, given.layout) == ("x", (2, 3, 4, 4), "float32", "NCHW")
    assert (made.name, made.shape) == ("y", (2, 3, 4, 4))
    save(model, tmp_path / "ours.onnx")
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(_run(tmp_path / "ours.onnx", x), _run(path, x), rtol=1e-6)


def test_weights_in_a_file_of_their_own_come_along(tmp_path: Path) -> None:
    large = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 256])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 256])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [numpy_helper.from_array(large, "w")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.bin", size_threshold=0)
    ours = read_foreign(path, {})
    save(ours, tmp_path / "ours.onnx")
    row = np.ones((1, 256), np.float32)
    np.testing.assert_allclose(_run(tmp_path / "ours.onnx", row), row @ large, rtol=1e-4)


def test_weights_that_an_old_file_lists_as_inputs_are_weights(tmp_path: Path) -> None:
    model = onnx.load(_file(tmp_path, sizes=(1, 3, 4, 4)))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]))
    model.ir_version = 3
    onnx.save(model, tmp_path / "old.onnx")
    assert [value.name for value in read_foreign(tmp_path / "old.onnx", {}).graph.inputs] == ["x"]


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({}, "input 'x': expected static sizes, the file states n,3,4,4; give --input-shape x="),
        ({"x": (1, 3, 4)}, "--input-shape x=1,3,4: the file states n,3,4,4"),
        ({"x": (1, 3, 4, 5)}, "--input-shape x=1,3,4,5: the file states n,3,4,4"),
        ({"x": (0, 3, 4, 4)}, "--input-shape x=0,3,4,4: expected sizes of at least 1"),
        ({"z": (1,)}, "--input-shape: no input 'z'; there is x"),
    ],
)
def test_sizes_that_are_missing_or_wrong_are_named(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], said: str
) -> None:
    with pytest.raises(InvalidInput, match="opset11.onnx") as caught:
        read_foreign(_file(tmp_path), shapes)
    assert said in str(caught.value)


def test_the_advice_on_open_sizes_is_an_option_for_each_input_that_can_be_used_as_it_is(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[batch,3,h,w] x, int64[batch,tokens] ids, float[2,3] fixed) => (float[batch] y, float[2,3] z)
    { z = Exp(fixed) m = ReduceMean<axes = [1, 2, 3], keepdims = 0>(x) f = Cast<to = 1>(ids)
      s = ReduceMean<axes = [1], keepdims = 0>(f) y = Add(m, s) }"""
    path = tmp_path / "open.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    with pytest.raises(InvalidInput) as caught:
        read_foreign(path, {})
    said = str(caught.value)
    assert "input 'x': expected static sizes, the file states batch,3,h,w" in said
    assert said.endswith("give --input-shape x=1,3,224,224 --input-shape ids=1,128, with the sizes that you run it at")
    options = [option.removesuffix(",") for option in said.split("--input-shape ")[1:]]
    shapes = {o.split("=")[0]: tuple(map(int, o.split(", ")[0].split("=")[1].split(","))) for o in options}
    (first, _) = specs_of(path, list(read_foreign(path, shapes).graph.outputs), "output")
    assert first.shape == (1,)


def test_an_empty_batch_is_an_open_size(tmp_path: Path) -> None:
    path = _file(tmp_path, sizes=(0, 3, 4, 4))
    with pytest.raises(InvalidInput, match=r"states \?,3,4,4; give --input-shape x=1,3,4,4"):
        read_foreign(path, {})
    model = read_foreign(path, {"x": (1, 3, 4, 4)})
    assert specs_of(path, list(model.graph.outputs), "output")[0].shape == (1, 3, 4, 4)


def test_a_file_that_is_no_model_or_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such ONNX file"):
        read_foreign(tmp_path / "gone.onnx", {})
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(InvalidArtifact, match="not a valid ONNX model"):
        read_foreign(tmp_path / "text.onnx", {})
    path = _file(tmp_path, sizes=(1, 3, 4, 4))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InvalidArtifact, match="not a valid ONNX model"):
        read_foreign(path, {})


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (helper.make_tensor_type_proto(TensorProto.STRING, [1]), "got string"),
        (helper.make_tensor_type_proto(TensorProto.UINT64, [1]), "got uint64"),
        (helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1])), "expected a tensor"),
    ],
)
def test_inputs_that_we_do_not_carry_are_named(tmp_path: Path, kind: onnx.TypeProto, said: str) -> None:
    values = [helper.make_value_info(name, kind) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(InvalidInput, match="input 'x'") as caught:
        specs_of(path, list(read_foreign(path, {}).graph.inputs), "input")
    assert said in str(caught.value)


def test_an_output_whose_sizes_depend_on_values_is_named(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, [1, "found"])
    graph = helper.make_graph([helper.make_node("NonZero", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    (output,) = infer_shapes(read_foreign(path, {})).graph.outputs
    with pytest.raises(InvalidInput, match="output 'y': its sizes depend on values"):
        specs_of(path, [output], "output")
    # No value of an input would help, so the operator is named.
    assert "'y' (NonZero) gives as many as it finds" in how_to_fix_sizes(output)
    assert "--input-value" not in how_to_fix_sizes(output)


def _newer(folder: Path, node: onnx.NodeProto, opset: int, **inputs: list[int]) -> Path:
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in inputs.items()]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, next(iter(inputs.values())))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.preview", 1)]
    path = folder / "newer.onnx"
    onnx.save(helper.make_model(helper.make_graph([node], "g", given, [y]), opset_imports=opsets, ir_version=10), path)
    return path


def test_a_newer_operator_that_nothing_defines_is_named(tmp_path: Path) -> None:
    path = _newer(tmp_path, helper.make_node("CumProd", ["x", "axis"], ["y"], name="running"), 26, x=[2, 4], axis=[1])
    model = onnx.load(path)
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(model, path)
    with pytest.raises(InvalidArtifact, match=r"newer.onnx: its opset .* brought to 20: 'running' \(CumProd\)"):
        read_foreign(path, {})


def _mean_square(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-5) * scale)


def _groups_of_two(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    groups = x.reshape(len(x), 2, -1)
    centred = groups - groups.mean(-1, keepdims=True)
    normal = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5)
    return np.asarray(normal.reshape(x.shape) * scale[:, None] + scale[:, None])


@pytest.mark.parametrize(
    ("node", "sizes", "opset", "expected"),
    [
        (helper.make_node("Swish", ["x"], ["y"]), {"x": [2, 8]}, 24, lambda x: x / (1 + np.exp(-x))),
        (helper.make_node("RMSNormalization", ["x", "s"], ["y"]), {"x": [2, 8], "s": [8]}, 23, _mean_square),
        # Our opset has one of this name, whose scale and bias are a group's and not a channel's.
        (
            helper.make_node("GroupNormalization", ["x", "s", "s"], ["y"], num_groups=2),
            {"x": [2, 4, 3], "s": [4]},
            21,
            _groups_of_two,
        ),
    ],
)
def test_a_newer_operator_becomes_what_onnx_defines_it_to_be(
    tmp_path: Path, node: onnx.NodeProto, sizes: dict[str, list[int]], opset: int, expected: Callable[..., np.ndarray]
) -> None:
    model = read_foreign(_newer(tmp_path, node, opset, **sizes), {})
    assert model.opset_imports[""] == OPSET
    save(model, tmp_path / "ours.onnx")
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    session = onnxruntime.InferenceSession(tmp_path / "ours.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, feeds)[0], expected(*feeds.values()), rtol=1e-4, atol=1e-5)


def _reshape(folder: Path) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 6])
    sizes = helper.make_tensor_value_info("sizes", TensorProto.INT64, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b"])
    graph = helper.make_graph([helper.make_node("Reshape", ["x", "sizes"], ["y"])], "g", [x, sizes], [y])
    path = folder / "reshape.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_an_input_that_sizes_depend_on_can_be_made_a_constant(tmp_path: Path) -> None:
    path = _reshape(tmp_path)
    with pytest.raises(InvalidInput, match="give --input-value NAME="):
        specs_of(path, list(infer_shapes(read_foreign(path, {})).graph.outputs), "output")
    model = infer_shapes(read_foreign(path, {}, constants_of(path, {"sizes": np.array([3, 4])})))
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert specs_of(path, list(model.graph.outputs), "output")[0].shape == (3, 4)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("size", [3, 4], "--input-value size: no such input; there is x, sizes"),
        ("sizes", [3, 4, 1], "--input-value sizes: expected 2 value(s), got 3"),
        ("sizes", [1.5, 8], "--input-value sizes: the input is int64, which cannot hold [1.5, 8.0]"),
    ],
)
def test_a_value_that_does_not_fit_is_named(tmp_path: Path, name: str, value: list[float], said: str) -> None:
    with pytest.raises(InvalidInput, match="reshape.onnx") as caught:
        constants_of(_reshape(tmp_path), {name: np.array(value)})
    assert said in str(caught.value)


def test_a_graph_that_cannot_be_brought_to_our_opset_is_named_by_the_opset_that_it_has(tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["": 21]> g (float[2] x) => (uint4[2] y) { y = Cast<to = 21>(x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "four_bits.onnx")
    with pytest.raises(InvalidArtifact, match=r"its opset \(ai.onnx 21\) cannot be brought to 20"):
        read_foreign(tmp_path / "four_bits.onnx", {})


_LAYER = """<ir_version: 8, opset_import: ["": 17]>
g (float[IN] x) => (float[OUT] y) <float[8,3,3,3] w> { NODES }"""
_SORTED = "c = Conv<pads = [1, 1, 1, 1]>(x, w)\ny = Relu(c)"


def _layer(folder: Path, sizes: str, out: str, nodes: str = _SORTED) -> Path:
    proto = onnx.parser.parse_model(_LAYER.replace("IN", sizes).replace("OUT", out).replace("NODES", nodes))
    weight = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    del proto.graph.initializer[:]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path = folder / "layer.onnx"
    onnx.save(proto, path)
    return path


@pytest.mark.parametrize("out", ["1,8,5,6", "a,b,c", "8", "1,8,5,7"], ids=["true", "rank", "vector", "size"])
def test_sizes_of_an_output_are_inferred_again(tmp_path: Path, out: str) -> None:
    model = read_foreign(_layer(tmp_path, "1,3,5,6", out), {})
    (spec,) = specs_of(tmp_path, list(model.graph.outputs), "output")
    assert spec.shape == (1, 8, 5, 6)


def test_minus_one_is_an_open_size(tmp_path: Path) -> None:
    path = _layer(tmp_path, "1,3,5,6", "1,8,5,6")
    proto = onnx.load(path)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(proto, path)
    with pytest.raises(InvalidInput, match=r"the file states \?,3,5,6; give --input-shape x="):
        read_foreign(path, {})
    model = read_foreign(path, {"x": (2, 3, 5, 6)})
    assert [spec.shape for spec in specs_of(path, list(model.graph.outputs), "output")] == [(2, 8, 5, 6)]


def test_nodes_out_of_order_are_sorted(tmp_path: Path) -> None:
    model = read_foreign(_layer(tmp_path, "1,3,5,6", "1,8,5,6", "\n".join(reversed(_SORTED.splitlines()))), {})
    assert [node.op_type for node in model.graph] == ["Conv", "Relu"]


def test_a_weight_in_a_constant_node_becomes_an_initializer(tmp_path: Path) -> None:
    path = _layer(tmp_path, "1,3,5,6", "1,8,5,6")
    proto = onnx.load(path)
    (weight,) = proto.graph.initializer
    del proto.graph.initializer[:]
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=weight))
    onnx.save(proto, path)
    model = read_foreign(path, {})
    assert [node.op_type for node in model.graph] == ["Conv", "Relu"]
    assert list(model.graph.initializers) == ["w"]


def test_a_size_that_cannot_be_inferred_is_the_stated_one(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, [1, 3])
    graph = helper.make_graph([helper.make_node("NonZero", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    assert [spec.shape for spec in specs_of(path, list(read_foreign(path, {}).graph.outputs), "output")] == [(1, 3)]


@pytest.mark.parametrize("location", ["/etc/hostname", "../secret.bin", "link.bin"])
def test_a_file_that_is_mended_may_not_read_weights_from_elsewhere(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = _layer(folder, "1,3,5,6", "1,8,5,6", "\n".join(reversed(_SORTED.splitlines())))
    (tmp_path / "secret.bin").write_bytes(bytes(4 * 8 * 27))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    proto = onnx.load(path)
    proto.graph.node[1].attribute.append(
        helper.make_attribute("other", helper.make_tensor("t", TensorProto.FLOAT, [8, 3, 3, 3], bytes(864), raw=True))
    )
    tensor = proto.graph.node[1].attribute[-1].t
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InvalidArtifact, match=r"layer\.onnx"):
        read_foreign(path, {})
