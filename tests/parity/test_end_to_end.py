"""Results of several graphs together, on the tiny detector: every variant against the first of float32."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends.bundle import Bundle
from backends.errors import NotAvailable
from backends.session import Closing
from backends.tensor import Array
from toolkit.metrics.judges import NoJudge
from toolkit.metrics.samples import Sample
from toolkit.models.kind import EndToEndCase
from toolkit.parity import compare
from toolkit.parity.compare import compare_bundle, compare_end_to_end, variants

# Backend and precision -> what is added to the reference's output.
OFF = {("torch", "fp32"): 0.0, ("ort", "fp32"): 0.0, ("tflite", "fp32"): 1e-6}


class Adds(Closing):
    """A pipeline that adds a number."""

    opened: list[tuple[str, str, int]]

    def __init__(self, backend: str, precision: str, threads: int) -> None:
        Adds.opened.append((backend, precision, threads))
        self._number = np.float32(OFF.get((backend, precision), 0.5))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": feeds["x"] + self._number}

    def close(self) -> None:
        Adds.opened.append(("closed", "", 0))


def _samples(bundle: Bundle, images: Sequence[Path]) -> Iterator[Sample]:
    for number, family in enumerate(("real", "real", "synthetic")):
        yield Sample(f"{number}", family, {"x": np.arange(1, 5, dtype=np.float32) + number}, None)


def _case(*graphs: str) -> EndToEndCase:
    return EndToEndCase("detector", graphs, _samples, lambda bundle, *how: Adds(*how), lambda bundle: NoJudge())


@pytest.fixture(autouse=True)
def nothing_opened() -> None:
    Adds.opened = []


def _compared(bundle: Bundle, *cases: EndToEndCase) -> Any:
    kind: Any = SimpleNamespace(end_to_end=cases)
    return compare_end_to_end(bundle, kind, bundle.artifacts, (), 3, lambda step: None)


def test_variants_stand_float32_first_and_torch_before_onnx(tiny: Bundle) -> None:
    assert variants(_case("detector"), tiny.artifacts) == [
        ("torch", "fp32"), ("onnx", "fp32"), ("tflite", "fp32"), ("tflite", "int8"), ("tflite", "int8-static")
    ]  # fmt: skip
    assert variants(_case("detector", "embedder"), tiny.artifacts) == [("onnx", "fp32")]


def test_every_variant_is_judged_against_the_first_one_after_the_other(tiny: Bundle) -> None:
    (report,) = _compared(tiny, _case("detector"))
    assert (report.name, report.graphs, report.reference) == ("detector", ("detector",), "torch")
    assert report.samples == {"real": 2, "synthetic": 1}
    assert [(run.format, run.precision) for run in report.runs] == variants(_case("detector"), tiny.artifacts)[1:]
    assert [run.total.against for run in report.runs] == ["torch fp32"] * 4
    assert [run.total.outputs["y"].max_abs for run in report.runs] == pytest.approx([0, 1e-6, 0.5, 0.5], abs=3e-7)
    failed = [[check.number for check in run.checks if check.where and check.passed is False] for run in report.runs]
    assert failed == [[], [], ["relative_l2"], []]  # of int8, 0.5 is 11%: of int8-static that is allowed
    opened = Adds.opened[::2]
    assert opened[:2] == [("torch", "fp32", 3), ("ort", "fp32", 3)]
    assert set(Adds.opened[1::2]) == {("closed", "", 0)}


def test_a_case_with_one_variant_or_without_float32_is_left_out(tiny: Bundle) -> None:
    assert _compared(tiny, _case("detector", "embedder"), _case("nothing")) == ()
    quantized = tuple(a for a in tiny.artifacts if a.precision != "fp32")
    assert _compared(replace(tiny, artifacts=quantized), _case("detector")) == ()
    assert Adds.opened == []


def test_a_case_that_cannot_be_judged_is_said_before_anything_runs(
    tiny: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = replace(_case("detector"), name="no such case")
    kind = compare.find_kind("watermark")
    monkeypatch.setattr(type(kind), "end_to_end", (case,))
    monkeypatch.setattr(compare, "open_session", None)
    with pytest.raises(NotAvailable, match="no tolerance for kind 'watermark', role 'no such case'"):
        compare_bundle(tiny)
    assert Adds.opened == []
