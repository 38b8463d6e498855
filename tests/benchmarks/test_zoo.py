"""The zoo: its list, its table, and that it goes on where it was interrupted."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from benchmarks import zoo

MADE = {
    "exported": True,
    "shipped": {
        "files": [
            {"file": "model.fp32.tflite", "verdict": "pass"},
            {"file": "model.int8.tflite", "verdict": "fail"},
        ]
    },
    "plain": {"onnx2tf": {"note": "its outputs differ"}, "quantize_dynamic": {"bytes": 1, "error": 0.25}},
}


def test_the_list_has_at_least_sixty_architectures_of_several_packages() -> None:
    listed = json.loads(zoo.MODELS.read_text())
    assert sum(len(names) for names in listed.values()) >= 60
    assert len(listed) >= 4
    assert all(isinstance(size, int) for names in listed.values() for shapes in names.values()
               for shape in shapes.values() for size in shape)  # fmt: skip


def test_a_row_has_the_verdicts_of_ours_and_what_came_of_the_plain_chain() -> None:
    refused = {"exported": True, "shipped": "InvalidInput: no | such\nthing"}
    results = {"b, dynamo": MADE, "c, dynamo": refused, "a, dynamo": {"exported": "too late"}}
    assert zoo.show(results).splitlines()[2:] == [
        "| a, dynamo | too late | - | - | - | - |",
        "| b, dynamo | pass | not made | fail | its outputs differ | error 0.25 |",
        "| c, dynamo | InvalidInput: no / such | - | - | - | - |",
    ]


def test_results_are_kept_after_each_network_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, ran = tmp_path / "zoo.json", []

    def run(name: str, exporter: str, timed: bool) -> dict[str, Any]:
        ran.append(f"{name}, {exporter}")
        if len(ran) == 4:
            raise KeyboardInterrupt
        return MADE

    monkeypatch.setattr(zoo, "run", run)
    monkeypatch.setattr(zoo, "version", lambda name: "1")
    monkeypatch.setattr(sys, "argv", ["zoo", "timm/a", "timm/b", "--untimed", "--results", str(out)])
    with pytest.raises(KeyboardInterrupt):
        zoo.main()
    assert list(json.loads(out.read_text())["networks"]) == ran[:3]
    zoo.main()
    assert ran == ["timm/a, dynamo", "timm/b, dynamo", "timm/a, torchscript", *["timm/b, torchscript"] * 2]
    assert len(json.loads(out.read_text())["networks"]) == 4


def test_a_network_that_takes_too_long_or_dies_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "KeyError" in str(zoo.run("timm/no-such-network", "dynamo", False)["exported"])
    monkeypatch.setattr(zoo, "LIMIT_S", 0.01)
    assert zoo.run("timm/no-such-network", "dynamo", False) == {"exported": "took longer than 0.01 s"}


def test_only_results_without_times_are_made_again_to_be_timed() -> None:
    files = {"a": [{"median_ms": None}, {"median_ms": 2.5}], "b": [{"median_ms": None}]}
    assert {name: zoo.timed({"shipped": {"files": of}}) for name, of in files.items()} == {"a": True, "b": False}
    assert zoo.timed({"exported": "too late"})


def test_results_name_files_without_their_places_and_nodes_as_they_are() -> None:
    text = f"{tempfile.gettempdir()}/x1/peers/a.tflite: node /model/conv/Conv; {sys.prefix}/lib/torch.py"
    assert zoo.without_paths(text) == "a.tflite: node /model/conv/Conv; torch.py"
