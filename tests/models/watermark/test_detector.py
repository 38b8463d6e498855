"""A Detector gives the same answer on every backend, and says what it means."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import toolkit
from backends.bundle import Bundle
from backends.errors import InvalidArtifact, InvalidInput, NotAvailable
from tests.tiny import BITS, FOLDER
from toolkit.images.preprocess import preprocess
from toolkit.models.watermark.detector import Detector
from toolkit.models.watermark.message import Message

PHOTO = np.random.default_rng(3).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.mark.parametrize(("backend", "precision"), [("ort", "fp32"), ("torch", "fp32"), ("tflite", "fp32")])
def test_every_backend_reads_the_same_message(backend: str, precision: str) -> None:
    with Detector.open(FOLDER, "torch") as reference:
        expected = reference.detect(PHOTO)
    with Detector.open(FOLDER, backend, precision, threads=1) as detector:
        detection = detector.detect(PHOTO)
    assert detection.message == expected.message
    assert detection.message.bits == tuple(int(logit > 0) for logit in detection.logits[1:])
    assert len(detection.message) == BITS
    assert set(detection.message.bits) == {0, 1}
    np.testing.assert_allclose(detection.logits, expected.logits, atol=1e-5)
    assert detection.confidence == pytest.approx(1 / (1 + np.exp(-float(detection.logits[0]))))
    assert detection.detected is bool(detection.logits[0] > 0)
    assert set(detection.timing_ms) == {"preprocess", "run"}
    assert min(detection.timing_ms.values()) > 0


def test_a_batch_is_its_images_one_by_one() -> None:
    images = [PHOTO, PHOTO[::-1], PHOTO[:20]]
    with Detector.open(FOLDER) as detector:
        batch = detector.detect_batch(images)
        single = [detector.detect(image) for image in images]
        assert detector.detect_batch([]) == []
    for one, other in zip(batch, single, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)


def test_match_takes_a_message_or_its_hex() -> None:
    with Detector.open(FOLDER) as detector:
        detection = detector.detect(PHOTO)
    right = detection.match(detection.message.hex)
    assert (right.matching_bits, right.bits, right.p_value) == (BITS, BITS, 2.0**-BITS)
    assert not right.detected  # 8 bits cannot reach one in a million
    assert detection.match(detection.message, fpr=0.01).detected
    inverse = Message(tuple(1 - bit for bit in detection.message.bits))
    assert detection.match(inverse).p_value == 1.0
    with pytest.raises(InvalidInput, match="expected 2 hex digits"):
        detection.match("abc")


def test_an_untrained_channel_gives_no_verdict(tiny: Bundle) -> None:
    untrained = replace(tiny, model={**tiny.model, "detection_threshold": None})
    with Detector.open(untrained) as detector:
        detection = detector.detect(PHOTO)
    assert detection.detected is None
    certainty = np.abs(2 / (1 + np.exp(-detection.logits[1:].astype(np.float64))) - 1).mean()
    assert detection.confidence == pytest.approx(certainty)


def test_the_tensor_is_the_preprocessed_image() -> None:
    with Detector.open(FOLDER) as detector:
        direct = detector._session.run({"image": preprocess(PHOTO, 32)})["logits"][0]
        np.testing.assert_array_equal(detector.detect(PHOTO).logits, direct)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "captioner"}, "expected a watermark model"),
        ({"bits": 9}, "a detector of this model has"),
        ({"image_size_px": 64}, "a detector of this model has"),
        ({"bits": 0}, "at least 1"),
        ({"bits": "8"}, "expected an integer"),
        ({"detection_threshold": "0"}, "finite number"),
        ({"surprise": 1}, "unknown surprise"),
        ({"embedder": {}}, "missing"),
    ],
)
def test_a_model_that_is_not_a_watermark_detector_is_refused(
    tiny: Bundle, change: dict[str, object], says: str
) -> None:
    with pytest.raises(InvalidArtifact, match=says):
        Detector.open(replace(tiny, model={**tiny.model, **change}))


def test_a_miss_lists_what_there_is() -> None:
    with pytest.raises(NotAvailable, match="there is openvino, ort, tflite, torch"):
        Detector.open(FOLDER, "tensorrt")
    with pytest.raises(NotAvailable, match=r"no detector onnx fp16; there is detector\.onnx"):
        Detector.open(FOLDER, "ort", "fp16")


def test_a_tampered_file_does_not_open(tiny: Bundle) -> None:
    (tiny.folder / "detector.onnx").write_bytes(b"x" * (tiny.folder / "detector.onnx").stat().st_size)
    with pytest.raises(InvalidArtifact, match="does not match its manifest"):
        Detector.open(tiny.folder)


def test_a_name_is_found_in_build_and_a_path_is_itself(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny.folder.parent)
    (tiny.folder.parent / "build").mkdir()
    tiny.folder.rename(tiny.folder.parent / "build" / "mine")
    assert toolkit.find_bundle("mine") == Path("build/mine")
    assert toolkit.find_bundle("./mine") == Path("./mine")
    with toolkit.load_detector("mine", backend="tflite", precision="int8") as detector:
        assert len(detector.detect(PHOTO).message) == BITS
    for name, hint in (
        ("chunkyseal", "make it with `toolkit export chunkyseal`"),
        ("captioner", "this model has variants: give small, medium, large, xl"),
        ("captioner-huge", "`toolkit models` lists what can be made"),
    ):
        with pytest.raises(NotAvailable, match=rf"no bundle named '{name}' in build; .*{hint}"):
            toolkit.find_bundle(name)


@pytest.mark.parametrize("backend", ["ort", "tflite"])
def test_detecting_needs_neither_torch_nor_onnx(backend: str) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnx2tf', 'tensorflow', 'safetensors'): sys.modules[name] = None\n"
        "import numpy, toolkit\n"
        f"detector = toolkit.load_detector({str(FOLDER)!r}, backend={backend!r})\n"
        "print(detector.detect(numpy.zeros((40, 50, 3), numpy.uint8)).message)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.strip()) == BITS // 4


def test_importing_the_toolkit_imports_no_runtime_and_no_pillow() -> None:
    code = (
        "import sys, toolkit\n"
        "print(sorted(set(sys.modules) & {'torch', 'onnxruntime', 'ai_edge_litert', 'PIL', 'numpy'}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
