"""Operators that LiteRT does not load: left in float where eight bits are to blame, else named after their nodes."""

from pathlib import Path

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from click.testing import CliRunner

from backends.bundle import Bundle
from backends.sandbox import SandboxProcess
from graphs.passes.registry import passes
from graphs.tflite.part import RefusedOp, find_refused_ops, load_error
from tests.tiny import FOLDER
from toolkit.cli import main
from toolkit.convert import slices
from toolkit.convert.names import carry_names
from toolkit.convert.pipeline import convert_bundle
from toolkit.convert.refused import NodeNames
from toolkit.import_model import import_model
from toolkit.parity.agreement import conversion_rules
from toolkit.parity.compare import compare_bundle

# Lowered to two BATCH_MATMUL whose constant is on the left, which the quantizer stores in eight bits.
_CUBIC = """(float[1,4,8,8] x) => (float[1,24] y)
<int64[4] sizes = {1, 4, 16, 16}, int64[2] flat = {1, 1024}> {
    large = Resize<mode = "cubic", coordinate_transformation_mode = "half_pixel">(x, , , sizes)
    rows = Reshape(large, flat)
    y = MatMul(rows, w)
}"""
# onnx2tf has no TFLite operator for a slope a channel of three dimensions.
_SLOPES = "(float[1,8,16] x) => (float[1,8,16] y) { y = PRelu(x, w) }"


def _imported(folder: Path, text: str, shape: tuple[int, ...]) -> Bundle:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> g {text}')
    weight = np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    model.graph.node[0].name = "first"
    onnx.save(model, folder / "source.onnx")
    return import_model(folder / "source.onnx", folder / "foreign", {})


def test_an_operator_that_does_not_load_in_eight_bits_stays_in_float_and_is_named(tmp_path: Path) -> None:
    bundle = _imported(tmp_path, _CUBIC, (1024, 24))
    command = ["convert", str(bundle.folder), "--runtime", "tflite", "-p", "fp32", "-p", "int8"]
    shown = CliRunner(env={"COLUMNS": "150"}).invoke(main, command, catch_exceptions=False)
    assert shown.exit_code == 0
    (note,) = (line for line in shown.stderr.splitlines() if line.startswith("note: "))
    assert note == (
        "note: model.int8.tflite: in float32, because LiteRT does not load or run it in int8: "
        "BATCH_MATMUL of node 'first' (Resize)"
    )
    assert compare_bundle(Bundle.open(bundle.folder)).passed
    (row,) = (line for line in shown.stdout.splitlines() if line.startswith(" model.int8.tflite"))
    assert "% int8, " in row


def test_a_precision_of_which_nothing_is_left_is_impossible_and_says_why(tmp_path: Path) -> None:
    text = _CUBIC.replace("y = MatMul(rows, w)", "y = Tanh(rows)").replace("[1,24] y", "[1,1024] y")
    bundle = _imported(tmp_path, text, (1, 1))
    conversion = convert_bundle(bundle.folder, conversion_rules, ("int8",), runtimes=("tflite",))
    (failed,) = conversion.failed
    assert str(failed.why).startswith("int8 is impossible here: all weights belong to BATCH_MATMUL (")
    assert "LiteRT does not load it for BATCH_MATMUL of node 'first' (Resize)" in str(failed.why)


def test_a_file_that_does_not_load_names_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = _imported(tmp_path, _SLOPES, (8, 1))
    fewer = tuple(step for step in passes("lowering") if step.name != "write_out_prelu")
    with monkeypatch.context() as patch:
        patch.setattr(slices, "passes", lambda stage: fewer)
        patch.setattr("toolkit.convert.pipeline.lower_otherwise", lambda lowering, failed, before: failed)
        (failed,) = convert_bundle(bundle.folder, conversion_rules, ("fp32",)).failed
    assert not convert_bundle(bundle.folder, conversion_rules, ("fp32",)).failed
    assert failed.why == (
        f"{bundle.folder / 'model.onnx'}: no TFLite file can be made: LiteRT refuses what onnx2tf makes of it: "
        "ONNX_PRELU of node 'first' (PRelu) (TFLite has no such operator); make the files for ONNX Runtime "
        "alone (--runtime ort), or export the model without these operators"
    )


def test_operators_are_loaded_one_by_one(tmp_path: Path) -> None:
    with SandboxProcess(tmp_path / "log", 60) as trial:
        assert find_refused_ops(FOLDER / "detector.int8.tflite", trial) == []
        assert trial.call(load_error, FOLDER / "detector.int8.tflite") is None
        (tmp_path / "broken.tflite").write_bytes(b"\0" * 64)
        assert trial.call(load_error, tmp_path / "broken.tflite", False) is not None


@pytest.mark.parametrize(
    ("operator", "tensor", "named"),
    [
        ("MEAN", "m:0", "MEAN of node 'the:norm' (ReduceMean)"),
        ("SUB", "the_norm_centered", "SUB of node 'the:norm' (ReduceMean)"),
        ("ONNX_PRELU", "y", "ONNX_PRELU of node 'slope' (PRelu)"),
        ("ONNX_GELU", "y", "ONNX_GELU of node 'last' (Reshape)"),
        ("ADD", "the_other", "ADD that makes 'the_other'"),
    ],
)
def test_an_operator_is_named_after_the_node_it_comes_from(operator: str, tensor: str, named: str) -> None:
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[2,3,4] x) => (float[6] y) <int64[1] flat = {6}> {
        m = ReduceMean<keepdims = 0>(x, flat)
        p = PRelu(m, s)
        y = Reshape(p, flat)
    }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "s"))
    for node, name in zip(proto.graph.node, ("the:norm", "slope", "last"), strict=True):
        node.name = name
    model = ir.from_proto(proto)
    model.graph[0].outputs[0].name = "m:0"
    nodes = NodeNames(model, carry_names(model))
    stored = {"m:0": "m_0"}
    assert nodes.described(RefusedOp(operator, (tensor,), False, "why"), stored) == named
