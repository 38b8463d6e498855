"""Files that exporters write are imported: other domains, constant conditions, wrong sizes, weights in other files."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.bundle import Bundle, WeightsOrigin
from backends.errors import InvalidArtifact
from backends.registry import open_session
from graphs.onnx.source import given_values, values_json
from tests.foreign_graphs import toolkit
from toolkit import load
from toolkit.bench.unprepared import write_unprepared

_OTHER_DOMAIN = {
    "stated sizes": ("float[2,4] x", "float[2,4] y", "m = com.microsoft.FusedMatMul<alpha = 0.5>(x, w) y = Relu(m)"),
    "an open batch": ("float[n,4] x", "float[n,4] y", "m = com.microsoft.FusedMatMul<alpha = 0.5>(x, w) y = Relu(m)"),
    "no sizes": ("float[2,4] x", "float y", "m = Relu(x) y = com.microsoft.BiasGelu(m, b)"),
    "a function": ("float[2,4] x", "float[2,4] y", "y = mine.layer(x, w)"),
}


@pytest.mark.parametrize(("given", "made", "nodes"), _OTHER_DOMAIN.values(), ids=_OTHER_DOMAIN)
def test_operators_of_onnx_runtime_and_functions_of_the_file_are_imported(
    tmp_path: Path, given: str, made: str, nodes: str
) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1, "mine": 1]>
    g ({given}) => ({made}) <float[4,4] w, float[4] b = {{1, 2, 3, 4}}> {{ {nodes} }}
    <domain: "mine", opset_import: ["": 17, "com.microsoft": 1]>
    layer (a, m) => (r) {{ e = Exp(a) r = com.microsoft.FusedMatMul<alpha = 0.5>(e, m) }}"""
    proto = onnx.parser.parse_model(text)
    weights = {"w": np.arange(16, dtype=np.float32).reshape(4, 4), "b": np.arange(4, dtype=np.float32)}
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(numpy_helper.from_array(w, n) for n, w in weights.items() if f", {n})" in nodes)
    if "mine" not in nodes:
        del proto.functions[:]
    if made == "float y":
        proto.graph.output[0].type.tensor_type.ClearField("shape")
    source = tmp_path / "source.onnx"
    onnx.save(proto, source)
    options = ("--input-shape", "x=2,4") if "n" in given else ()
    shown = toolkit("import", source, "-o", tmp_path / "out", *options)
    assert shown.exit_code == 0, shown.stderr
    bundle = Bundle.open(tmp_path / "out")
    artifact = bundle.find("model", "onnx", "fp32")
    assert [(binding.spec.name, binding.spec.shape) for binding in artifact.outputs] == [("y", (2, 4))]
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    with open_session(bundle, artifact, "ort", threads=1) as session:
        got = session.run({"x": x})["y"]
    np.testing.assert_allclose(got, onnxruntime.InferenceSession(source).run(None, {"x": x})[0], rtol=1e-5)


