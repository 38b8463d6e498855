"""`toolkit compare --html`: the whole report from one command, from results brought along, and what stops it early."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from backends.bundle import Bundle
from backends.machine import Machine
from backends.profiling import OpTypeTotal
from backends.timing import Timing
from toolkit.bench.result import BenchResult, ColdStart, FileProfile, FileResult
from toolkit.bisect.result import BisectReport, LayerReport
from toolkit.cli import main
from toolkit.report import evidence as gather


def toolkit(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def pair(tiny: Bundle) -> Bundle:
    """Two files of the tiny detector, without torch: the reference and one that is held to it."""
    chosen = tuple(a for a in tiny.artifacts if a.file in ("detector.onnx", "detector.int8.tflite"))
    bundle = replace(tiny, artifacts=chosen)
    bundle.write()
    return bundle


def _bench(bundle: Bundle) -> dict[str, Any]:
    timing = Timing(64, 1.25, 1.0, None, None, 0.01, settled=True)
    alone = ColdStart(1.0, 1.0, 1.0, None, 50_000_000, 30_000_000)
    files = tuple(
        FileResult(
            a.file, a.role, a.precision, a.route, a.sha256, a.bytes, 1, timing, 1.0,
            {"runtime": "a runtime", "version": "1.0"}, alone, (), 1.0,
        )
        for a in bundle.artifacts
    )  # fmt: skip
    profile = FileProfile("detector.onnx", "detector", "a runtime", (OpTypeTotal("Gemm", 1, 1.0, 1.0),), (), "")
    return BenchResult(
        machine=Machine("2001-02-03", "Linux", "3.11.7", 2, {}),
        model=bundle.model["name"],
        kind=bundle.model["kind"],
        weights=bundle.weights,
        threads=1,
        reference={"detector": "detector.onnx"},
        files=files,
        profile=(profile,),
    ).to_json()


def test_one_command_measures_everything_and_writes_one_file(pair: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    shown = toolkit("compare", pair.folder, "--html", out)
    assert shown.exit_code == 0, shown.stderr
    page = out.read_text(encoding="utf-8")
    assert "The one file passes" in page
    assert "Random weights" in page
    assert "Speed-up" in page
    assert "detector.int8.tflite: time by kind of operator" in page
    assert "1 layer in running order, over 3 samples." in page
    assert "the file does not say which tensors it holds: run `toolkit convert` again, and it will" in page
    for artifact in pair.artifacts:
        assert artifact.sha256 in page


def test_results_brought_along_are_used_and_not_measured_again(
    pair: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for measures in ("bench_bundle", "profile_files", "_bisect"):
        monkeypatch.setattr(gather, measures, None)
    timed, bisected, out = (tmp_path / name for name in ("bench.json", "bisect.json", "report.html"))
    timed.write_text(json.dumps(_bench(pair)))
    layer = LayerReport("layer_7", "node_conv2d_7", "Conv", ("CONV_2D",), "body.7", (1, 8, 4, 4), 0.25, 0.125)
    told = BisectReport("tiny", pair.weights, "detector.int8.tflite", "detector.onnx", ("a",), (layer,), (), None)
    bisected.write_text(json.dumps(told.to_json()))
    shown = toolkit("compare", pair.folder, "--html", out, "--bench", timed, "--bisect", bisected)
    assert shown.exit_code == 0, shown.stderr
    page = out.read_text(encoding="utf-8")
    for figure in ("1.25", "2001-02-03", "layer_7", "Gemm"):
        assert figure in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--html", "gone/report.html"], "there is no folder gone"),
        (["--html", "FOLDER"], "expected a file name, got a folder"),
        (["--html", "report.html", "--bench", "gone.json"], "--bench gone.json: cannot read"),
        (["--html", "report.html", "--bisect", "gone.json"], "--bisect gone.json: cannot read"),
        (["--bench", "gone.json"], "give --html too"),
    ],
)
def test_what_cannot_be_written_or_read_is_one_line_before_anything_runs(
    pair: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("toolkit.parity.compare.compare_bundle", None)
    given = [str(pair.folder) if argument == "FOLDER" else argument for argument in arguments]
    shown = toolkit("compare", pair.folder, *given)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert said in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    assert not Path("report.html").exists()


def test_a_file_that_differs_still_gives_a_report_and_ends_in_1(pair: Bundle, tmp_path: Path) -> None:
    onnx, int8 = pair.artifacts if pair.artifacts[0].format == "onnx" else pair.artifacts[::-1]
    wrong = replace(pair, artifacts=(onnx, replace(int8, precision="fp32")))
    wrong.write()
    timed = tmp_path / "bench.json"
    timed.write_text(json.dumps(_bench(wrong)))
    shown = toolkit("compare", pair.folder, "--html", tmp_path / "report.html", "--bench", timed)
    assert shown.exit_code == 1
    assert "fails: logits: relative error (L2)" in (tmp_path / "report.html").read_text()
