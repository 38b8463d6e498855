"""The outputs of an imported graph are held to those of its file, whose floats may have another width."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from backends.bundle import Bundle
from backends.errors import InvalidArtifact
from tests.foreign_graphs import toolkit
from toolkit import import_check
from toolkit.convert.pipeline import convert_bundle
from toolkit.import_model import import_model
from toolkit.parity.agreement import conversion_rules
from toolkit.parity.compare import compare_bundle


@pytest.mark.parametrize(
    ("values", "moved", "passes"),
    [
        # The whole range of the first output is nearly nothing: rounding moves it, by up to 1e-6.
        ([1e-7, 7e-6], 9e-7, True),
        ([1e-7, 7e-6], 2e-6, False),
        ([0.0, 1.0], 0.9e-4, True),
        ([0.0, 1.0], 1.2e-4, False),
        ([0.0, 100.0], 0.9e-2, True),
        ([0.0, 100.0], 1.2e-2, False),
        ([0.0, 1.0], 0.99e-4, True),
        ([0.0, 1.0], 1.01e-4, False),
        ([0.0, 7e-6], 0.99e-6, True),
        ([0.0, 7e-6], 1.01e-6, False),
        ([0.0, 0.0], 0.99e-6, True),
    ],
)
def test_a_difference_counts_over_the_range_and_from_a_millionth_on(
    values: list[float], moved: float, passes: bool
) -> None:
    expected, got = np.array(values), np.array(values)
    got[1] += moved
    assert (import_check.difference([{"y": expected}], [{"y": got}]) is None) == passes


_FLOATS = {"float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE}


def _in_other_floats(folder: Path, name: str) -> Path:
    """A convolution, casts to float32 and back, a constant, and a large matrix that lies in a file of its own."""
    rng, dtype = np.random.default_rng(0), _FLOATS[name]
    weights = {"kernel": (4, 3, 3, 3), "matrix": (4 * 8 * 8, 200)}
    scale = numpy_helper.from_array(np.full((200,), 0.5, name), "scale")
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["map"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Softplus", ["wide"], ["soft"]),
        helper.make_node("Cast", ["soft"], ["narrow"], to=dtype),
        helper.make_node("Flatten", ["narrow"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["product"]),
        helper.make_node("Constant", [], ["s"], value=scale),
        helper.make_node("Mul", ["product", "s"], ["y"]),
        helper.make_node("ArgMax", ["y"], ["best"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, [1, 3, 8, 8])],
        [
            helper.make_tensor_value_info("y", dtype, [1, 200]),
            helper.make_tensor_value_info("best", TensorProto.INT64, [1]),
        ],
        [numpy_helper.from_array((0.1 * rng.standard_normal(s)).astype(name), n) for n, s in weights.items()],
    )
    path = folder / "source.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


@pytest.mark.parametrize("name", _FLOATS)
def test_floats_of_another_width_become_float32_and_every_later_command_works(tmp_path: Path, name: str) -> None:
    source = _in_other_floats(tmp_path, name)
    shown = toolkit("import", source, "-o", tmp_path / "out")
    assert shown.exit_code == 0, shown.stderr
    # ONNX Runtime has no convolution of float64: another line says that onnx's reference ran the file.
    line, *others = shown.stderr.splitlines()
    assert [("reference implementation" in other) for other in others] == [True] * (name == "float64")
    assert f"source.onnx: its tensors of {name} become float32" in line
    assert ("-p fp16" in line) == (name == "float16")
    (artifact,) = Bundle.open(tmp_path / "out").artifacts
    assert [binding.spec.dtype for binding in (*artifact.inputs, *artifact.outputs)] == ["float32", "float32", "int64"]
    model = onnx.load(tmp_path / "out" / "model.onnx")
    assert {tensor.data_type for tensor in model.graph.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}
    assert "Cast" not in [node.op_type for node in model.graph.node]
    x = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(name)
    expected = ReferenceEvaluator(onnx.load(source)).run(["y"], {"x": x})[0]
    got = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx").run(["y"], {"x": x.astype(np.float32)})[0]
    np.testing.assert_allclose(got, expected, rtol=2e-2 if name == "float16" else 1e-4, atol=1e-2 * np.ptp(expected))
    report = compare_bundle(convert_bundle(tmp_path / "out", conversion_rules, ("fp32", "fp16"), strict=True).bundle)
    assert report.passed


def test_float32_that_is_not_what_a_float16_file_computes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _in_other_floats(tmp_path, "float16")
    true = import_check.run

    def other(path: Path, feeds: import_check.Feeds) -> import_check.Outputs:
        outputs = true(path, feeds)
        return [
            {name: value + np.ptp(value) * np.array(0.1, value.dtype) for name, value in one.items()} for one in outputs
        ]

    monkeypatch.setattr("toolkit.import_model.run", other)
    monkeypatch.setattr("toolkit.import_check._run_apart", lambda path, feeds, *_: true(path, feeds))
    with pytest.raises(InvalidArtifact, match="brought to our opset it gives other outputs: 'y' moved by"):
        import_model(source, tmp_path / "out", {})

    def refused(path: Path, feeds: import_check.Feeds) -> import_check.Outputs:
        raise InvalidArtifact(f"{path}: ONNX Runtime cannot run it: loading {path} failed")

    monkeypatch.setattr("toolkit.import_model.run", refused)
    said = f"^{source}: brought to opset 20: ONNX Runtime cannot run it: loading the graph failed$"
    with pytest.raises(InvalidArtifact, match=said):
        import_model(source, tmp_path / "out", {})


_HALF_INTEGERS = """<ir_version: 8, opset_import: ["": 17]>
g (float16[1,64] x) => (int64[1] best, uint8[1,64] picture) {
  best = ArgMax <axis = 1, keepdims = 0> (x)
  y = Sigmoid(x)
  scaled = Mul(y, big)
  picture = Cast <to = 2> (scaled)
}"""


@pytest.mark.parametrize(
    ("best", "picture", "said"),
    [
        (0, 0, []),
        (1, 1, ["output 'best' has other values than the file's at 3 of 3 places, which were not compared"]),
        (0, 60, None),
    ],
)
def test_integers_of_a_file_in_half_precision_are_compared_where_they_are_rounded_floats_and_else_said_not_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best: int, picture: int, said: list[str] | None
) -> None:
    model = onnx.parser.parse_model(_HALF_INTEGERS)
    model.graph.initializer.append(numpy_helper.from_array(np.array(100, np.float16), "big"))
    onnx.save(model, tmp_path / "source.onnx")
    moved = {"best": best, "picture": picture}

    def other(path: Path, feeds: import_check.Feeds, *_: object) -> import_check.Outputs:
        outputs = import_check.run(path, feeds)
        return [{name: value + np.array(moved[name], value.dtype) for name, value in one.items()} for one in outputs]

    monkeypatch.setattr("toolkit.import_check._run_apart", other)
    notes: list[str] = []
    if said is None:
        with pytest.raises(InvalidArtifact, match="brought to our opset it gives other outputs: 'picture' moved by"):
            import_model(tmp_path / "source.onnx", tmp_path / "out", {}, note=notes.append)
        return
    import_model(tmp_path / "source.onnx", tmp_path / "out", {}, note=notes.append)
    lines = [line for line in notes if "not compared" in line]
    assert len(lines) == len(said)
    assert all(expected in line for expected, line in zip(said, lines, strict=True))
