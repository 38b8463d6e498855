"""A file that is slower than float32 is named, with its operators. Clocks are made up: no test depends on the time."""

from pathlib import Path

import pytest

from backends.bundle import Bundle
from backends.errors import NotAvailable
from backends.profiling import OperatorTime
from backends.session import Session
from tests.tiny import FOLDER
from toolkit.cli import convert as command
from toolkit.convert import speed
from toolkit.convert.speed import Speed, compare_speed

PROFILES = {
    "detector.fp32.tflite": (OperatorTime("Dense", 1.0), OperatorTime("Add", 0.5)),
    "detector.int8.tflite": (OperatorTime("Dense", 1.5), OperatorTime("Convert", 2.0), OperatorTime("Add", 0.1)),
}


@pytest.fixture
def bundle() -> Bundle:
    return Bundle.open(FOLDER)


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What a run of each file takes."""
    taken: dict[str, float] = {}

    def timed(session: Session, feeds: object) -> float:
        return taken.get(session.artifact.file, 1.0)

    def profiled(path: Path, profiler: object, threads: int, runs: int) -> tuple[OperatorTime, ...]:
        return PROFILES[path.name]

    monkeypatch.setattr(speed, "_timed", timed)
    monkeypatch.setattr(speed, "profile", profiled)
    monkeypatch.setattr(speed, "_BUDGET_S", 0.0)
    return taken


def _compared(bundle: Bundle, precision: str = "int8") -> Speed:
    artifact = bundle.find("detector", "tflite", precision)
    (found,) = compare_speed(bundle, [artifact], lambda step: None)
    return found


def test_a_slower_file_is_flagged_with_what_takes_longer(bundle: Bundle, seconds: dict[str, float]) -> None:
    seconds["detector.int8.tflite"] = 1.5
    assert _compared(bundle) == Speed(
        "detector.int8.tflite", "detector.fp32.tflite", 1.5, True, (("Convert", 2.0), ("Dense", 0.5))
    )


def test_a_quicker_file_is_not(bundle: Bundle, seconds: dict[str, float]) -> None:
    seconds["detector.int8.tflite"] = 0.5
    assert _compared(bundle) == Speed("detector.int8.tflite", "detector.fp32.tflite", 0.5, False, ())


@pytest.mark.parametrize(("times", "slower"), [((0.9, 1.2, 1.3), True), ((0.7, 1.2, 1.3), False)])
def test_a_file_is_slower_only_where_three_of_four_runs_were(
    bundle: Bundle, seconds: dict[str, float], monkeypatch: pytest.MonkeyPatch, times: tuple[float, ...], slower: bool
) -> None:
    left = list(times)

    def timed(session: Session, feeds: object) -> float:
        return left.pop(0) if session.artifact.precision == "int8" else 1.0

    monkeypatch.setattr(speed, "_timed", timed)
    found = _compared(bundle)
    assert (found.ratio, found.slower) == (1.2, slower)


@pytest.mark.parametrize(("ratio", "slower"), [(1.0051, True), (1.0049, False)])
def test_a_ratio_that_is_shown_as_one_is_not_slower(
    bundle: Bundle, seconds: dict[str, float], ratio: float, slower: bool
) -> None:
    seconds["detector.int8.tflite"] = ratio
    assert _compared(bundle).slower == slower


def test_large_files_are_timed_one_after_the_other(
    bundle: Bundle, seconds: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "_TOGETHER_BYTES", 0)
    seconds["detector.int8.tflite"] = 3.0
    found = _compared(bundle)
    assert (found.ratio, found.slower) == (3.0, True)


def test_a_slower_file_is_flagged_also_where_its_runtime_does_not_tell_why(
    bundle: Bundle, seconds: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(path: Path, profiler: object, threads: int, runs: int) -> None:
        raise NotAvailable("no profiler here")

    monkeypatch.setattr(speed, "profile", silent)
    seconds["detector.int8.tflite"] = 2.0
    assert _compared(bundle) == Speed("detector.int8.tflite", "detector.fp32.tflite", 2.0, True, ())


def test_float32_is_held_to_nothing(bundle: Bundle) -> None:
    artifacts = [a for a in bundle.artifacts if a.precision == "fp32"]
    assert compare_speed(bundle, artifacts, lambda step: None) == ()


def test_the_warning_names_the_file_and_its_operators() -> None:
    said = command._slower(Speed("a.tflite", "b.tflite", 1.5, True, (("Convert", 2.04), ("Dense", 0.5))))
    assert said == (
        "a.tflite is slower than float32: 1.50x the time of b.tflite; "
        "what takes longer: Convert (+2.0 ms), Dense (+0.5 ms)"
    )
