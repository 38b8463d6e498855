"""`make demo`: every file of a bundle reads the same photograph, and the picture of the table needs nothing else."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import tests.tiny as tiny_networks
from backends.bundle import Bundle
from toolkit.demo import main, read_with_everything
from toolkit.models.watermark.message import Message

COFFEE = Path(__file__).parent / "images" / "coffee.jpg"


@pytest.fixture
def bundle() -> Bundle:
    return Bundle.open(tiny_networks.FOLDER)


def test_every_detector_of_the_bundle_is_read_on_the_backend_of_its_format(bundle: Bundle) -> None:
    expected = Message.from_hex("a5", tiny_networks.BITS)
    readings = read_with_everything(bundle, COFFEE, expected)
    detectors = {artifact.file for artifact in bundle.artifacts if artifact.role == "detector"}
    assert {reading.artifact.file for reading in readings} == detectors
    assert {(reading.backend, reading.artifact.format) for reading in readings} == {
        ("ort", "onnx"),
        ("tflite", "tflite"),
        ("torch", "torch"),
    }
    for reading in readings:
        assert (reading.match.expected, reading.match.bits) == (expected, tiny_networks.BITS)
        assert reading.run_ms > 0


def test_the_picture_shows_the_table_and_fetches_nothing(bundle: Bundle, tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    shown = CliRunner().invoke(main, [str(bundle.folder), str(COFFEE), "--svg", str(picture)], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "random weights" in shown.stderr
    for word in ("tflite", "int8-static", "torch", "p-value", "not detected"):
        assert word in shown.stdout
    drawn = picture.read_text()
    assert "tflite" in drawn
    assert set(re.findall(r"https?://[^\"' ]+", drawn)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\((?!#)|@import|@font-face|<image|href", drawn)
