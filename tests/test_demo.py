"""`make demo`: every file of a bundle reads the same photograph, and the picture of the table needs nothing else."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import tests.tiny as tiny_networks
from backends.bundle import Bundle
from backends.errors import NotAvailable
from backends.machine import Machine
from backends.ort import OrtSession
from backends.registry import BACKENDS
from backends.timing import Rounds
from toolkit.bench.together import BenchTarget
from toolkit.demo import main, read_with_everything, timing_note
from toolkit.models.watermark.message import Message

COFFEE = Path(__file__).parent / "images" / "coffee.jpg"


class _Failing(OrtSession):
    def _open(self) -> None:
        raise NotAvailable("no such processor")


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.demo.ROUNDS", Rounds(0.0, warm_ups=1, least=5))


@pytest.fixture
def bundle() -> Bundle:
    return Bundle.open(tiny_networks.FOLDER)


def test_every_detector_of_the_bundle_is_read_on_the_backend_of_its_format(bundle: Bundle) -> None:
    expected = Message.from_hex("a5", tiny_networks.BITS)
    readings = read_with_everything(bundle, COFFEE, expected)
    detectors = {artifact.file for artifact in bundle.artifacts if artifact.role == "detector"}
    assert {reading.artifact.file for reading in readings} == detectors
    targets = [
        target
        for artifact in bundle.artifacts
        if artifact.role == "detector"
        for target in BenchTarget.all_of(bundle, artifact)
    ]
    found = [(reading.backend, reading.artifact.format, reading.artifact.precision) for reading in readings]
    assert sorted(found) == sorted((one.backend, one.artifact.format, one.artifact.precision) for one in targets)
    assert {("ort", "onnx"), ("tflite", "tflite"), ("torch", "torch")} <= {(name, form) for name, form, _ in found}
    for reading in readings:
        assert (reading.match.expected, reading.match.bits) == (expected, tiny_networks.BITS)
        assert reading.runs >= 5
    # The time is that of the timing engine, and the file with the lowest is among the fastest.
    assert min(readings, key=lambda reading: reading.run_ms).fastest


def test_a_file_is_called_fastest_if_none_is_clearly_faster(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # Milliseconds of every file in the rounds: onnx files take 1, tflite files 1 or 1.5 by turns, and torch 2.
    def timed(runs: dict[str, object], *_: object, **__: object) -> dict[str, list[float]]:
        samples = {"onnx": [1.0] * 8, "flite": [1.0, 1.5] * 4, "nsors": [2.0] * 8}
        return {name: next(ms for end, ms in samples.items() if name.split()[0].endswith(end)) for name in runs}

    monkeypatch.setattr("toolkit.bench.rounds.time_rounds", timed)
    every = read_with_everything(bundle, COFFEE, Message.from_hex("a5", tiny_networks.BITS))
    readings = [reading for reading in every if reading.backend in ("ort", "tflite", "torch")]
    assert {(reading.backend, reading.run_ms, reading.fastest) for reading in readings} == {
        ("ort", 1.0, True),
        ("tflite", 1.25, True),
        ("torch", 2.0, False),
    }
    note = timing_note(readings, Machine("2026-01-02", "Linux", "3", 2, {}, "A processor", ["avx2"], load=0.5))
    assert note.startswith("Fastest: ort fp32 (1.00 ms), and not clearly slower: ")
    assert "the median of 8 runs" in note
    assert note.endswith(" threads of A processor (AVX2 only), 2 cores, load 0.5 at the start.")
    busy = Machine("2026-01-02", "Linux", "3", 2, {}, "A processor", ["avx2"], load=2.5)
    assert timing_note(readings, busy).endswith(
        "load 2.5 at the start. That is more than it has cores for: the times are too long."
    )


def test_a_backend_that_is_no_default_is_left_out_with_a_line_if_it_fails(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = replace(BACKENDS.load("ort"), name="failing", session=_Failing, rank=50)
    monkeypatch.setitem(BACKENDS._added, "failing", failing)
    said: list[str] = []
    readings = read_with_everything(bundle, COFFEE, Message.from_hex("a5", tiny_networks.BITS), say=said.append)
    assert {"ort", "tflite", "torch"} <= {reading.backend for reading in readings}
    assert "failing" not in {reading.backend for reading in readings}
    assert "detector.onnx on failing: left out: no such processor" in said


def test_the_picture_shows_the_table_and_fetches_nothing(bundle: Bundle, tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    shown = CliRunner().invoke(main, [str(bundle.folder), str(COFFEE), "--svg", str(picture)], catch_exceptions=False)
    assert shown.exit_code == 0
    assert "random weights" in shown.stderr
    for word in ("tflite", "int8-static", "torch", "p-value", "not detected", "Fastest: ", "the median of "):
        assert word in shown.stdout
    drawn = picture.read_text()
    assert "tflite" in drawn
    assert set(re.findall(r"https?://[^\"' ]+", drawn)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\((?!#)|@import|@font-face|<image|href", drawn)
