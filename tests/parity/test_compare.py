"""Whole bundles: the tiny one, whose files are known, and the shipped model."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import InvalidArtifact, InvalidInput, NotAvailable
from backends.registry import RunTarget, default_backend
from backends.session import Session
from toolkit.export import SHIPPED
from toolkit.images.open import image_files
from toolkit.images.samples import shipped_photographs
from toolkit.metrics.samples import Sample
from toolkit.models.watermark.compare import ALL_DISTORTIONS, samples
from toolkit.parity import compare as compare_module
from toolkit.parity.compare import compare_bundle
from toolkit.parity.report import FileReport, ParityReport

COFFEE = Path(__file__).parents[1] / "images" / "coffee.jpg"


def _file(report: ParityReport, name: str) -> FileReport:
    (found,) = (file for role in report.roles for file in role.files if file.artifact.file == name)
    return found


def _only(bundle: Bundle, *files: str) -> Bundle:
    return replace(bundle, artifacts=tuple(a for a in bundle.artifacts if a.file in files))


def _detector(bundle: Bundle) -> Bundle:
    return replace(bundle, artifacts=tuple(a for a in bundle.artifacts if a.role == "detector"))


def test_every_file_of_a_good_bundle_passes_against_torch_and_against_its_parent(tiny: Bundle) -> None:
    report = compare_bundle(tiny)
    assert report.passed
    detector = report.roles[0]
    assert detector.reference.file == "detector.safetensors"
    assert set(detector.samples) == {"real", "synthetic"}  # random weights mark nothing
    assert _file(report, "detector.onnx").step is None  # its parent is the reference
    for file in detector.files:
        assert file.passed
        assert file.total is not None
        assert file.total.against == "detector.safetensors"
    lowered = replace(tiny.find("detector", "tflite", "fp32"), parent="detector.onnx")
    others = tuple(artifact for artifact in tiny.artifacts if artifact.file != lowered.file)
    file = _file(compare_bundle(replace(tiny, artifacts=(*others, lowered))), lowered.file)
    assert file.step is not None
    assert file.step.against == "detector.onnx"
    assert file.step_passed is True
    assert any("random" in note for note in report.notes)


def test_without_torch_the_float32_graph_is_the_reference(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "find_spec", lambda name: None)
    report = compare_bundle(_detector(tiny))
    assert report.roles[0].reference.file == "detector.onnx"
    assert [file.artifact.format for file in report.roles[0].files] == ["tflite"] * len(report.roles[0].files)
    assert all(file.step is None for file in report.roles[0].files)
    assert any("torch is not installed" in note for note in report.notes)
    without = replace(tiny, artifacts=tuple(a for a in _detector(tiny).artifacts if a.format != "torch"))
    assert compare_module.NO_TORCH not in compare_bundle(without).notes  # of which no file is left out


def test_files_that_go_one_after_the_other_give_what_they_give_together(tiny: Bundle) -> None:
    together, alone = compare_bundle(_detector(tiny)), compare_bundle(_detector(tiny), open_limit_bytes=1)
    assert alone == together


def test_files_that_are_open_together_keep_to_the_limit(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was made from another one is open beside it; at least one file is open beside its reference."""
    lowered = replace(tiny.find("detector", "tflite", "int8"), parent="detector.onnx")
    others = [a for a in _detector(tiny).artifacts if a.file != lowered.file]
    bundle = replace(tiny, artifacts=(*others, lowered))
    open_bytes: list[int] = [0]
    original = compare_module.open_session

    def counted(bundle: Bundle, artifact: Artifact, backend: str, threads: int) -> Session:
        session = original(bundle, artifact, backend, threads)
        close = session.close
        open_bytes.append(open_bytes[-1] + artifact.bytes)

        def closed() -> None:
            close()
            open_bytes.append(open_bytes[-1] - artifact.bytes)

        monkeypatch.setattr(session, "close", closed)
        return session

    monkeypatch.setattr(compare_module, "open_session", counted)
    compare_bundle(bundle)
    all_bytes = sum(artifact.bytes for artifact in bundle.artifacts)
    assert max(open_bytes) == all_bytes
    # The largest file that has a parent needs the reference and its parent.
    needed = (("torch", "fp32"), ("onnx", "fp32"), ("tflite", "int8"))
    least = sum(bundle.find("detector", *names).bytes for names in needed)
    for limit_bytes in range(least, all_bytes, (all_bytes - least) // 4):
        open_bytes[:] = [0]
        compare_bundle(bundle, open_limit_bytes=limit_bytes)
        assert open_bytes[-1] == 0
        assert max(open_bytes) <= limit_bytes


def test_a_file_that_is_not_what_its_precision_says_fails_and_its_step_is_to_blame(tiny: Bundle) -> None:
    int8 = replace(tiny.find("detector", "tflite", "int8"), precision="fp32", parent="detector.onnx")
    first = tuple(tiny.find("detector", format, "fp32") for format in ("torch", "onnx"))
    report = compare_bundle(replace(tiny, artifacts=(*first, int8)))
    file = _file(report, int8.file)
    assert not report.passed
    assert [(check.where, check.number) for check in file.failures] == [("logits", "relative_l2")]
    assert file.step_passed is False


def test_a_file_with_other_outputs_fails_and_says_which(tiny: Bundle) -> None:
    onnx = tiny.find("detector", "onnx", "fp32")
    spec = replace(onnx.outputs[0].spec, name="scores")
    other = replace(onnx, file="embedder.onnx", outputs=(replace(onnx.outputs[0], spec=spec, stored=spec),))
    embedder = tiny.find("embedder", "onnx", "fp32")
    other = replace(other, sha256=embedder.sha256, bytes=embedder.bytes)
    report = compare_bundle(replace(tiny, artifacts=(tiny.find("detector", "torch", "fp32"), other)))
    (check,) = _file(report, "embedder.onnx").failures
    assert str(check).startswith("signature: outputs are scores float32")
    assert not report.passed


def test_a_bundle_of_one_file_a_role_compares_nothing_and_does_not_pass(tiny: Bundle) -> None:
    assert not compare_bundle(_only(tiny, "detector.onnx", "embedder.onnx")).passed


def test_what_cannot_be_judged_is_said_before_anything_runs(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "open_session", None)
    with pytest.raises(NotAvailable, match="no kind of model named 'poem'; there is captioner, .*watermark"):
        compare_bundle(replace(tiny, model=tiny.model | {"kind": "poem"}))
    embedder = replace(tiny.find("embedder", "onnx", "fp32"), precision="int8")
    with pytest.raises(NotAvailable, match="role 'embedder', precision 'int8'"):
        compare_bundle(replace(tiny, artifacts=(tiny.find("detector", "onnx", "fp32"), embedder)))


def test_a_damaged_file_is_an_error(tiny: Bundle) -> None:
    path = tiny.folder / tiny.find("detector", "tflite", "int8").file
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InvalidArtifact, match="does not match its manifest"):
        compare_bundle(tiny)


