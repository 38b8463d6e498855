"""A pass over the samples, with sessions that are functions."""

import tracemalloc
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest

from backends.tensor import Array
from toolkit.metrics.judges import NoJudge
from toolkit.metrics.samples import Sample
from toolkit.parity.stream import CandidateRun, RunningComparison, compare_stream


class Function:
    """A session that computes y from x."""

    def __init__(self, compute: Callable[[Array], Array]) -> None:
        self._compute = compute

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": self._compute(feeds["x"])}


def _samples(count: int, size: int = 64) -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    for i in range(count):
        yield Sample(f"{i}", "synthetic", {"x": rng.standard_normal(size, dtype=np.float32)}, None)


def _opened(compute: Callable[[Array], Array], parent: str | None = None) -> CandidateRun:
    step = None if parent is None else RunningComparison(parent, NoJudge())
    return CandidateRun(Function(compute), RunningComparison("reference", NoJudge()), parent, step)


def test_total_is_against_the_reference_and_step_against_the_parent() -> None:
    reference = Function(lambda x: x)
    opened = {
        "parent": _opened(lambda x: x + np.float32(0.5)),
        "child": _opened(lambda x: x + np.float32(0.75), "parent"),
        "orphan": _opened(lambda x: x + np.float32(2), "elsewhere"),
    }
    seen = compare_stream(_samples(5), reference, {"elsewhere": Function(lambda x: x + 1)}, opened, False)
    assert seen.families == {"synthetic": 5}
    assert opened["parent"].total.result().outputs["y"].max_abs == pytest.approx(0.5, rel=1e-5)
    assert opened["child"].total.result().outputs["y"].max_abs == pytest.approx(0.75, rel=1e-5)
    for file, step in (("child", 0.25), ("orphan", 1.0)):
        comparison = opened[file].step
        assert comparison is not None
        assert comparison.result().outputs["y"].max_abs == pytest.approx(step, rel=1e-5)


def _peak_bytes(count: int) -> int:
    opened = {"a": _opened(lambda x: x * np.float32(1.001)), "b": _opened(lambda x: x + np.float32(1e-3), "a")}
    tracemalloc.start()
    try:
        compare_stream(_samples(count, size=4096), Function(lambda x: x), {}, opened, False)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_samples() -> None:
    few, many = _peak_bytes(20), _peak_bytes(400)  # 400 samples are 6.5 MB, and results another 13
    assert many < few + 100_000


def test_samples_outside_the_reference_s_domain_are_left_out_only_where_the_kind_says_so() -> None:
    def root(x: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.sqrt(x)

    kept, left = {"a": _opened(root)}, {"a": _opened(root)}
    assert compare_stream(_samples(8), Function(root), {}, kept, may_leave_domain=False).outside_domain == 0
    assert kept["a"].total.result().outputs["y"].reference_not_finite > 0
    assert compare_stream(_samples(8), Function(root), {}, left, may_leave_domain=True).outside_domain == 8
    assert left["a"].total.result().outputs == {}


@pytest.mark.parametrize("broken", ["got", "expected"])
def test_a_judge_sees_no_answer_that_is_not_finite(broken: str) -> None:
    class Counting(NoJudge):
        seen = 0

        def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
            Counting.seen += 1

    running = RunningComparison("reference", Counting())
    whole, nan = {"y": np.ones(3)}, {"y": np.array([1, np.nan, 1])}
    (sample,) = _samples(1)
    running.add(sample, *((nan, whole) if broken == "got" else (whole, nan)))
    assert Counting.seen == 0
    running.add(sample, whole, whole)
    assert Counting.seen == 1
    assert running.result().outputs["y"].values == 6


@pytest.mark.parametrize("count", [1, 5, 20])
def test_a_file_with_memory_is_found_by_its_first_sample(count: int) -> None:
    state = np.zeros((), np.float32)

    def remember(x: Array) -> Array:
        nonlocal state
        state, before = state + x.mean(), state
        return np.asarray(x + before)

    opened = {"good": _opened(lambda x: x), "bad": _opened(remember)}
    compare_stream(_samples(count), Function(lambda x: x), {}, opened, False, repeat_first=True)
    assert (opened["good"].remembered, opened["bad"].remembered) == (None, "y")


def test_without_samples_or_without_a_wish_nothing_runs_again() -> None:
    calls: list[int] = []

    def counted(x: Array) -> Array:
        calls.append(1)
        return x

    opened = {"a": _opened(counted)}
    compare_stream(_samples(0), Function(lambda x: x), {}, opened, False, repeat_first=True)
    assert calls == []
    compare_stream(_samples(3), Function(lambda x: x), {}, opened, False)
    assert len(calls) == 3


def test_nan_that_stays_nan_is_no_memory() -> None:
    opened = {"a": _opened(lambda x: x * np.float32("nan"))}
    compare_stream(_samples(3), Function(lambda x: x), {}, opened, False, repeat_first=True)
    assert opened["a"].remembered is None
