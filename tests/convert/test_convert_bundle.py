"""Real conversions of a tiny network: every file computes what the graph does, twice the same, or nothing changes."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backends.artifact import Artifact
from backends.bundle import Bundle, sha256_of
from backends.crash_check import is_known_safe
from backends.errors import InvalidArtifact, InvalidInput, NotAvailable
from backends.precision import RECIPES
from backends.registry import open_session
from graphs.onnx.file import load
from tests import seal_tiny
from tests.seal_tiny import IMAGES, flipped_bits, spec, tensors, weights
from toolkit.convert.calibration import Calibration
from toolkit.convert.converter import ConversionFailed, run_worker
from toolkit.convert.pipeline import convert_bundle
from toolkit.export import export_bundle
from toolkit.parity.agreement import conversion_rules

NAME = "videoseal-1.0-tiny"
ALL = seal_tiny.PRECISIONS

ON_ORT = ("fp16", "int8", "int8-static", "int8-w")

# Root of the mean squared difference from the golden over its own; what each precision gives on this network, twice.
RELATIVE_ERROR = {"fp32": 1e-5, "fp16": 5e-3, "int8": 5e-2, "int8-static": 0.3, "int8-w": 5e-2, "int16x8": 5e-2}


@pytest.fixture
def converted() -> Bundle:
    return seal_tiny.converted_by_both_routes(NAME)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A copy of the exported bundle, free to be damaged."""
    shutil.copytree(seal_tiny.exported(NAME).folder, tmp_path / NAME)
    return Bundle.open(tmp_path / NAME)


def _state(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.iterdir() if path.is_file() and path.suffix != ".log"}


@pytest.mark.parametrize(
    ("file", "backend"),
    [
        ("detector.onnx", "ort"),
        *((f"detector.{precision}.onnx", "ort") for precision in ON_ORT),
        *((f"detector.{precision}.tflite", "tflite") for precision in ALL),
        *((f"detector.{precision}.tf.tflite", "tflite") for precision in ("fp32", "fp16", "int8")),
    ],
)
def test_every_file_computes_the_golden(converted: Bundle, file: str, backend: str) -> None:
    artifact = next(a for a in converted.artifacts if a.file == file)
    golden = tensors(NAME)
    with open_session(converted, artifact, backend, threads=1) as session:
        got = np.concatenate([session.run({"image": one[None].numpy()})["logits"] for one in golden["inputs/image"]])
    expected = golden["outputs/logits"].numpy()
    assert np.linalg.norm(got - expected) / np.linalg.norm(expected) <= RELATIVE_ERROR[artifact.precision]
    if artifact.precision in ("fp32", "fp16"):
        assert flipped_bits(torch.from_numpy(got), golden["outputs/logits"]) == 0


def test_the_manifest_says_what_each_file_is(converted: Bundle) -> None:
    lowered = [a for a in converted.artifacts if a.parent]
    assert len(lowered) == len(ALL) + len(ON_ORT) + 3
    for artifact in lowered:
        assert artifact.parent == "detector.onnx"
        assert artifact.tools
        assert [binding.spec.name for binding in (*artifact.inputs, *artifact.outputs)] == ["image", "logits"]
        converted.verify(artifact)
    image = converted.find("detector", "tflite", "fp32").inputs[0]
    assert (image.spec.layout, image.stored.layout, image.stored.shape) == ("NCHW", "NHWC", (1, 64, 64, 3))
    static = converted.find("detector", "tflite", "int8-static")
    for binding in (*static.inputs, *static.outputs):
        # The quantizer decides whether the border is int8; a caller sees float32 either way.
        assert binding.spec.dtype == "float32"
        assert (binding.scale is not None) == (binding.stored.dtype == "int8")
    assert not [path.name for path in converted.folder.iterdir() if path.name.startswith(".")]


def test_a_converted_file_need_not_prove_again_that_it_lives(converted: Bundle) -> None:
    assert [
        a.file for a in converted.artifacts if a.format == "tflite" and not is_known_safe("ai-edge-litert", a.sha256)
    ] == []


def test_quantized_files_are_smaller(converted: Bundle) -> None:
    whole = converted.find("detector", "tflite", "fp32").bytes
    for precision in ALL[1:]:
        # Most of this tiny network is not weights, so the ratio of a real one cannot be asked of it.
        assert converted.find("detector", "tflite", precision).bytes < whole
    whole = converted.find("detector", "onnx", "fp32").bytes
    for precision in ON_ORT:
        assert converted.find("detector", "onnx", precision).bytes < whole


def test_the_int8_graph_computes_in_int8(converted: Bundle) -> None:
    operators = {node.op_type for node in load(converted.folder / "detector.int8.onnx").graph}
    assert "MatMulInteger" in operators
    assert not {"Gemm", "ConvInteger"} & operators


def test_converting_again_gives_the_same_bytes(converted: Bundle, bundle: Bundle) -> None:
    again = convert_bundle(bundle.folder, conversion_rules, ALL, calibration=Calibration(IMAGES), strict=True).bundle
    assert Bundle.open(bundle.folder) == again
    made = [a for a in again.artifacts if a.parent]
    assert len(made) == len(ALL) + len(ON_ORT)
    for artifact in made:
        assert artifact == next(a for a in converted.artifacts if a.file == artifact.file)