@pytest.fixture(scope="module")
def pocketseal(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("shipped") / "pocketseal"
    shutil.copytree(SHIPPED / "pocketseal", folder)
    return Bundle.open(folder)


def _samples(bundle: Bundle, role: str, images: list[Path]) -> list[Sample]:
    return list(samples(bundle, bundle.find(role, "onnx", "fp32"), images))


def test_photographs_are_read_plain_marked_and_distorted_and_the_same_every_time(pocketseal: Bundle) -> None:
    first, again = (_samples(pocketseal, "detector", [COFFEE]) for _ in range(2))
    for one, two in zip(first, again, strict=True):
        assert (one.name, one.truth) == (two.name, two.truth)
        np.testing.assert_array_equal(one.feeds["image"], two.feeds["image"])
    shipped = len(shipped_photographs())
    marked = [sample for sample in first if sample.family == "marked"]
    assert len(marked) == shipped * len(ALL_DISTORTIONS) + 2
    assert all(sample.truth is not None for sample in marked)
    assert sum(sample.family == "real" for sample in first) == 2 * (shipped + 1)
    assert {sample.name for sample in first} >= {"coffee.jpg, marked, JPEG 75", "all 0", "all 1", "uniform noise 0"}


def test_the_shipped_model_passes_and_keeps_every_verdict(pocketseal: Bundle) -> None:
    report = compare_bundle(pocketseal)
    assert report.passed
    assert report.notes == ()
    int8 = _file(report, "detector.int8.tflite").total
    assert int8 is not None
    assert int8.numbers["verdicts_changed"] == 0
    assert int8.details["marked"]["readings"] == len(shipped_photographs()) * len(ALL_DISTORTIONS)
    assert all(check.passed for role in report.roles for file in role.files for check in file.checks)


def test_a_folder_of_images_is_checked_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="gone: no such folder"):
        image_files(tmp_path / "gone")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InvalidInput, match="no images in it: no file has a suffix of an image that Pillow can open"):
        image_files(tmp_path)
    Image.new("RGB", (40, 30)).save(tmp_path / "b.png")
    shutil.copy(COFFEE, tmp_path / "a.jpg")
    assert [path.name for path in image_files(tmp_path)] == ["a.jpg", "b.png"]
    (tmp_path / "c.png").write_bytes(b"not a picture")
    with pytest.raises(InvalidInput, match=r"c.png: not an image that can be read"):
        image_files(tmp_path)


@pytest.mark.parametrize("failing", ["open", "run"])
def test_a_second_backend_that_fails_costs_its_own_row_alone(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    original = compare_module.open_session

    def default_alone(artifact: Artifact) -> tuple[RunTarget, ...]:
        return (RunTarget(artifact, default_backend(artifact.format).name, True),)

    def with_another(artifact: Artifact) -> tuple[RunTarget, ...]:
        other = RunTarget(artifact, "other", False)
        return (*default_alone(artifact), *([other] if artifact.format == "onnx" else []))

    monkeypatch.setattr(compare_module, "run_targets", default_alone)
    expected = compare_bundle(_detector(tiny))

    def refused(*_: object) -> Session:
        raise InvalidArtifact("operator Gemm is unknown")

    def opened(bundle: Bundle, artifact: Artifact, backend: str, threads: int) -> Session:
        if backend != "other":
            return original(bundle, artifact, backend, threads)
        if failing == "open":
            return refused()
        session = original(bundle, artifact, "ort", threads)
        monkeypatch.setattr(session, "run", refused)
        return session

    monkeypatch.setattr(compare_module, "run_targets", with_another)
    monkeypatch.setattr(compare_module, "open_session", opened)
    files = compare_bundle(_detector(tiny)).roles[0].files
    (failed,) = (file for file in files if file.backend == "other")
    assert failed.name == "detector.onnx on other"
    assert [str(check) for check in failed.failures] == ["runs: operator Gemm is unknown"]
    assert tuple(file for file in files if file is not failed) == expected.roles[0].files
