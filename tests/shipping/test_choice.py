"""Which file to take: the smallest and the fastest that passes, for each graph on each runtime."""

from dataclasses import replace

import pytest

from tests.report.made import benched, bundle, compared
from toolkit.convert.outcome import Conversion, FileOutcome
from toolkit.shipping.choice import ShippedFile, choices, shipped_files


def _file(name: str, size: int, ms: float | None, verdict: str = "pass", **changed: object) -> ShippedFile:
    one = ShippedFile(
        file=f"model.{name}.onnx", role="model", runtime="ONNX Runtime", precision=name, verdict=verdict,  # type: ignore[arg-type]
        bytes=size, median_ms=ms, speed=None if ms is None else 10 / ms, noise=0.01,
    )  # fmt: skip
    return replace(one, **changed)  # type: ignore[arg-type]


FP32 = _file("fp32", 4_000_000, 10.0, "reference")


def test_one_file_that_is_the_smallest_and_the_fastest_is_taken_alone() -> None:
    (choice,) = choices([FP32, _file("int8", 1_000_000, 5.0)])
    assert choice.reason == (
        "ONNX Runtime: take model.int8.onnx: the smallest that passes, and the fastest that passes (1.00 of 4.00 MB, "
        "2.00x the speed of float32)"
    )


def test_the_smallest_and_another_that_is_faster_are_both_named() -> None:
    (choice,) = choices([FP32, _file("int8", 1_000_000, 12.0)])
    assert (choice.smallest and choice.smallest.precision, choice.fastest and choice.fastest.precision) == (
        "int8",
        "fp32",
    )
    assert choice.reason.endswith(
        "0.83x the speed of float32); or model.fp32.onnx: the fastest that passes (4.00 MB, the float32 file)"
    )


@pytest.mark.parametrize(("ms", "same"), [(10.4, True), (10.6, False)])
def test_a_file_within_the_noise_counts_as_the_fastest_if_it_is_the_smallest(ms: float, same: bool) -> None:
    (choice,) = choices([FP32, _file("int8", 1_000_000, ms)])
    assert (choice.fastest == choice.smallest) is same
    assert ("as fast as any that passes" in choice.reason) is same


def test_files_that_fail_or_were_not_made_are_not_taken() -> None:
    missing = replace(_file("fp16", 0, None, "not made"), bytes=None)
    (choice,) = choices([FP32, _file("int8", 1_000_000, 1.0, "fail"), missing])
    assert choice.smallest == choice.fastest == FP32
    (choice,) = choices([missing])
    assert (choice.smallest, choice.reason) == (None, "ONNX Runtime: no file passes")


def test_a_file_of_which_most_stays_in_float32_is_not_called_the_smallest_of_its_precision() -> None:
    hollow = _file("int8", 3_900_000, 9.9, mostly_float=True)
    (choice,) = choices([FP32, hollow])
    assert choice.smallest == FP32


def test_without_times_the_smallest_alone_is_named() -> None:
    (choice,) = choices([replace(FP32, median_ms=None), _file("int8", 1_000_000, None)])
    assert choice.reason == "ONNX Runtime: take model.int8.onnx: the smallest that passes (1.00 of 4.00 MB of float32)"


def test_rows_have_the_verdict_of_the_comparison_and_speeds_over_the_float32_file_of_their_runtime() -> None:
    made = bundle()
    drift = dict.fromkeys((artifact.file for artifact in made.artifacts), 0.0) | {"detector.int8.tflite": 9.0}
    rows = {row.file: row for row in shipped_files(made, None, compared(made, drift), benched(made))}
    assert "detector.safetensors" not in rows
    assert rows["detector.onnx"].verdict == "pass"
    assert rows["detector.int8.tflite"].verdict == "fail"
    assert any("expected at most" in line for line in rows["detector.int8.tflite"].why)
    assert rows["detector.onnx"].speed == 1
    assert rows["detector.int8.onnx"].speed == pytest.approx(3.4 / 3.5)
    assert (rows["detector.int8.tflite"].median_ms, rows["detector.int8.tflite"].speed) == (1.7, None)


def test_without_a_comparison_the_verdict_is_that_of_the_conversion() -> None:
    made = bundle()
    outcomes = (
        FileOutcome("detector.int8.tflite", "detector", "int8", "tflite", over=("x",)),
        FileOutcome("detector.fp16.onnx", "detector", "fp16", "ort", why="no room"),
    )
    rows = {row.file: row for row in shipped_files(made, Conversion(made, outcomes), None, None)}
    assert (rows["detector.int8.tflite"].verdict, rows["detector.int8.tflite"].why) == ("fail", ("x",))
    assert rows["detector.onnx"].verdict == "reference"
    assert rows["detector.fp16.tflite"].verdict == "not judged"
    assert (rows["detector.fp16.onnx"].verdict, rows["detector.fp16.onnx"].why) == ("not made", ("no room",))
