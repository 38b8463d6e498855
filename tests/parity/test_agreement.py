"""The rules that a conversion gets, and the check of a file that was made from an imported graph."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from backends.artifact import Artifact
from backends.bundle import Bundle, WeightsOrigin
from backends.tensor import TensorSpec
from tests.foreign_graphs import onnx_artifact
from toolkit.inputs.kept import with_inputs
from toolkit.parity.agreement import conversion_rules, disagreements

_ROOT = """<ir_version: 10, opset_import: ["": 20]>
g (float[1,64] x) => (float[1,64] y) <float[1] shift = {SHIFT}> {
  root = Sqrt(x)
  y = Add(root, shift)
}"""


def _written(folder: Path, shift: str) -> Path:
    path = folder / f"root{shift}.onnx"
    onnx.save(onnx.parser.parse_model(_ROOT.replace("SHIFT", shift)), path)
    return path


def _artifact(path: Path) -> Artifact:
    return onnx_artifact(path, *(TensorSpec(name, (1, 64), "float32", None) for name in "xy"))


def _bundle(path: Path) -> Bundle:
    weights = WeightsOrigin("checkpoint", "0" * 64, path.name)
    return Bundle(path.parent, {"name": "root", "kind": "tensor"}, weights, (_artifact(path),))


def test_a_file_agrees_with_a_graph_that_has_no_value_for_half_of_the_samples(tmp_path: Path) -> None:
    """The square root of a number below 0 is no number: such samples say nothing about a file."""
    source = _written(tmp_path, "1.0")
    artifact = _artifact(source)
    assert disagreements(_bundle(source), source, artifact, source, artifact) == ()


def test_every_number_outside_the_tolerance_is_one_sentence(tmp_path: Path) -> None:
    source, other = _written(tmp_path, "1.0"), _written(tmp_path, "1.5")
    found = disagreements(_bundle(source), source, _artifact(source), other, _artifact(other))
    assert found
    assert all("y" in sentence for sentence in found)


@pytest.mark.parametrize(("kind", "is_checked"), [("tensor", True), ("watermark", False)])
def test_only_files_of_imported_graphs_are_checked_as_they_are_made(tiny: Bundle, kind: str, is_checked: bool) -> None:
    rules = conversion_rules(replace(tiny, model=tiny.model | {"kind": kind}))
    assert (rules.check is not None) == is_checked


def _clipped(folder: Path) -> tuple[Path, Path]:
    """A graph that passes its input on, and a file of it that does so up to 5: noise ten times as large is more."""
    paths = folder / "plain.onnx", folder / "clipped.onnx"
    for path, body in zip(paths, ("{ y = Identity(x) }", "<float most = {5}> { y = Min(x, most) }"), strict=True):
        text = f'<ir_version: 10, opset_import: ["": 20]> g (float[1,64] x) => (float[1,64] y) {body}'
        onnx.save(onnx.parser.parse_model(text), path)
    return paths


def test_rounded_files_are_judged_on_real_inputs_alone_and_float32_on_noise_too(tmp_path: Path) -> None:
    source, clipped = _clipped(tmp_path)
    bundle, parent, artifact = _bundle(source), _artifact(source), _artifact(clipped)
    half = replace(artifact, precision="fp16")
    assert disagreements(bundle, source, parent, clipped, half)
    np.savez(tmp_path / "given.npz", x=np.random.default_rng(0).random((100, 64), np.float32))
    given = with_inputs(bundle, tmp_path / "given.npz", None)
    assert disagreements(given, source, parent, clipped, half) == ()
    (wrong,) = disagreements(given, source, parent, clipped, artifact)
    assert wrong.endswith(", on the real inputs, noise, constants and extremes")
    np.savez(tmp_path / "given.npz", x=10 * np.random.default_rng(0).random((100, 64), np.float32))
    (wrong,) = disagreements(given, source, parent, clipped, half)
    assert wrong.endswith(", on the real inputs")
    (tmp_path / "given.npz").unlink()
    (wrong,) = disagreements(given, source, parent, clipped, half)
    assert wrong.endswith(", on noise, constants and extremes")


def test_of_many_real_inputs_a_conversion_takes_some_evenly(tmp_path: Path) -> None:
    """A value that only one of 1,000 inputs has is not seen, a value that half of them have is."""
    source, clipped = _clipped(tmp_path)
    bundle, parent, half = _bundle(source), _artifact(source), replace(_artifact(clipped), precision="fp16")
    for large, seen in ((slice(1, 2), False), (slice(500, None), True)):
        values = np.full((1000, 64), 0.5, np.float32)
        values[large] = 50
        np.savez(tmp_path / "given.npz", x=values)
        given = with_inputs(bundle, tmp_path / "given.npz", None)
        assert bool(disagreements(given, source, parent, clipped, half)) is seen
