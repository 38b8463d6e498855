"""A run beside an earlier one."""

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backends.errors import InvalidInput
from toolkit.bench import regressions
from toolkit.bench.regressions import Change, read_result
from toolkit.bench.result import BenchResult


def _file(name: str, ratio: float, noise: float = 0.01) -> dict[str, Any]:
    return {
        "file": name,
        "role": "detector",
        "precision": "fp32",
        "route": None,
        "sha256": name,
        "bytes": 5,
        "group": 1,
        "of_reference": ratio,
        "timing": {"runs": 64, "median_ms": 10 * ratio, "lowest_ms": 1.0, "p90_ms": None, "p99_ms": None,
                   "noise": noise, "settled": True},
        "in_use": {"runtime": "onnxruntime", "version": "1.0", "threads": 2},
        "alone": {"load_ms": 1.0, "first_run_ms": 1.0, "cpu_ms_a_run": 1.0, "energy_mj_a_run": None,
                  "peak_rss_bytes": 100_000_000, "peak_rss_before_load_bytes": 1},
        "streams": [],
        "runs_a_second": 1.0,
    }  # fmt: skip


@pytest.fixture
def before() -> dict[str, Any]:
    return {
        "machine": {"date": "2026-01-01", "system": "Linux", "python": "3.11", "processor": "one", "cores": 2,
                    "versions": {"onnxruntime": "1.0"}},
        "model": "m",
        "kind": "watermark",
        "weights": {"origin": "trained", "sha256": "0" * 64, "source": "by hand"},
        "threads": 2,
        "reference": {"detector": "a.onnx"},
        "files": [_file("a.onnx", 1.0), _file("b.tflite", 0.5)],
    }  # fmt: skip


def _result(document: dict[str, Any]) -> BenchResult:
    return msgspec.convert(document, BenchResult)


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    return regressions.changes(_result(before), _result(after))


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return regressions.differences(_result(before), _result(after))


def _outside(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str]]:
    return [(change.file, change.figure) for change in changes(before, after) if change.outside_noise]


def test_the_same_run_again_differs_in_nothing(before: dict[str, Any]) -> None:
    after = copy.deepcopy(before)
    after["machine"]["date"] = "2026-02-02"
    assert differences(before, after) == []
    assert _outside(before, after) == []


def test_a_slow_hour_moves_every_file_and_no_ratio(before: dict[str, Any]) -> None:
    after = copy.deepcopy(before)
    for file in after["files"]:
        file["timing"]["median_ms"] *= 1.4
    assert _outside(before, after) == [("a.onnx", "ms")]


def test_a_file_that_got_slower_than_the_noise_is_named_and_one_within_it_is_not(before: dict[str, Any]) -> None:
    after = copy.deepcopy(before)
    after["files"][1]["of_reference"] = 0.6
    assert _outside(before, after) == [("b.tflite", "of a.onnx")]
    after["files"][1]["timing"]["noise"] = 0.25
    assert _outside(before, after) == []


def test_a_peer_and_a_batch_are_compared_too_and_more_images_a_second_are_better(before: dict[str, Any]) -> None:
    peer = _file("OpenVINO", 0.8) | {"name": "OpenVINO", "note": ""}
    before["peers"] = [peer, {"name": "PyTorch compiled", "role": "detector", "note": "not installed"}]
    before["files"][1]["batches"] = [
        {"batch": 1, "images_a_second": 200.0, "median_ms": 5.0, "noise": 0.01, "note": ""},
        {"batch": 4, "images_a_second": 300.0, "median_ms": 5.0, "noise": 0.01, "note": ""},
        {"batch": 8, "images_a_second": None, "median_ms": None, "noise": None, "note": "no file"},
    ]
    after = copy.deepcopy(before)
    assert _outside(before, after) == []
    after["peers"][0]["of_reference"] = 1.0
    after["files"][1]["batches"][1]["images_a_second"] = 400.0
    outside = [change for change in changes(before, after) if change.outside_noise]
    assert [(change.file, change.figure, change.worse) for change in outside] == [
        ("b.tflite", "images a second at batch 4", False),
        ("OpenVINO", "of a.onnx", True),
    ]


def test_more_memory_is_a_change(before: dict[str, Any]) -> None:
    after = copy.deepcopy(before)
    after["files"][1]["alone"]["peak_rss_bytes"] = 120_000_000
    assert _outside(before, after) == [("b.tflite", "peak RSS, MB")]


def test_what_makes_two_runs_unlike_is_said(before: dict[str, Any]) -> None:
    after = copy.deepcopy(before)
    after["machine"] |= {"processor": "two", "load": 3.5, "versions": {"onnxruntime": "1.1"}}
    after["threads"] = 4
    after["files"][1]["sha256"] = "other"
    after["files"].append(_file("c.tflite", 1.0))
    assert differences(before, after) == [
        "threads: 2 then, 4 now",
        "machine, processor: one then, two now",
        "onnxruntime: 1.0 then, 1.1 now",
        "b.tflite: another file",
        "c.tflite: was not there then",
    ]


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"files": [{"timing": 1}]})])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    if content == "{}":
        path.unlink()
    with pytest.raises(InvalidInput, match="--against"):
        read_result(path)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("files", 1, "timing", "noise"), "much"),
        (("files", 1, "of_reference"), "half"),
        (("files", 0, "timing", "median_ms"), 0),
        (("files", 1, "alone", "peak_rss_bytes"), None),
        (("files", 1, "batches"), [{"batch": 2}]),
        (("reference", "detector"), "gone.onnx"),
        (("peers",), [{"name": "p", "role": "detector", "timing": {"noise": 0}}]),
        (("machine", "versions"), 3),
    ],
)
def test_a_figure_that_is_none_is_refused_before_anything_is_timed(
    before: dict[str, Any], where: tuple[str | int, ...], value: object, tmp_path: Path
) -> None:
    inner: Any = before
    for key in where[:-1]:
        inner = inner[key]
    path = tmp_path / "r.json"
    path.write_text(json.dumps(before))
    read_result(path)
    inner[where[-1]] = value
    path.write_text(json.dumps(before))
    with pytest.raises(InvalidInput, match="--against .*not a result"):
        read_result(path)
