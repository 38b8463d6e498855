"""A file that is slower than float32 is named, with its operators. Clocks are made up: no test depends on the time."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from backends import timing
from backends.bundle import Bundle
from backends.errors import NotAvailable
from backends.profiling import OperatorTime
from backends.timing import Clock, Run
from tests.tiny import FOLDER
from toolkit.bench import speed
from toolkit.bench.speed import Speed, compare_speed
from toolkit.cli import convert_table

Seconds = dict[str, float | list[float]]

PROFILES = {
    "detector.fp32.tflite": (OperatorTime("Dense", 1.0), OperatorTime("Add", 0.5)),
    "detector.int8.tflite": (OperatorTime("Dense", 1.5), OperatorTime("Convert", 2.0), OperatorTime("Add", 0.1)),
}


@pytest.fixture
def bundle() -> Bundle:
    return Bundle.open(FOLDER)


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    """The seconds of a run of each file, or of its runs one after the other."""
    taken: Seconds = {}

    def timed(run: Run, clock: Clock) -> float:
        assert isinstance(run, partial)
        found = taken.get(run.func.__self__.artifact.file, 1.0)
        return found.pop(0) if isinstance(found, list) else found

    def profiled(path: Path, profiler: object, threads: int, runs: int) -> tuple[OperatorTime, ...]:
        return PROFILES[path.name]

    monkeypatch.setattr(timing, "time_after_warmup", timed)
    monkeypatch.setattr(speed, "profile", profiled)
    monkeypatch.setattr(speed, "_TOGETHER", replace(speed._TOGETHER, time_limit_s=0.0))
    return taken


def _compared(bundle: Bundle, precision: str = "int8") -> Speed:
    artifact = bundle.find("detector", "tflite", precision)
    (found,) = compare_speed(bundle, [artifact], lambda step: None)
    return found


def test_a_slower_file_is_flagged_with_what_takes_longer(bundle: Bundle, seconds: Seconds) -> None:
    seconds["detector.int8.tflite"] = 1.5
    assert _compared(bundle) == Speed(
        "detector.int8.tflite", "detector.fp32.tflite", 1.5, True, (("Convert", 2.0), ("Dense", 0.5))
    )


def test_a_quicker_file_is_not(bundle: Bundle, seconds: Seconds) -> None:
    seconds["detector.int8.tflite"] = 0.5
    assert _compared(bundle) == Speed("detector.int8.tflite", "detector.fp32.tflite", 0.5, False, ())


@pytest.mark.parametrize(("ratio", "slower"), [(1.0051, True), (1.0049, False)])
def test_a_ratio_that_is_printed_as_one_is_not_slower(
    ratio: float, slower: bool, bundle: Bundle, seconds: Seconds
) -> None:
    seconds["detector.int8.tflite"] = ratio
    assert _compared(bundle).slower == slower


@pytest.mark.parametrize(("quickest", "slower"), [(0.89, False), (0.91, True)])
def test_a_file_is_slower_only_if_three_of_four_rounds_were(
    quickest: float, slower: bool, bundle: Bundle, seconds: Seconds
) -> None:
    """The median says slower in both cases; the lower quartile, half way to the quickest round, in one of them."""
    seconds["detector.int8.tflite"] = [quickest, 1.3, 1.1]
    found = _compared(bundle)
    assert (found.ratio, found.slower, bool(found.blame)) == (1.1, slower, slower)


def test_large_files_are_timed_one_after_the_other(
    bundle: Bundle, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "_TOGETHER_BYTES", 0)
    seconds["detector.int8.tflite"] = 3.0
    found = _compared(bundle)
    assert (found.ratio, found.slower) == (3.0, True)


def test_a_slower_file_is_flagged_also_where_its_runtime_does_not_tell_why(
    bundle: Bundle, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
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
    said = convert_table._slower(Speed("a.tflite", "b.tflite", 1.5, True, (("Convert", 2.04), ("Dense", 0.5))))
    assert said == (
        "a.tflite is slower than float32: 1.50x the time of b.tflite; "
        "what takes longer: Convert (+2.0 ms), Dense (+0.5 ms)"
    )
