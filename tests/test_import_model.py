"""An imported graph goes all the way: a bundle, TFLite files, a comparison. And what cannot, changes nothing."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.bundle import Bundle
from backends.errors import InvalidArtifact, InvalidInput, NotAvailable
from tests.foreign_graphs import save_graph, square_root, toolkit
from toolkit.bench.unprepared import write_unprepared
from toolkit.convert.pipeline import convert_bundle
from toolkit.import_model import import_model
from toolkit.parity.agreement import conversion_rules
from toolkit.parity.compare import compare_bundle


def _two_inputs_and_outputs(folder: Path) -> Path:
    """A convolution's mean through a Gemm plus integers, and the index of the largest."""
    rng = np.random.default_rng(0)
    weights = {"kernel": (8, 3, 3, 3), "matrix": (8, 5)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "kernel"], ["map"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["map"], ["positive"]),
            helper.make_node("ReduceMean", ["positive"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["mean", "matrix"], ["product"]),
            helper.make_node("Cast", ["ids"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["product", "floats"], ["scores"]),
            helper.make_node("ArgMax", ["mean"], ["best"], axis=1, keepdims=0),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 5]),
        ],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 5]),
            helper.make_tensor_value_info("best", TensorProto.INT64, ["n"]),
        ],
        [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in weights.items()],
    )
    return save_graph(folder, graph)


def test_import_convert_and_compare_work_on_it_with_several_and_integer_inputs(tmp_path: Path) -> None:
    source, folder = _two_inputs_and_outputs(tmp_path), tmp_path / "build" / "foreign"
    shown = toolkit("import", source, "-o", folder, "--input-shape", "x=1,3,12,16")
    assert (shown.exit_code, shown.stderr) == (0, "")
    bundle = Bundle.open(folder)
    mendings = ["the opset (ai.onnx 17) was brought to 20"]
    assert bundle.model == {
        "name": "foreign",
        "kind": "tensor",
        "mendings": mendings,
        "source": {"file": "../../source.onnx", "sizes": {"x": [1, 3, 12, 16]}},
    }
    assert (bundle.weights.origin, bundle.weights.source) == ("checkpoint", "source.onnx")
    (artifact,) = bundle.artifacts
    assert (artifact.file, artifact.role) == ("model.onnx", "model")
    assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "model.onnx"]
    specs = [(b.spec.name, b.spec.dtype, b.spec.shape) for b in (*artifact.inputs, *artifact.outputs)]
    assert specs == [
        ("x", "float32", (1, 3, 12, 16)),
        ("ids", "int64", (1, 5)),
        ("scores", "float32", (1, 5)),
        ("best", "int64", (1,)),
    ]
    converted = convert_bundle(folder, conversion_rules, ("fp32", "int8"), strict=True).bundle
    lowered = converted.find("model", "tflite", "fp32")
    assert lowered.file == "model.fp32.tflite"
    assert lowered.inputs[0].stored.layout == "NHWC"
    report = compare_bundle(converted)
    assert report.passed
    (role,) = report.roles
    assert {file.artifact.file for file in role.files} == {"model.fp32.tflite", "model.int8.tflite", "model.int8.onnx"}
    assert role.samples["synthetic"] > 30
    for file in role.files:
        assert file.total is not None
        assert set(file.total.outputs) == {"scores", "best"}
        assert file.total.outputs["best"].is_exact


def test_samples_outside_the_domain_are_left_out_and_counted(tmp_path: Path) -> None:
    bundle = import_model(square_root(tmp_path), tmp_path / "root", {})
    convert_bundle(bundle.folder, conversion_rules, ("fp32",), strict=True)
    report = compare_bundle(Bundle.open(bundle.folder))
    assert report.passed
    assert report.roles[0].outside_domain == 18  # normal noise, ten times that, and all -1
    assert report.roles[0].samples == {"synthetic": 20}


