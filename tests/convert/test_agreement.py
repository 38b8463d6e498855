"""Imported graphs: what the converter gets wrong never becomes a file, and what is only coarse is said."""

from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from click.testing import CliRunner

from backends.bundle import Bundle
from backends.errors import InvalidArtifact
from graphs.passes.registry import passes
from toolkit.cli import main
from toolkit.convert import slices
from toolkit.convert.pipeline import convert_bundle
from toolkit.import_model import import_model
from toolkit.parity.agreement import conversion_rules
from toolkit.parity.compare import compare_bundle


def _imported(folder: Path, text: str) -> Bundle:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> g {text}')
    onnx.save(model, folder / "source.onnx")
    return import_model(folder / "source.onnx", folder / "foreign", {})


def _files(bundle: Bundle) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in bundle.folder.iterdir() if path.suffix in (".json", ".onnx", ".tflite")
    }


def test_operators_that_are_known_to_go_wrong_go_right(tmp_path: Path) -> None:
    text = """(int8[2,3,5] a, int8[2,3,5] b, float[2,3,4,4,5] x, float16[2,8] h)
    => (bool[2,3,5] above, int8[2,3,5] sum, float[2,3,4,4,5] unit, float[2,3,4,4,2] part, float16[2,8] grown)
    <int64[2] sizes = {3, 2}> {
        above = Greater(a, b)
        sum = Add(a, b)
        bent = Elu<alpha = 2.0>(x)
        unit = LpNormalization<axis = 1>(bent)
        rest, part = Split<axis = 4>(x, sizes)
        grown = Add(h, h)
    }"""
    bundle = _imported(tmp_path, text)
    conversion = convert_bundle(bundle.folder, conversion_rules, ("fp32",), strict=True)
    report = compare_bundle(conversion.bundle)
    assert report.passed
    (outcome,) = conversion.outcomes
    assert (outcome.file, outcome.why, outcome.over) == ("model.fp32.tflite", None, ())
    (file,) = report.roles[0].files
    assert file.total is not None
    assert file.total.outputs["grown"].dtype == "float32"  # an import brings every float to float32
    assert all(error.changed == 0 for error in file.total.outputs.values() if error.is_exact)


# onnx2tf takes Max with a tiny number for a ReLU: fine on noise, and a division by 0 on zeros. PyTorch's normalize.
_GUARDED = """(float[2,3] x) => (float[2,3] y) <float tiny = {1e-12}> {
    large = Abs(x)
    total = ReduceSum<keepdims = 1>(large)
    bounded = Max(total, tiny)
    y = Div(x, bounded)
}"""


def test_a_division_that_is_guarded_stays_so(tmp_path: Path) -> None:
    bundle = _imported(tmp_path, _GUARDED)
    assert compare_bundle(convert_bundle(bundle.folder, conversion_rules, ("fp32",), strict=True).bundle).passed


def test_a_file_that_computes_something_else_is_refused_and_nothing_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fewer = tuple(step for step in passes("lowering") if step.name != "keep_small_bounds")
    monkeypatch.setattr(slices, "passes", lambda stage: fewer)
    bundle = _imported(tmp_path, _GUARDED)
    before = _files(bundle)
    with pytest.raises(InvalidArtifact, match="has other outputs than the graph: y: not_finite 6") as caught:
        convert_bundle(bundle.folder, conversion_rules, ("fp32",), strict=True)
    assert str(bundle.folder / "model.onnx") in str(caught.value)
    assert _files(bundle) == before


# The first row, which no input reaches, makes the steps of each column so coarse that the others lose 8% in them.
_COARSE = """(float[4,64] x) => (float[4,64] y)
<float[4,1] none = {0, 0, 0, 0}, int64[1] one = {1}, int64[1] end = {64}> {
    rest = Slice(x, one, end, one)
    moved = Concat<axis = 1>(none, rest)
    y = MatMul(moved, w)
}"""


def test_a_coarse_file_is_made_and_said_to_be(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> g {_COARSE}')
    weight = np.random.default_rng(0).normal(0, 0.03, (64, 64)).astype(np.float32)
    weight[0] = 1
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "source.onnx")
    bundle = import_model(tmp_path / "source.onnx", tmp_path / "foreign", {})
    command = ["convert", str(bundle.folder), "-p", "fp32", "-p", "int8-w"]
    shown = CliRunner(env={"COLUMNS": "120"}).invoke(main, command, catch_exceptions=False)
    assert shown.exit_code == 1
    rows = {line.split()[0]: line.rstrip() for line in shown.stdout.splitlines() if line.strip().startswith("model.")}
    assert rows["model.fp32.tflite"].endswith(" made")
    assert rows["model.int8-w.tflite"].endswith(" over its tolerance")
    assert "warning: model.int8-w.tflite: y: relative_l2 0.0" in shown.stderr
    assert not compare_bundle(Bundle.open(bundle.folder)).passed
