"""Every file is a subject in a process of its own; what is measured is kept, and ratios are within rounds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import apart, whole_runs
from benchmarks.alone import measure, run_alone, subjects
from benchmarks.whole_runs import DEEP, SHALLOW
from tests.kinds_tiny import exported
from toolkit.bench.together import BenchTarget


def test_files_and_whole_runs_are_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_runs, "FRAMES", 4)  # the tiny model takes no more than six
    bundle = exported("foveated")
    found = subjects(bundle)
    assert {f"{a.role}, torch eager" for a in bundle.artifacts if a.format == "torch"} <= found.keys()
    for runtime in ("torch eager", "ONNX Runtime fp32"):
        assert {f"{SHALLOW}, {runtime}", f"{DEEP}, {runtime}"} <= found.keys()
    for name in ("encode_frames, ONNX Runtime fp32", "query_deep, ONNX Runtime fp32", f"{DEEP}, ONNX Runtime fp32"):
        measured = measure(found[name], threads=1)
        assert all(measured[figure] > 0 for figure in ("first_run_ms", "run_ms", "runs", "peak_mb"))
        assert (measured["load_ms"] is None) == (name.startswith(DEEP))


def test_a_subject_that_fails_says_so() -> None:
    target = subjects(exported("foveated"))["encode_frames, ONNX Runtime fp32"]
    assert isinstance(target, BenchTarget)
    with pytest.raises(Exception, match="gone.onnx"):
        run_alone(replace(target, artifact=replace(target.artifact, file="gone.onnx")), threads=1)


def _figures(run_ms: float) -> dict[str, Any]:
    return {"load_ms": 1.0, "first_run_ms": 2.0, "run_ms": run_ms, "runs": 3, "peak_mb": 10 * run_ms,
            "peak_before_load_mb": 5.0}  # fmt: skip


def test_interrupted_it_goes_on_and_a_query_counts_for_one_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("encode_frames, ONNX Runtime fp32", "query_deep, ONNX Runtime fp32")
    chosen = {name: subject for name, subject in subjects(exported("foveated")).items() if name in names}
    times: dict[str, list[float]] = {"encode_frames": [10, 20, 40], "query_deep": [4, 4, 4]}
    ran = []

    def run(subject: BenchTarget, threads: int) -> dict[str, Any]:
        if len(ran) == 3 and not (tmp_path / "interrupted").exists():
            (tmp_path / "interrupted").touch()
            raise KeyboardInterrupt
        ran.append(subject.artifact.role)
        return _figures(times[subject.artifact.role].pop(0))

    monkeypatch.setattr(apart, "subjects", lambda bundle: chosen)
    monkeypatch.setattr(apart, "run_alone", run)
    out = tmp_path / "result.json"
    command = [str(exported("foveated").folder), "--rounds", "3", "--json", str(out)]
    assert CliRunner().invoke(apart.main, command).exit_code == 1
    assert not out.exists()
    assert CliRunner().invoke(apart.main, command, catch_exceptions=False).exit_code == 0
    assert sorted(ran) == ["encode_frames"] * 3 + ["query_deep"] * 3
    document = json.loads(out.read_text())
    (look,) = document["ratios"]
    assert (look["row"], look["over"]) == names[::-1]
    assert look["median"] == pytest.approx(4 / 20 / 8)
    rows = {row["row"]: row for row in document["rows"]}
    assert (rows[names[0]]["run_ms"], rows[names[0]]["peak_mb"]) == (20, 400)
    assert rows[names[1]]["file"] == "query_deep.onnx"
    assert list(tmp_path.glob("*.unfinished")) == []