def _not_lowered(folder: Path) -> Path:
    """The running maximum over four rows."""
    row, rows = ([1, 3], [4, 1, 3])
    names = {"x": rows, "y": rows, "before": row, "given": row, "after": row, "shown": row}
    tensors = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in names.items()}
    step = helper.make_graph(
        [helper.make_node("Max", ["before", "given"], ["after"]), helper.make_node("Identity", ["after"], ["shown"])],
        "step",
        [tensors["before"], tensors["given"]],
        [tensors["after"], tensors["shown"]],
    )
    node = helper.make_node("Scan", ["start", "x"], ["last", "y"], name="running", body=step, num_scan_inputs=1)
    start = numpy_helper.from_array(np.zeros(row, np.float32), "start")
    return save_graph(folder, helper.make_graph([node], "g", [tensors["x"]], [tensors["y"]], [start]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            """(float[1,3,8,8] x, float[8] corners) => (float[1,3,9,7] y)
            { [crop] y = Resize<coordinate_transformation_mode = "tf_crop_and_resize">(x, corners, , sizes) }""",
            "'crop' (Resize with coordinate_transformation_mode=tf_crop_and_resize)",
        ),
        (
            """(float[6,2,5] x) => (float[6,1,2,7] y) <float[1,28,5] w, float[1,28,7] r, float[1,56] b, float[1,21] p>
            { [rnn] y = LSTM<hidden_size = 7>(x, w, r, b, lengths, , , p) }""",
            "'rnn' (LSTM with sequence_lens and peepholes)",
        ),
    ],
)
def test_an_operator_that_the_lowering_has_is_named_with_what_it_lacks(tmp_path: Path, text: str, said: str) -> None:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> g {text}')
    sizes = {"w": (1, 28, 5), "r": (1, 28, 7), "b": (1, 56), "p": (1, 21)}
    del model.graph.initializer[:]
    if "LSTM" in text:
        constants = {name: np.full(size, 0.1, np.float32) for name, size in sizes.items()}
        constants["lengths"] = np.array([6, 4], np.int32)
    else:
        constants = {"sizes": np.array([1, 3, 9, 7])}
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in constants.items())
    onnx.save(model, tmp_path / "source.onnx")
    shown = toolkit("import", tmp_path / "source.onnx", "-o", tmp_path / "bundle")
    assert shown.exit_code == 0
    assert f"no TFLite file can be made: onnx2tf does not lower {said}; run it on ONNX Runtime (`toolkit convert " in (
        shown.stderr
    )


def test_what_the_lowering_does_not_have_is_said_at_once_by_node_and_operator(tmp_path: Path) -> None:
    source, folder = _not_lowered(tmp_path), tmp_path / "scan"
    shown = toolkit("import", source, "-o", folder)
    assert shown.exit_code == 0
    (warning,) = shown.stderr.splitlines()
    assert "onnx2tf does not lower 'running' (Scan)" in warning
    assert "run it on ONNX Runtime" in warning
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(before) == ["bundle.json", "model.onnx"]
    with pytest.raises(NotAvailable, match="onnx2tf does not lower 'running'"):
        convert_bundle(folder, conversion_rules, ("fp32",), strict=True)
    log = folder / "convert-model-direct.log"
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path != log} == before


def test_a_graph_that_draws_random_numbers_cannot_be_held_to_anything(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in ("x", "y")]
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["r"]), helper.make_node("Add", ["x", "r"], ["y"])]
    source = save_graph(tmp_path, helper.make_graph(nodes, "g", values[:1], values[1:]))
    with pytest.raises(InvalidArtifact, match="random numbers"):
        import_model(source, tmp_path / "random", {})
    assert [path.name for path in tmp_path.iterdir()] == ["source.onnx"]


