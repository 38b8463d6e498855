"""What an import does to a foreign file is kept in the manifest, and told by the comparison and the report."""

import json
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from backends.bundle import Bundle
from backends.errors import InvalidArtifact
from tests.foreign_graphs import toolkit

# Nodes out of order, weights in a Constant, an input that nothing reads, an output that is an input, and opset 17.
_TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[1,4] x, float[2] unused) => (float[1,4] y, float[1,4] x) {
    y = Relu(h)
    w = Constant<value: tensor = float[4,4] {VALUES}>()
    h = MatMul(x, w)
}"""
_LINES = (
    "nodes that stood before those that they read were sorted",
    "1 Constant nodes became initializers",
    "the opset (ai.onnx 17) was brought to 20",
    "output 'x' is an input, so the bundle leaves it out",
    "input 'unused': no operator reads it, so the bundle leaves this input out",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("mended")
    values = ", ".join(str(value) for value in np.random.default_rng(0).standard_normal(16).round(3))
    onnx.save(onnx.parser.parse_model(_TEXT.replace("VALUES", values)), folder / "source.onnx")
    shown = toolkit("import", folder / "source.onnx", "-o", folder / "out")
    assert shown.exit_code == 0, shown.stderr
    said = [line.rpartition("source.onnx: ")[2] for line in shown.stderr.splitlines()]
    assert said == list(_LINES[3:])  # these change how the model is called
    assert toolkit("convert", folder / "out", "-p", "int8", "--runtime", "ort").exit_code == 0
    return Bundle.open(folder / "out")


def test_the_manifest_keeps_what_was_done_without_a_path(bundle: Bundle) -> None:
    assert bundle.mendings == _LINES


def test_the_comparison_and_the_report_tell_it(bundle: Bundle, tmp_path: Path) -> None:
    shown = toolkit("compare", bundle.folder, "--json", tmp_path / "parity.json", "--html", tmp_path / "report.html")
    assert shown.exit_code == 0, shown.stderr
    said = " ".join(shown.stdout.split())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for line in _LINES:
        assert f"at import: {line}" in said
        assert line.replace("'", "&#39;") in page
    assert json.loads((tmp_path / "parity.json").read_text())["mendings"] == list(_LINES)


@pytest.mark.parametrize("value", ["text", [1], {"a": 1}])
def test_lines_that_are_no_texts_are_refused(bundle: Bundle, value: object) -> None:
    other = Bundle(bundle.folder, bundle.model | {"mendings": value}, bundle.weights, bundle.artifacts)
    with pytest.raises(InvalidArtifact, match=r"model\.mendings: expected a list"):
        _ = other.mendings
