"""The Pareto front of size, time and answers."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.report.made import made
from toolkit.parity.report import Check
from toolkit.report.evidence import ComparedFile
from toolkit.report.summary import margin
from toolkit.report.tradeoff import RatedFile, dominates, rows_of, with_front

ROW = RatedFile("a", "detector", "fp32", 1, True, 0.0, 0.0, 1.0, 1.0, ())


def _row(name: str, size: int, ms: float | None, answer: float | None, passed: bool | None = True) -> RatedFile:
    return replace(ROW, file=name, bytes=size, median_ms=ms, answer=answer, error=answer, passed=passed)


def test_a_file_is_on_the_front_unless_one_is_as_good_in_all_three_and_better_in_one() -> None:
    rows = with_front([_row("big", 9, 3.0, 0.0), _row("small", 2, 3.0, 0.1), _row("worse", 9, 4.0, 0.1)])
    assert [(row.file, row.front) for row in rows] == [("big", True), ("small", True), ("worse", False)]
    assert rows[2].beaten_by == "big"


def test_equal_files_do_not_beat_each_other() -> None:
    assert all(row.front for row in with_front([_row("a", 1, 1.0, 0.0), _row("b", 1, 1.0, 0.0)]))


def test_what_fails_or_has_no_number_is_not_on_the_front_and_beats_nobody() -> None:
    rows = with_front(
        [
            _row("fails", 1, 1.0, 0.0, passed=False),
            _row("untimed", 1, None, 0.0),
            _row("nan", 1, 1.0, float("nan")),
            _row("good", 9, 9.0, 0.5),
        ]
    )
    assert [row.front for row in rows] == [False, False, False, True]
    assert all(row.beaten_by is None for row in rows)


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_the_front_is_what_brute_force_says(points: list[tuple[int, int, int]]) -> None:
    rows = with_front([_row(str(i), size, float(ms), float(cost)) for i, (size, ms, cost) in enumerate(points)])
    for row, point in zip(rows, points, strict=True):
        beaten = any(o != point and all(a <= b for a, b in zip(o, point, strict=True)) for o in points)
        assert row.front is not beaten
        if row.beaten_by is not None:
            assert dominates(points[int(row.beaten_by)], point)


def test_rows_have_the_reference_with_no_verdict_and_times_of_the_bench() -> None:
    evidence = made()
    rows = {row.file: row for row in rows_of(evidence, evidence.comparisons[0])}
    assert list(rows) == [artifact.file for artifact in evidence.bundle.artifacts]
    reference = rows["detector.safetensors"]
    assert (reference.passed, reference.error, reference.answer, reference.of_reference) == (None, 0.0, 0.0, 1.0)
    int8 = rows["detector.int8.tflite"]
    assert int8.passed is False
    assert [failure.number for failure in int8.failures] == ["accuracy_loss"]
    assert int8.answer is not None
    assert int8.answer > 0
    assert int8.median_ms == 1.7
    assert all(row.median_ms is None for row in rows_of(replace(evidence, bench=None), evidence.comparisons[0]))


def test_a_relative_error_that_is_all_rounding_uses_none_of_its_limit() -> None:
    used = Check("of_range", "y", 5e-5, 1e-4, True, "")
    rounding = Check("of_range", "z", 0.1, 1e-4, True, "no value differs by more than 1e-06, which is rounding")
    assert margin(ComparedFile("a", "fp32", None, None, (used, rounding), "")) == 0.5
    assert margin(ComparedFile("a", "fp32", None, None, (rounding,), "")) is None
