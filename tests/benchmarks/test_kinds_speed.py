"""Every file is a row in a process of its own; a row that fails costs its own round, and ratios are within rounds."""

import pytest

from benchmarks.kinds_rows import DEEP, SHALLOW, Row, measure
from benchmarks.kinds_speed import EXPORTED, ratios, rows_of, run_alone, summary
from tests.kinds_tiny import exported


def test_files_and_whole_runs_are_rows() -> None:
    bundle = exported("foveated")
    rows = {row.key: row for row in rows_of(bundle)}
    assert {f"{a.role}, torch eager" for a in bundle.artifacts if a.format == "torch"} <= rows.keys()
    assert {f"{how}, {runtime}" for how in (SHALLOW, DEEP) for runtime in ("torch eager", "ONNX Runtime fp32")} <= (
        rows.keys()
    )
    unprepared = rows[f"encode_frames, {EXPORTED}"]
    assert unprepared.folder != rows["encode_frames, ONNX Runtime fp32"].folder
    measured = measure(unprepared, threads=1)
    assert all(measured[figure] > 0 for figure in ("load_ms", "run_ms", "peak_mb"))  # type: ignore[operator]


def test_a_row_that_fails_says_so() -> None:
    gone = Row("ONNX Runtime fp32", "base", str(exported("deepencoder").folder), "gone.onnx", "ort", "fp32")
    assert "failed with exit code 1: ValueError" in run_alone(gone, threads=1)["error"]


def _round(run_ms: float) -> dict[str, float]:
    return {"load_ms": 1.0, "first_run_ms": 2.0, "run_ms": run_ms, "peak_mb": 10 * run_ms, "peak_before_load_mb": 5.0}


def test_ratios_are_of_the_same_round_and_a_query_counts_for_one_frame() -> None:
    rounds = {
        "encode_frames, TFLite fp32": [_round(10), {"error": "was killed by SIGKILL"}, _round(20), _round(40)],
        "query_deep, TFLite fp32": [_round(4), _round(1), _round(4), _round(4)],
    }
    (found,) = (row for row in ratios("foveated", rounds) if row["row"].startswith("query_deep"))
    assert (found["over"], found["rounds"]) == ("encode_frames, TFLite fp32", 3)
    assert found["median"] == pytest.approx(4 / 20 / 8)
    assert (found["low"], found["high"]) == (pytest.approx(4 / 40 / 8), pytest.approx(4 / 10 / 8))
    assert summary(rounds["encode_frames, TFLite fp32"])["run_ms"] == 20
    assert summary(rounds["encode_frames, TFLite fp32"])["peak_mb"] == 400
    assert summary([{"error": "was killed by SIGKILL"}]) == {}