def test_sizes_that_the_file_states_are_not_believed_against_what_it_gives(tmp_path: Path) -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (int64[1,3] y) { y = NonZero(x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "source.onnx")
    shown = toolkit("import", tmp_path / "source.onnx", "-o", tmp_path / "out")
    assert shown.exit_code == 0, shown.stderr
    assert "no TFLite file can be made: output 'y' has no largest size" in shown.stderr
    assert "(NonZero) gives as many as it finds" in shown.stderr
    with load(tmp_path / "out") as model:
        for values in ([1, 0, 2, 3], [0, 0, 0, 4]):
            x = np.array(values, np.float32)
            np.testing.assert_array_equal(model.run(x)["y"], [np.flatnonzero(x)])


@pytest.mark.parametrize(
    ("rate", "operators"), [(16000, ["Exp", "Sqrt", "Neg", "Sigmoid", "Tanh"]), (8000, ["Relu", "Tanh"])]
)
def test_the_branch_of_a_constant_condition_takes_the_place_of_its_if(
    tmp_path: Path, rate: int, operators: list[str]
) -> None:
    text = """<ir_version: 8, opset_import: ["": 16]>
    g (float[2,4] x, int64 rate) => (float[2,4] y) <int64 wide = {16000}> {
      is_wide = Equal(rate, wide)
      h = If (is_wide) <
        then_branch = yes () => (float[2,4] t) {
          e = Exp(x)
          n = If (is_wide) <
            then_branch = inner () => (float[2,4] i) { s = Sqrt(e) i = Neg(s) },
            else_branch = other () => (float[2,4] o) { o = Relu(e) }>
          t = Sigmoid(n) },
        else_branch = no () => (float[2,4] f) { f = Relu(x) }>
      y = Tanh(h) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "source.onnx")
    shown = toolkit("import", tmp_path / "source.onnx", "-o", tmp_path / "out", "--input-value", f"rate={rate}")
    assert (shown.exit_code, shown.stderr) == (0, "")
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    assert [node.op_type for node in graph.node] == operators
    assert [value.name for value in graph.input] == ["x"]
    # `bench --source` gives the input the same value again.
    bundle = Bundle.open(tmp_path / "out")
    unprepared = write_unprepared(bundle, "model", tmp_path, tmp_path / "source.onnx")
    x = {"x": np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)}
    got, expected = (
        onnxruntime.InferenceSession(path).run(None, x)[0]
        for path in (tmp_path / unprepared.file, tmp_path / "out" / "model.onnx")
    )
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("value", [[], {"rate": 1}, {"rate": {"shape": [2], "values": ["1"]}}])
def test_values_of_inputs_that_are_none_are_refused(tmp_path: Path, value: object) -> None:
    weights = WeightsOrigin("checkpoint", "0" * 64, "m.onnx")
    with pytest.raises(InvalidArtifact, match="model.input_values"):
        given_values(Bundle(tmp_path, {"name": "m", "kind": "tensor", "input_values": value}, weights, ()))


def test_values_of_inputs_are_kept_with_infinity_and_shape(tmp_path: Path) -> None:
    values = {"a": np.array([[-np.inf, 2.5]]), "b": np.array(7, np.int64), "c": np.array([True])}
    weights = WeightsOrigin("checkpoint", "0" * 64, "m.onnx")
    model = {"name": "m", "kind": "tensor", "input_values": json.loads(json.dumps(values_json(values)))}
    found = given_values(Bundle(tmp_path, model, weights, ()))
    assert found.keys() == values.keys()
    for name, array in values.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape


def _with_external_data(folder: Path) -> Path:
    """A graph whose small and large weights, and those of its Constant node, lie in a file beside it."""
    rng = np.random.default_rng(0)
    large = numpy_helper.from_array(rng.standard_normal((300, 64)).astype(np.float32), "large")  # over 64 KiB
    bias = numpy_helper.from_array(rng.standard_normal(64).astype(np.float32), "bias")
    scale = numpy_helper.from_array(rng.standard_normal(64).astype(np.float32), "scale")
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["s"], value=scale),
            helper.make_node("Gemm", ["x", "large", "bias"], ["gemm"]),
            helper.make_node("Mul", ["gemm", "s"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 300])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 64])],
        [large, bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "source.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0, convert_attribute=True)
    return path


@pytest.mark.parametrize("place", ["relative", "absolute", "through a linked folder", "a linked file", "Hugging Face"])
def test_a_file_with_external_data_is_imported_from_any_directory(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, work = tmp_path / "models" / "real", tmp_path / "work"
    real.mkdir(parents=True)
    work.mkdir()
    source = _with_external_data(real)
    (tmp_path / "linked").symlink_to(real)
    (work / "link.onnx").symlink_to(source)
    # The cache of the Hugging Face Hub has files of no telling name, and links to them.
    for name, blob in (("source.onnx", "blobs/1a"), ("weights.bin", "blobs/2b")):
        (tmp_path / "hub" / "blobs").mkdir(parents=True, exist_ok=True)
        (tmp_path / "hub" / blob).write_bytes((real / name).read_bytes())
        (tmp_path / "hub" / "snapshots" / "rev").mkdir(parents=True, exist_ok=True)
        (tmp_path / "hub" / "snapshots" / "rev" / name).symlink_to(Path("../..") / blob)
    monkeypatch.chdir(work)
    given = {
        "Hugging Face": tmp_path / "hub" / "snapshots" / "rev" / "source.onnx",
        "relative": Path("../models/real/source.onnx"),
        "absolute": source,
        "through a linked folder": tmp_path / "linked" / "source.onnx",
        "a linked file": Path("link.onnx"),
    }[place]
    result = toolkit("import", given, "-o", "made")
    assert result.exit_code == 0, result.output
    x = np.random.default_rng(1).standard_normal((2, 300)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(source).run(None, {"x": x})
    bundle = Bundle.open(Path("made"))
    with open_session(bundle, bundle.find("model", "onnx", "fp32"), "ort", threads=1) as session:
        np.testing.assert_allclose(session.run({"x": x})["y"], expected, rtol=1e-5)
    # `bench --source` reads the file again, as it is and imported for another batch.
    unprepared = write_unprepared(bundle, "model", tmp_path, given)
    np.testing.assert_allclose(
        onnxruntime.InferenceSession(tmp_path / unprepared.file).run(None, {"x": x})[0], expected, rtol=1e-5
    )
