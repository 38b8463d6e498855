"""Results that are brought along must be of this bundle."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from backends.errors import InvalidInput
from tests.report.made import benched, bisected, bundle
from toolkit.bisect.result import LayerReport
from toolkit.report.evidence import read_bench, read_bisection


def _written(folder: Path, result: Any) -> Path:
    path = folder / "result.json"
    path.write_text(result if isinstance(result, str) else json.dumps(result))
    return path


def test_results_of_the_same_files_are_taken_as_they_are(tmp_path: Path) -> None:
    timed = benched(bundle())
    assert read_bench(_written(tmp_path, timed.to_json()), bundle()) == timed
    told = bisected()
    assert read_bisection(_written(tmp_path, told.to_json()), bundle()) == told
    elsewhere = bisected("detector.onnx on openvino in bf16")
    assert read_bisection(_written(tmp_path, elsewhere.to_json()), bundle()) == elsewhere


def test_times_of_another_file_are_refused_by_name(tmp_path: Path) -> None:
    result = benched(bundle()).to_json()
    result["files"][2]["sha256"] = "f" * 64
    with pytest.raises(InvalidInput, match="measured another detector.fp16.tflite .* run `toolkit bench` again"):
        read_bench(_written(tmp_path, result), bundle())


@pytest.mark.parametrize("changed", [{"model": "other"}, {"candidate": "gone.tflite"}])
def test_a_bisection_of_another_bundle_is_refused(tmp_path: Path, changed: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="expected a candidate of made"):
        read_bisection(_written(tmp_path, bisected().to_json() | changed), bundle())


@pytest.mark.parametrize("value", [None, float("nan"), "0.5"])
def test_an_error_of_a_layer_that_is_no_number_is_refused_by_its_place(tmp_path: Path, value: Any) -> None:
    result = bisected().to_json()
    result["layers"][3]["introduced"] = value
    with pytest.raises(InvalidInput, match="not a result that `toolkit bisect --json` wrote: "):
        read_bisection(_written(tmp_path, result), bundle())


@pytest.mark.parametrize("field", [field.name for field in fields(LayerReport)])
def test_a_layer_that_lacks_a_field_is_refused_by_name(tmp_path: Path, field: str) -> None:
    result = bisected().to_json()
    del result["layers"][3][field]
    with pytest.raises(InvalidInput, match=f"missing required field `{field}`"):
        read_bisection(_written(tmp_path, result), bundle())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": [{}]}', '{"layers": [3], "model": 1, "candidate": 2}'])
@pytest.mark.parametrize(("read", "option"), [(read_bench, "--bench"), (read_bisection, "--bisect")])
def test_what_is_no_result_is_one_error_that_names_the_option(
    tmp_path: Path, text: str, read: Any, option: str
) -> None:
    with pytest.raises(InvalidInput, match=f"{option} .*not a result that `toolkit .* wrote"):
        read(_written(tmp_path, text), bundle())
    with pytest.raises(InvalidInput, match=f"{option} .*cannot read"):
        read(tmp_path / "gone.json", bundle())
