"""The zoo: its list, its table, and that it goes on where it was interrupted."""

import json
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import zoo
from benchmarks.readme.zoo import row, zoo_page

VERDICTS = {
    ("LiteRT", "fp32"): "pass",
    ("LiteRT", "int8"): "fail",
    ("ONNX Runtime", "fp32"): "reference",
    ("ONNX Runtime", "int8"): "pass",
}
MADE = {
    "exported": True,
    "shipped": {
        "files": [
            {"file": f"{runtime}.{precision}", "runtime": runtime, "precision": precision, "verdict": verdict,
             "bytes": 2_000_000, "median_ms": None, "why": ["off | by 1"] if verdict == "fail" else []}
            for (runtime, precision), verdict in VERDICTS.items()
        ],
        "failed": {},
    },
    "plain": {
        "onnx2tf": {"wrong": "its outputs differ"},
        "quantize_dynamic": {"file": "dynamic.int8.onnx", "bytes": 95, "of_bytes": 100},
    },
    "agrees": {"LiteRT.fp32": True, "LiteRT.int8": False, "ONNX Runtime.int8": True},
}  # fmt: skip


def test_the_list_has_at_least_sixty_architectures_and_fifteen_networks_that_packages_ship() -> None:
    listed = json.loads(zoo.MODELS.read_text())
    names = [f"{package}/{name}" for package, of in listed.items() for name in of]
    shipped = [name for name in names if zoo.is_shipped(name)]
    assert len(shipped) >= 15
    assert len(names) - len(shipped) >= 60
    assert all(name.endswith(".onnx") for name in shipped)
    sizes = [value for of in listed.values() for shapes in of.values() for value in shapes.values()]
    assert all(isinstance(size, int) for value in sizes for size in (value if isinstance(value, list) else [value]))


def test_one_exporter_comes_after_the_other_and_what_packages_ship_is_not_exported() -> None:
    names = ["timm/a", "p==1/q/b.onnx"]
    built = [("timm/a", "dynamo"), ("timm/a", "torchscript")]
    assert zoo.listed(names, packages=True) == [built[0], ("p==1/q/b.onnx", "as shipped"), built[1]]
    assert zoo.listed(names, packages=False) == built
    assert zoo.listed([], packages=False)[0][1] == "dynamo"


def test_a_row_has_the_verdicts_of_ours_and_what_came_of_the_plain_chain() -> None:
    refused = {"exported": True, "shipped": "InvalidInput: no | such\nthing"}
    assert (
        row("b, dynamo", MADE)
        == "b | dynamo | 2.00 | pass | not made | fail | not made | pass | 2.00 | wrong | float32"
    )
    assert row("c, dynamo", refused) == "c | dynamo | - | - | - | - | - | InvalidInput: no / such | - | - | -"
    assert row("a, dynamo", {"exported": "too late"}) == "a | dynamo | - | - | - | - | - | too late | - | - | -"


def test_the_page_counts_shares_and_gives_every_reason() -> None:
    unsaid = MADE | {"agrees": {"LiteRT.fp32": False}}
    refused = {"exported": True, "shipped": "InvalidInput: no"}
    networks = {"a, dynamo": MADE, "b, dynamo": unsaid, "c, dynamo": refused, "d, dynamo": {"exported": "too late"}}
    page = zoo_page({"versions": {"timm": "1.0"}, "networks": networks}).splitlines()
    assert "| LiteRT | fp32 | 2 of 3 (66.7%) | 2 of 3 (66.7%) |" in page
    assert "| LiteRT | int8 | 2 of 3 (66.7%) | 0 of 3 (0.0%) |" in page
    assert "| ONNX Runtime | fp16 | 0 of 3 (0.0%) | 0 of 3 (0.0%) |" in page
    (said,) = [line for line in page if line.startswith("3 runs.")]
    assert "Files that `ship` says pass, and that differ from the network: 1." in said
    assert "onnx2tf is wrong without saying so on 2, quantize_dynamic leaves the weights in float32 on 2." in said
    assert page[page.index("## Why not") + 2 :] == [
        "- a, dynamo: LiteRT.int8: fail: off / by 1",
        "- b, dynamo: LiteRT.int8: fail: off / by 1",
        "- b, dynamo: LiteRT.fp32: passes by `ship`, and differs from the network as it was exported",
        "- c, dynamo: InvalidInput: no",
        "- d, dynamo: not exported: too late",
    ]


def test_results_are_kept_after_each_network_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, ran = tmp_path / "zoo.json", []

    def run(name: str, exporter: str, options: object) -> dict[str, Any]:
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
    options = Namespace(packages=None, untimed=True)
    assert "KeyError" in str(zoo.run("timm/no-such-network", "dynamo", options)["exported"])
    monkeypatch.setattr(zoo, "LIMIT_S", 0.01)
    assert zoo.run("timm/no-such-network", "dynamo", options) == {"exported": "took longer than 0.01 s"}


def test_only_results_without_times_are_made_again_to_be_timed() -> None:
    files = {"a": [{"median_ms": None}, {"median_ms": 2.5}], "b": [{"median_ms": None}]}
    assert {name: zoo.timed({"shipped": {"files": of}}) for name, of in files.items()} == {"a": True, "b": False}
    assert zoo.timed({"exported": "too late"})


def test_results_name_files_without_their_places_and_nodes_as_they_are() -> None:
    text = (
        f"{tempfile.gettempdir()}/x1/bundle/repro; node /layer1/layer1.0/Conv; /opt/lib/torch.py; see https://a.b/c.py"
    )
    assert zoo.without_paths(text) == "repro; node /layer1/layer1.0/Conv; torch.py; see https://a.b/c.py"


@pytest.mark.parametrize(
    ("note", "sort"),
    [
        ("direct.fp32.tflite: differs from the float32 graph by 0.1", "wrong"),
        ("/a/direct.fp32.tflite: tensor 'y' is float32 (1, 2, 5), which cannot hold (1, 5, 2)", "other"),
        ("direct.fp32.tflite: LiteRT cannot load what the converter made", "failed"),
        ("onnx2tf gave up at /conv", "failed"),
    ],
)
def test_a_note_of_onnx2tf_is_of_a_sort(note: str, sort: str) -> None:
    assert zoo._sort(note) == sort
    assert row("a, dynamo", MADE | {"plain": {"onnx2tf": {sort: note}}}).split(" | ")[-2] == {
        "wrong": "wrong", "other": "other outputs", "failed": "fails"
    }[sort]  # fmt: skip
