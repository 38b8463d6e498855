"""A whole bundle, small and quick: that every figure is there and is what it is called, not how large it is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from backends import atomic
from backends.bundle import Bundle
from backends.errors import NotAvailable
from backends.registry import open_session
from toolkit.bench import rounds, rows
from toolkit.bench.bundle import bench_bundle
from toolkit.bench.cold import energy_joules, measure_cold_start
from toolkit.bench.result import BenchOptions, BenchResult, ColdStart
from toolkit.bench.throughput import runs_a_second, stream_counts
from toolkit.bench.together import BenchTarget, in_use
from toolkit.cli import main


def toolkit(*arguments: object, columns: int = 80) -> Result:
    runner = CliRunner(env={"COLUMNS": str(columns)})
    return runner.invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def two(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """One ONNX file and one TFLite file, and little time for each."""
    kept = ("detector.onnx", "detector.int8.tflite")
    bundle = replace(tiny, artifacts=tuple(a for a in tiny.artifacts if a.file in kept))
    bundle.write()
    return bundle


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_and_the_file_holds_every_figure(two: Bundle, columns: int, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    shown = toolkit("bench", two.folder, "--time-limit", 0, "--threads", 1, "--json", out, columns=columns)
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= columns
    assert not any("…" in line for line in lines)
    document = json.loads(out.read_text())
    assert document["reference"] == {"detector": "detector.onnx"}
    for file, artifact in zip(document["files"], two.artifacts, strict=True):
        assert (file["file"], file["sha256"]) == (artifact.file, artifact.sha256)
        assert file["timing"]["median_ms"] >= file["timing"]["lowest_ms"] > 0
        assert file["timing"]["p90_ms"] is None
        assert file["alone"]["peak_rss_bytes"] > file["alone"]["peak_rss_before_load_bytes"] > 0
        assert [one["streams"] for one in file["streams"]] == [1]
        assert file["runs_a_second"] == file["streams"][-1]["runs_a_second"] > 0
        (once,) = file["batches"]
        assert once["images_a_second"] == pytest.approx(1e3 / file["timing"]["median_ms"])
        assert file["group"] == 1
        assert 0 < file["ratio"]["low"] <= file["ratio"]["median"] <= file["ratio"]["high"]
    assert json.loads(json.dumps(BenchResult.read(out).to_json())) == document
    by_runtime = {file["in_use"]["runtime"]: file["in_use"] for file in document["files"]}
    assert by_runtime["onnxruntime"]["providers"] == ["CPUExecutionProvider"]
    assert by_runtime["ai-edge-litert"]["operators"] > 0
    assert by_runtime["ai-edge-litert"]["delegate"] == "XNNPACK"
    assert document["machine"]["versions"]["onnxruntime"]

    again = toolkit("bench", two.folder, "--time-limit", 0, "--threads", 1, "--against", out)
    assert again.exit_code == 0
    assert "figures are within the noise" in again.stdout
    assert "not the same" not in again.stdout


def test_interrupted_it_goes_on_with_what_it_has_and_leaves_nothing_else(
    two: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, unfinished = tmp_path / "bench.json", tmp_path / "bench.json.unfinished"
    command = ("bench", two.folder, "--time-limit", 0, "--threads", 1, "--json", out)
    measured, whole = [], rows.measure_cold_start

    def alone_once(target: BenchTarget, threads: int, seconds: float) -> ColdStart:
        measured.append(target.name)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return whole(target, threads, seconds)

    monkeypatch.setattr(rows, "measure_cold_start", alone_once)
    loads = iter([(0.5, 0.0, 0.0), (3.5, 0.0, 0.0)])
    monkeypatch.setattr("psutil.getloadavg", lambda: next(loads))  # another load is no other machine
    shown = toolkit(*command)
    assert shown.exit_code == 130
    assert "the same command goes on" in " ".join(shown.stderr.split())
    assert (out.exists(), unfinished.exists()) == (False, True)

    def never(*arguments: object) -> None:
        raise AssertionError("the rounds are measured")

    monkeypatch.setattr(rounds, "time_rounds", never)
    shown = toolkit(*command)
    assert shown.exit_code == 0
    assert measured == ["detector.onnx", "detector.int8.tflite", "detector.int8.tflite"]
    result = json.loads(out.read_text())
    assert "3 of the measurements are of a run that was interrupted" in result["notes"]
    assert result["machine"]["load"] == 3.5
    assert ", load 3.5 at the start; " in " ".join(shown.stdout.split())
    assert not unfinished.exists()


def test_a_result_that_cannot_be_written_loses_no_measurement(
    two: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "replacing", full)
    shown = toolkit("bench", two.folder, "--time-limit", 0, "--threads", 1, "--json", tmp_path / "bench.json")
    assert shown.exit_code == 2
    assert len((tmp_path / "bench.json.unfinished").read_text().splitlines()) == 6  # what of; rounds; two of each file


def test_an_earlier_result_that_is_none_is_said_before_anything_is_timed(two: Bundle, tmp_path: Path) -> None:
    shown = toolkit("bench", two.folder, "--against", tmp_path / "gone.json")
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert "cannot read" in shown.stderr


def test_files_that_do_not_fit_memory_together_are_timed_in_groups_each_beside_the_reference(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ("detector.onnx", "detector.int8.tflite", "detector.fp32.tflite")
    bundle = replace(tiny, artifacts=tuple(a for a in tiny.artifacts if a.file in files))
    bundle.write()
    largest = max(artifact.bytes for artifact in bundle.artifacts)
    # Two fit, however they are paired; three do not.
    monkeypatch.setattr(rounds, "free_bytes", lambda: 2 * largest / 0.4)
    result = bench_bundle(bundle, BenchOptions(threads=1, time_limit_s=0))
    by_file = {file.file: file for file in result.files}
    assert sorted(file.group for file in result.files) == [1, 1, 2]
    assert by_file["detector.onnx"].of_reference == 1
    assert all(file.timing.median_ms > 0 and file.of_reference > 0 for file in result.files)
    assert any("timed in 2 groups" in note for note in result.notes)


def test_one_file_that_does_not_fit_beside_the_reference_is_refused(
    two: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "free_bytes", lambda: 1)
    with pytest.raises(NotAvailable, match=r"detector.onnx: it and its reference detector.onnx have 0.0 GB"):
        bench_bundle(two, BenchOptions(threads=1, time_limit_s=0))


def test_streams_double_until_every_thread_has_one() -> None:
    assert [list(stream_counts(threads)) for threads in (1, 2, 3, 8)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8]]


def test_a_bundle_of_our_own_has_no_source(two: Bundle, tmp_path: Path) -> None:
    shown = toolkit("bench", two.folder, "--peers", "--source", tmp_path / "model.onnx")
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert "was not imported" in shown.stderr


def test_what_a_delegate_took_is_counted_and_it_is_named_as_the_runtime_does(two: Bundle) -> None:
    artifact = two.find("detector", "tflite", "int8")
    with open_session(two, artifact, "tflite", threads=1) as session:
        described = in_use(session, "tflite")
    assert described["delegated_parts"] > 0
    assert described["threads"] == 1
    assert measure_cold_start(BenchTarget("a", two, artifact, "tflite"), 1, 0.0).delegate == "XNNPACK"
    other = two.find("detector", "onnx", "fp32")
    assert measure_cold_start(BenchTarget("b", two, other, "ort"), 1, 0.0).delegate is None


def test_a_stream_that_fails_ends_all_and_raises(two: Bundle) -> None:
    artifact = two.find("detector", "onnx", "fp32")
    with open_session(two, artifact, "ort", threads=1) as session, pytest.raises(Exception, match="expected inputs"):
        runs_a_second([session, session], {}, seconds=0.01)


def test_energy_is_read_where_the_machine_tells_and_none_elsewhere(tmp_path: Path) -> None:
    assert energy_joules(tmp_path) is None
    for package, microjoules in (("intel-rapl:0", 1_500_000), ("intel-rapl:1", 500_000)):
        (tmp_path / package).mkdir()
        (tmp_path / package / "energy_uj").write_text(f"{microjoules}\n")
    assert energy_joules(tmp_path) == 2.0
