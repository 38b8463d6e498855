"""The README's tables, LIMITS.md and ZOO.md are those of the committed results, and of what `toolkit bench` writes."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import readme
from benchmarks.readme import README, RESULTS, read, table, write_block
from benchmarks.readme import speed as speed_block
from benchmarks.readme.kinds import KINDS, kinds
from benchmarks.readme.limits import limits
from benchmarks.readme.recipes import recipes
from benchmarks.readme.shipped import RESULT, shipped
from benchmarks.readme.speed import speed
from benchmarks.readme.zoo import RESULT as ZOO
from benchmarks.readme.zoo import zoo, zoo_page
from tests.report.made import benched, bundle
from toolkit.bench.peers import EAGER
from toolkit.bench.result import BenchResult


@pytest.mark.parametrize(
    ("name", "written"), [("shipped", shipped), ("zoo", zoo), ("speed", speed), ("kinds", kinds), ("recipes", recipes)]
)
def test_a_block_is_what_the_committed_results_give(name: str, written: Callable[[], str]) -> None:
    assert f"<!-- {name} -->\n{written()}<!-- /{name} -->" in README.read_text()


def test_limits_are_what_the_committed_result_gives() -> None:
    assert (README.parent / "benchmarks" / "LIMITS.md").read_text() == limits()


def test_the_page_of_the_zoo_is_what_the_committed_result_gives() -> None:
    assert (README.parent / "benchmarks" / "ZOO.md").read_text() == zoo_page(read(ZOO))


def test_a_table_has_text_on_the_left_and_figures_on_the_right() -> None:
    assert table(["", "ms"], [["a", "1"]]) == "| | ms |\n|---|--:|\n| a | 1 |"


def test_a_block_is_replaced_between_its_markers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "README.md"
    page.write_text("a\n<!-- x -->\nold\n<!-- /x -->\nb\n")
    monkeypatch.setattr(readme, "README", page)
    write_block("x", "new\n")
    assert page.read_text() == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"
    with pytest.raises(ValueError, match="expected one <!-- y --> block, found 0"):
        write_block("y", "")


def test_a_result_of_toolkit_bench_is_read_in_the_place_of_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = benched(bundle()).to_json()
    document["machine"]["load"] = 0.3
    timed, torch = document["files"][1], document["files"][0]
    torch["in_use"]["runtime"] = "torch"
    document["files"] += (timed | {"role": "embedder", "file": "embedder.onnx"},)
    shared = ("role", "sha256", "bytes", "group", "timing", "of_reference", "in_use", "alone")
    eager = {key: torch[key] for key in shared} | {"name": EAGER, "note": "made"}
    document["peers"] += (eager, eager | {"name": "TensorFlow converter"})
    (tmp_path / "bench-made.json").write_text(json.dumps(document))
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    place, milliseconds, sizes = speed_block._timed("made")
    assert place == "2 threads of an A processor (AVX2 only), 2026-01-02, load 0.3 at the start"
    assert milliseconds["detector.int8.tflite"] == 1.7
    assert sizes["detector.int8.tflite"] == 1_600_000
    assert set(milliseconds) == {*sizes, EAGER}
    assert not {"detector.safetensors", "embedder.onnx", "TensorFlow converter"} & set(milliseconds)


def test_a_second_machine_has_a_table_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in RESULTS.glob("*.json"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    measured = [f"kinds-speed-{model}" for model in KINDS]
    once = {"speed": speed(), "kinds": kinds(), "shipped": shipped()}
    # Another machine, on which pocketseal alone of the watermark models was measured.
    documents = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in (*measured, RESULT)}
    documents["bench-pocketseal"] = _benched().to_json()
    for name, document in documents.items():
        document["machine"] |= {"processor": "Other processor", "flags": ["avx2"], "load": 0.25}
        (tmp_path / f"{name}@other.json").write_text(json.dumps(document))
    place = "2 threads of an Other processor (AVX2 only), 20"
    assert place not in "".join(once.values())
    for name, block in {"speed": speed(), "kinds": kinds(), "shipped": shipped()}.items():
        assert block.count("\n|---|") == once[name].count("\n|---|") + 1
        assert block.count(place) == 1
    assert "| | pocketseal |\n" in speed()
    assert speed().index("| | pocketseal | videoseal-1.0 |") < speed().index("| | pocketseal |\n")


def _benched() -> BenchResult:
    """A result of `toolkit bench` for every file that the block on speed shows."""
    result = benched(bundle())
    return replace(result, files=tuple(replace(result.files[1], file=file, name=file) for file in speed_block.FILES))