def test_a_source_that_no_runtime_knows_is_held_to_the_reference_and_that_is_said(tmp_path: Path) -> None:
    q, kv, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("q", [1, 2, 3, 4]), ("k", [1, 2, 5, 4]), ("y", [1, 2, 3, 4]))
    )
    node = helper.make_node("FlexAttention", ["q", "k", "k"], ["y"], domain="ai.onnx.preview")
    graph = helper.make_graph([node], "g", [q, kv], [y])
    opsets = [helper.make_opsetid("", 26), helper.make_opsetid("ai.onnx.preview", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "source.onnx")
    shown = toolkit("import", tmp_path / "source.onnx", "-o", tmp_path / "attention")
    assert shown.exit_code == 0
    (warning,) = shown.stderr.splitlines()
    assert "source.onnx: ONNX Runtime" in warning
    assert "cannot run it" in warning
    assert "compared with onnx's reference implementation instead" in warning


def test_a_file_that_kills_onnx_runtime_is_imported_without_what_it_dies_of(tmp_path: Path) -> None:
    """ONNX Runtime 1.31 dies of a bias that is named as missing, which onnx allows at the end of any list of inputs."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 8]) for name in ("x", "y")]
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale", ""], ["norm"]),
        helper.make_node("Relu", ["norm"], ["y"]),
    ]
    scale = numpy_helper.from_array(np.ones(8, np.float32), "scale")
    path = save_graph(tmp_path, helper.make_graph(nodes, "norm", values[:1], values[1:], [scale]))
    shown = toolkit("import", path, "-o", tmp_path / "norm")
    assert shown.exit_code == 0, shown.stderr
    assert "killed by" in shown.stderr


def test_an_output_that_is_a_sequence_is_one_line(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8])
    y = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    source = save_graph(
        tmp_path, helper.make_graph([helper.make_node("SequenceConstruct", ["x", "x"], ["y"])], "g", [x], [y])
    )
    shown = toolkit("import", source, "-o", tmp_path / "sequence")
    assert (shown.exit_code, shown.stderr.count("\n")) == (2, 1)
    assert "output 'y': expected a tensor, got" in shown.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source.onnx"]


def test_an_input_that_nothing_reads_is_left_out_and_said(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 8]) for name in "xzy"]
    node = helper.make_node("Exp", ["x"], ["y"])
    source = save_graph(tmp_path, helper.make_graph([node], "g", values[:2], values[2:]))
    shown = toolkit("import", source, "-o", tmp_path / "exp")
    assert shown.exit_code == 0, shown.stderr
    assert "input 'z': no operator reads it" in shown.stderr
    (artifact,) = Bundle.open(tmp_path / "exp").artifacts
    assert [binding.spec.name for binding in artifact.inputs] == ["x"]


def test_an_operator_of_nobody_s_domain_is_one_line(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Foo", ["x"], ["y"], domain="com.acme")], "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "source.onnx")
    shown = toolkit("import", tmp_path / "source.onnx", "-o", tmp_path / "out")
    assert (shown.exit_code, shown.stdout) == (2, "")
    (line,) = shown.stderr.splitlines()
    assert "com.acme:Foo" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--input-value", "x"], "expected NAME=2,3, got 'x'"),
        (["--input-value", "ids=1,a"], "expected NAME=2,3, got 'ids=1,a'"),
        (["--input-value", "z=1"], "--input-value z: no such input; there is x, ids"),
        (["--input-shape", "x"], "expected NAME=1,3,224,224, got 'x'"),
        (["--input-shape", "x=1,2b"], "expected NAME=1,3,224,224, got 'x=1,2b'"),
        (["--input-shape", "x=1,a"], "--input-shape x=1,a: the file states n,3,h,w"),
        ([], "input 'x': expected static sizes, the file states n,3,h,w"),
    ],
)
def test_a_wrong_option_is_one_line_and_leaves_nothing(tmp_path: Path, arguments: list[str], said: str) -> None:
    shown = toolkit("import", _two_inputs_and_outputs(tmp_path), "-o", tmp_path / "out", *arguments)
    assert (shown.exit_code, shown.stdout) == (2, "")
    (line,) = shown.stderr.splitlines()
    assert said in line
    assert not (tmp_path / "out").exists()


def test_a_scalar_input_and_a_boolean_output_go_all_the_way(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Greater", ["x", "limit"], ["above"])],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3]),
            helper.make_tensor_value_info("limit", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info("above", TensorProto.BOOL, [2, 3])],
    )
    bundle = import_model(save_graph(tmp_path, graph), tmp_path / "above", {})
    report = compare_bundle(convert_bundle(bundle.folder, conversion_rules, ("fp32",), strict=True).bundle)
    assert report.passed
    (file,) = report.roles[0].files
    assert file.total is not None
    assert file.total.outputs["above"].dtype == "bool"


def test_a_graph_whose_outputs_are_constants_is_refused(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    y = helper.make_tensor_value_info("y", TensorProto.INT64, [2])
    graph = helper.make_graph([helper.make_node("Shape", ["x"], ["y"])], "g", [x], [y])
    with pytest.raises(InvalidInput, match="no operator is left of it"):
        import_model(save_graph(tmp_path, graph), tmp_path / "shape", {})


_ODD_OUTPUTS = {
    "a constant": ("y = Exp(x)", "float[2,3] k", "output 'k' is a constant"),
    "a constant once it is simplified": ("y = Exp(x) k = Shape(x)", "int64[2] k", "output 'k' is a constant"),
    "an input": ("y = Exp(x)", "float[2,3] x", "output 'x' is an input"),
    "listed twice": ("y = Exp(x)", "float[2,3] y", "output 'y' is listed twice"),
}


@pytest.mark.parametrize(("nodes", "second", "said"), _ODD_OUTPUTS.values(), ids=_ODD_OUTPUTS)
def test_an_output_that_nothing_computes_is_left_out_and_said(
    tmp_path: Path, nodes: str, second: str, said: str
) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y, {second})
    {"<float[2,3] k = {1, 2, 3, 4, 5, 6}>" if second == "float[2,3] k" else ""} {{ {nodes} }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "source.onnx")
    shown = toolkit("import", tmp_path / "source.onnx", "-o", tmp_path / "out")
    assert shown.exit_code == 0, shown.stderr
    (line,) = shown.stderr.splitlines()
    assert said in line
    (artifact,) = Bundle.open(tmp_path / "out").artifacts
    assert [binding.spec.name for binding in artifact.outputs] == ["y"]
    write_unprepared(Bundle.open(tmp_path / "out"), "model", tmp_path, tmp_path / "source.onnx")
    assert [value.name for value in onnx.load(tmp_path / "exported.onnx").graph.output] == ["y"]
    report = compare_bundle(convert_bundle(tmp_path / "out", conversion_rules, ("fp32",), strict=True).bundle)
    assert report.passed


@pytest.mark.parametrize("nodes", ["", "k = Identity(x)"])
def test_a_graph_that_gives_back_its_input_is_one_line(tmp_path: Path, nodes: str) -> None:
    outputs = "float[2,3] k" if nodes else "float[2,3] x"
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => ({outputs}) {{ {nodes} }}'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "source.onnx")
    shown = toolkit("import", tmp_path / "source.onnx", "-o", tmp_path / "out")
    assert shown.exit_code == (0 if nodes else 2)
    assert nodes or "no operator is left of it" in shown.stderr


def test_a_dense_layer_on_a_computed_map_is_quantized_as_one(tmp_path: Path) -> None:
    # The file states no size but its input's: the map that the layer reads has one by inference alone.
    random = np.random.default_rng(0)
    layers = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["turned", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        layers,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 64, 5))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5, 128))],
        [numpy_helper.from_array(random.standard_normal((64, 128), dtype=np.float32), "w")],
    )
    bundle = import_model(save_graph(tmp_path, graph), tmp_path / "bundle", {})
    operators = [node.op_type for node in onnx.load(tmp_path / "bundle" / "model.onnx").graph.node]
    assert "Gemm" in operators
    bundle = convert_bundle(tmp_path / "bundle", conversion_rules, ("fp32", "int8"), strict=True).bundle
    full, quantized = (bundle.find("model", "tflite", precision).bytes for precision in ("fp32", "int8"))
    assert quantized < 0.5 * full


def test_axes_that_a_graph_turns_first_or_last_are_those_of_its_tflite_file(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[2,6,5] x, float[2,6,5] k, float[2,2,5] q) => (float[2,5,6] y, float[2,2,6] scores, float[2,3,6,5] map)
    <int64[4] sizes = {2, 6, 5, 1}, int64[4] thrice = {1, 1, 1, 3}>
    {
      turned = Transpose<perm = [0,2,1]>(x)
      y = Tanh(turned)
      keys = Transpose<perm = [0,2,1]>(k)
      scores = MatMul(q, keys)
      four = Reshape(x, sizes)
      wide = Tile(four, thrice)
      first = Transpose<perm = [0,3,1,2]>(wide)
      map = Exp(first)
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "source.onnx")
    bundle = import_model(tmp_path / "source.onnx", tmp_path / "turned", {})
    convert_bundle(bundle.folder, conversion_rules, ("fp32",), strict=True)
    assert compare_bundle(Bundle.open(bundle.folder)).passed