def test_exporting_again_gives_the_same_bytes_and_drops_what_was_converted(converted: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / NAME
    shutil.copytree(converted.folder, folder)
    bundle = export_bundle(spec(NAME), weights(NAME), folder)
    assert {a.file for a in bundle.artifacts} == {
        f"{r}.{e}" for r in ("detector", "embedder") for e in ("onnx", "safetensors")
    }
    for artifact in bundle.artifacts:
        assert artifact == next(a for a in converted.artifacts if a.file == artifact.file)
    assert set(_state(folder)) == {"bundle.json", *(a.file for a in bundle.artifacts)}
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_failed_export_leaves_the_old_bundle(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _state(bundle.folder)
    monkeypatch.setattr("toolkit.export.TOLERANCE", -1.0)
    with pytest.raises(InvalidArtifact, match="detector: ONNX Runtime's 'logits' differs from torch's"):
        export_bundle(spec(NAME), weights(NAME), bundle.folder)
    assert _state(bundle.folder) == before
    assert [path.name for path in bundle.folder.parent.iterdir()] == [NAME]


def test_export_never_removes_what_is_not_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(InvalidInput, match="holds something that is not a bundle"):
        export_bundle(spec(NAME), weights(NAME), tmp_path)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"precisions": ("fp64",)},
            "the direct route makes fp32, fp16, int8, int8-static, int8-w, int16x8, mixed, int8-full, not 'fp64'",
        ),
        ({"precisions": ()}, "no precision given"),
        ({"route": "magic"}, "route: expected one of direct, tf, got 'magic'"),
        ({"route": "tf", "precisions": ("int8-static",)}, "not 'int8-static'; the direct route does"),
        ({"precisions": ("int8-static",)}, "int8-static: needs calibration images"),
        (
            {"precisions": ("fp32",), "calibration": Calibration(IMAGES)},
            "no precision that needs them: int8-static, int16x8, int8-full do",
        ),
    ],
)
def test_wrong_options_are_refused(bundle: Bundle, options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        convert_bundle(bundle.folder, conversion_rules, **options, strict=True)  # type: ignore[arg-type]


def _no_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the converter was started")

    monkeypatch.setattr("toolkit.convert.job.run_worker", fail)


def test_a_calibration_folder_is_read_before_anything_heavy(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _no_converter(monkeypatch)
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    empty.mkdir(), broken.mkdir()
    (empty / "notes.txt").write_text("no image", encoding="utf-8")
    shutil.copy(IMAGES / "coffee.jpg", broken / "a.jpg")
    (broken / "b.jpg").write_bytes(b"not an image")
    for folder, message in ((tmp_path / "none", "no such folder"), (empty, "no images in it"), (broken, "b.jpg")):
        with pytest.raises(InvalidInput, match=message):
            convert_bundle(
                bundle.folder, conversion_rules, ("int8-static",), calibration=Calibration(folder), strict=True
            )


def test_a_tampered_graph_is_not_converted(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_converter(monkeypatch)
    path = bundle.folder / "detector.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InvalidArtifact, match="does not match its manifest"):
        convert_bundle(bundle.folder, conversion_rules, strict=True)
    path.write_bytes(data[:1000])
    with pytest.raises(InvalidArtifact, match="expected .* bytes, got 1000"):
        convert_bundle(bundle.folder, conversion_rules, strict=True)
    with pytest.raises(NotAvailable, match="no bundle here"):
        convert_bundle(bundle.folder / "nothing", conversion_rules, strict=True)


def test_a_converter_that_dies_leaves_the_bundle_as_it_was(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'Segmentation fault' >&2\nexit 139\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("TOOLKIT_CONVERTER", str(program))
    before = _state(bundle.folder)
    with pytest.raises(ConversionFailed, match=r"Segmentation fault; log: .*convert-detector-direct\.log"):
        convert_bundle(bundle.folder, conversion_rules, strict=True)
    assert _state(bundle.folder) == before
    assert "Segmentation fault" in (bundle.folder / "convert-detector-direct.log").read_text(encoding="utf-8")


def test_a_real_failure_inside_the_converter_is_explained(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_worker

    def with_garbage(request: dict[str, Any], *arguments: Any) -> Any:
        Path(request["models"]["slice 1 of 1"]).write_bytes(b"not a graph")
        return run(request, *arguments)

    monkeypatch.setattr("toolkit.convert.job.run_worker", with_garbage)
    before = _state(bundle.folder)
    with pytest.raises(ConversionFailed, match=r"exit code 1 while lowering slice 1 of 1 to TFLite \(onnx2tf\)"):
        convert_bundle(bundle.folder, conversion_rules, ("fp32",), strict=True)
    assert _state(bundle.folder) == before


def test_a_result_that_is_not_close_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES["fp32"]
    strict = replace(recipe, limits={**recipe.limits, "binding_error": 1e-12})
    monkeypatch.setitem(RECIPES.registry._loaded, "fp32", strict)
    before = _state(bundle.folder)
    with pytest.raises(InvalidArtifact, match=r"differs from the float32 graph by .* expected at most 1e-12 for fp32"):
        convert_bundle(bundle.folder, conversion_rules, ("fp32",), strict=True)
    assert _state(bundle.folder) == before


def test_an_artifact_knows_its_route(converted: Bundle) -> None:
    def routes(precision: str) -> list[str | None]:
        found: list[Artifact] = [a for a in converted.artifacts if (a.format, a.precision) == ("tflite", precision)]
        return sorted(str(a.route) for a in found)

    assert [routes(precision) for precision in ALL] == [["direct", "tf"]] * 3 + [["direct"]] * 3
