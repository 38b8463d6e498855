"""What is measured, what is used as it was brought, and what is left out with its reason."""

from dataclasses import replace
from typing import Any

import pytest

from backends.errors import NotAvailable
from tests.report.made import benched, bisected, bundle, made, on_another_backend
from toolkit.bench.profile import FileProfile
from toolkit.report import evidence as module
from toolkit.report.evidence import Evidence, gather
from toolkit.report.page import render


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise NotAvailable("too large")

    monkeypatch.setattr(module, "bench_bundle", refused)
    monkeypatch.setattr(module, "_bisect", refused)
    monkeypatch.setattr(module, "profile_files", lambda *_: (PROFILE,))


PROFILE = FileProfile("detector.onnx", "detector", "onnxruntime", (), (), "the runtime does not tell")


def gathered(bench: Any = None, bisections: Any = ()) -> Evidence:
    return gather(bundle(), made().parity, (), 1, bench, list(bisections), lambda step: None)


def test_what_this_machine_cannot_measure_is_left_out_and_says_why() -> None:
    evidence = gathered()
    assert evidence.bench is None
    assert evidence.missing["bench"] == "Nothing was timed: too large."
    assert evidence.missing["bisect"].startswith("Not bisected: detector.fp16.tflite: too large; ")
    assert list(evidence.bisections) == []
    page = render(evidence)
    for said in (*evidence.missing.values(), "detector.onnx: the runtime does not tell"):
        assert said in page


def test_every_file_is_bisected_but_torch_s_and_float32_that_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_bisect", lambda bundle, one, threads, progress: bisected(one.file))
    evidence = gathered(benched(bundle()))
    told = [bisection.candidate for bisection in evidence.bisections]
    assert told == ["detector.fp16.tflite", "detector.int8.tflite", "detector.int8.onnx"]
    assert evidence.missing == {}


def test_a_file_that_several_backends_run_is_bisected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_bisect", lambda bundle, one, threads, progress: bisected(one.file))
    parity = on_another_backend(made().parity, "detector.int8.onnx")
    evidence = gather(bundle(), parity, (), 1, benched(bundle()), [], lambda step: None)
    told = [bisection.candidate for bisection in evidence.bisections]
    assert told == ["detector.fp16.tflite", "detector.int8.tflite", "detector.int8.onnx"]


def test_a_precision_without_files_is_bisected_on_the_backend_that_ran_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_bisect", lambda bundle, one, *_: (one.file, one.backend, one.precision))
    parity = on_another_backend(made().parity, "detector.onnx", "bf16")
    evidence = gather(bundle(), parity, (), 1, benched(bundle()), [], lambda step: None)
    assert [one for one in evidence.bisections if "detector.onnx" in one] == [("detector.onnx", "openvino", "bf16")]
    assert ("detector.int8.onnx", None, None) in evidence.bisections


def test_profiles_that_the_bench_brought_are_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [profile.note for profile in gathered(benched(bundle())).profiles] == [PROFILE.note]
    monkeypatch.setattr(module, "profile_files", None)
    brought = (replace(PROFILE, note="brought"),)
    assert gathered(replace(benched(bundle()), profile=brought)).profiles == brought
