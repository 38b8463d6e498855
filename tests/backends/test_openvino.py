"""OpenVINO in float32 and in bfloat16, on the tiny bundle; the contract suite runs every file of the shipped model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from backends import openvino
from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidArtifact, NotAvailable
from backends.openvino import OpenvinoSession
from backends.precision import RECIPES
from backends.profiling import profile
from backends.registry import find_artifact, open_session, run_targets
from backends.tensor import probe
from tests.tiny import FOLDER
from toolkit.models.watermark.detector import Detector
from toolkit.parity.compare import compare_bundle

pytest.importorskip("openvino", reason="a machine without the extra [openvino]; the lock of `make test` has it")
pytestmark = pytest.mark.openvino
BUNDLE = Bundle.open(FOLDER)
FP32 = BUNDLE.find("detector", "onnx", "fp32")


@pytest.fixture
def bf16() -> Artifact:
    """Return the tiny detector in bf16, where the processor has it."""
    if (reason := openvino.refuses("bf16")) is not None:
        pytest.skip(reason)
    return find_artifact(BUNDLE, "detector", "openvino", "bf16")


def _logits(artifact: Artifact, backend: str) -> np.ndarray:
    with open_session(BUNDLE, artifact, backend, 1) as session:
        return session.run(probe(tuple(binding.spec for binding in artifact.inputs)))["logits"]


def test_float32_is_float32() -> None:
    np.testing.assert_allclose(_logits(FP32, "openvino"), _logits(FP32, "ort"), rtol=0, atol=1e-6)
    with open_session(BUNDLE, FP32, "openvino", 1) as session:
        assert session.describe() == {"providers": ["CPU"], "inference_precision": "f32"}


def test_bf16_rounds_to_eight_bits_and_says_so(bf16: Artifact) -> None:
    expected = _logits(FP32, "openvino")
    error = np.linalg.norm(_logits(bf16, "openvino") - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 2e-2
    with Detector.open(BUNDLE, "openvino", "bf16") as detector:
        assert detector.artifact == bf16
    with open_session(BUNDLE, bf16, "openvino", 1) as session:
        assert session.describe()["inference_precision"] == "bf16"


def test_compare_has_a_row_for_each_precision_and_none_for_bf16_where_a_kind_has_no_limits(bf16: Artifact) -> None:
    files = {file.name: file for role in compare_bundle(BUNDLE).roles for file in role.files}
    found = {name: file.artifact.precision for name, file in files.items() if file.backend == "openvino"}
    assert found == {
        "detector.onnx on openvino": "fp32",
        "detector.onnx on openvino in bf16": bf16.precision,
        "embedder.onnx on openvino": "fp32",
    }
    assert all(files[name].passed for name in found)
    assert files["detector.onnx on openvino in bf16"].reason.startswith(RECIPES["bf16"].reason)


def test_a_processor_without_bf16_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "_capabilities", lambda: ["FP32", "INT8"])
    says = r"^backend 'openvino' does not run bf16 here: this processor has no bfloat16 instructions .*; fp32 works$"
    with pytest.raises(NotAvailable, match=says):
        Detector.open(BUNDLE, "openvino", "bf16")
    assert [target.name for target in run_targets(FP32)] == ["detector.onnx", "detector.onnx on openvino"]


def test_what_is_no_model_is_one_line_and_nothing_else_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model at all")
    with pytest.raises(InvalidArtifact, match=r"broken\.onnx: OpenVINO cannot load it: Model can't be parsed$"):
        OpenvinoSession(path, FP32, 1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "pixels"}, "input 'pixels' of the manifest is not in the file"),
        ({"shape": (1, 3, 8, 8)}, r"input 'image': the manifest says \('float32', \(1, 3, 8, 8\)\), the file has"),
    ],
)
def test_a_file_with_other_inputs_than_the_manifest_s_is_refused(change: dict[str, object], says: str) -> None:
    (binding,) = FP32.inputs
    wrong = replace(binding, stored=replace(binding.stored, **change), spec=replace(binding.spec, **change))
    with pytest.raises(InvalidArtifact, match=says):
        OpenvinoSession(FOLDER / FP32.file, replace(FP32, inputs=(wrong,)), 1)


def test_the_profile_names_the_nodes_of_the_file() -> None:
    times = profile(FOLDER / FP32.file, openvino.profile, threads=1, runs=20)
    graph = onnx.load(FOLDER / FP32.file).graph
    names = tuple(name for node in graph.node for name in (node.name, *node.output))
    heavy = [time for time in times if time.kind in ("Convolution", "FullyConnected")]
    assert [time.kind for time in heavy] == ["Convolution", "Convolution", "FullyConnected"]
    assert all(time.name.startswith(names) for time in heavy)
    assert sum(time.median_ms for time in times) > 0
