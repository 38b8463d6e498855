"""Ratios are taken within a round: a machine that slows down slows both files of it."""

import pytest

from benchmarks.speed_apart import ratios


def test_a_ratio_is_the_median_over_rounds_of_one_file_over_the_first() -> None:
    times = {"detector.onnx": [100.0, 200.0, 400.0], "detector.int8.tflite": [25.0, 60.0, 100.0]}
    (row,) = ratios({file: [{"run_ms": ms} for ms in values] for file, values in times.items()})
    assert (row["file"], row["over"]) == ("detector.int8.tflite", "detector.onnx")
    assert [row[key] for key in ("low", "median", "high")] == pytest.approx([0.25, 0.25, 0.275])


def test_a_round_that_lacks_a_file_is_no_round() -> None:
    with pytest.raises(ValueError, match="longer"):
        ratios({"a": [{"run_ms": 1.0}], "b": []})
