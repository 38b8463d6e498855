"""Rounds on a clock of our own: nothing here depends on how fast the machine is."""

from collections.abc import Callable

import numpy as np
import pytest

from backends.timing import (
    P90_SAMPLES,
    P99_SAMPLES,
    SETTLE_S,
    STEADY,
    WINDOW,
    WINDOWS,
    Quartiles,
    Rounds,
    Run,
    Timing,
    noise_of,
    time_after_warmup,
    time_rounds,
)

WARM_UPS = Rounds(time_limit_s=0).warm_ups


class Clock:
    """Time that passes only when a candidate runs."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.runs: dict[str, int] = {}

    def __call__(self) -> float:
        return self.now_s

    def candidate(self, name: str, seconds: Callable[[int], float]) -> Callable[[], None]:
        self.runs[name] = 0

        def run() -> None:
            self.now_s += seconds(self.runs[name])
            self.runs[name] += 1

        return run


def measure(runs: dict[str, Run], time_limit_s: float, clock: Clock) -> dict[str, Timing]:
    samples = time_rounds(runs, Rounds(time_limit_s), clock=clock)
    return {name: Timing.of(values) for name, values in samples.items()}


def test_steady_candidates_stop_as_soon_as_a_p90_can_be_told() -> None:
    clock = Clock()
    runs = {"fast": clock.candidate("fast", lambda i: 0.001), "slow": clock.candidate("slow", lambda i: 0.003)}
    timings = measure(runs, 1e6, clock)
    for name, milliseconds in (("fast", 1), ("slow", 3)):
        timing = timings[name]
        assert timing.runs == P90_SAMPLES
        assert timing.median_ms == pytest.approx(milliseconds)
        assert timing.p90_ms == pytest.approx(milliseconds)
        assert timing.p99_ms is None
        assert timing.settled


def test_a_run_counts_once_another_candidates_threads_have_gone_to_sleep() -> None:
    """The first runs after another's are slower, for as long as that one's threads spin."""
    clock = Clock()
    disturbed = clock.candidate("quick", lambda i: 0.004 if clock.now_s < SETTLE_S / 2 else 0.001)
    assert time_after_warmup(disturbed, clock) == pytest.approx(0.001)
    assert clock.now_s == pytest.approx(SETTLE_S, rel=0.2)
    slow = clock.candidate("slow", lambda i: 3.0)
    assert (time_after_warmup(slow, clock), clock.runs["slow"]) == (3.0, 2)


def test_a_candidate_that_drifts_keeps_all_of_them_going_until_it_stands_still() -> None:
    clock = Clock()
    runs = {
        "steady": clock.candidate("steady", lambda i: 0.1),
        "drifting": clock.candidate("drifting", lambda i: 0.2 - 2e-4 * min(i, 500)),
    }
    timings = measure(runs, 1e6, clock)
    assert timings["drifting"].settled
    assert timings["steady"].runs == timings["drifting"].runs > 245
    assert timings["drifting"].runs % WINDOW == 0


def test_the_time_limit_ends_it_and_says_that_it_did_not_settle() -> None:
    clock = Clock()
    rng = np.random.default_rng(0)
    runs = {"wild": clock.candidate("wild", lambda i: float(rng.exponential(0.01)))}
    timing = measure(runs, 2.0, clock)["wild"]
    assert not timing.settled
    assert timing.noise > STEADY
    assert 2.0 <= clock.now_s < 2.2


def test_however_slow_a_candidate_is_it_is_warmed_up_and_has_a_run_for_each_window() -> None:
    clock = Clock()
    timing = measure({"slow": clock.candidate("slow", lambda i: 100.0)}, 1.0, clock)["slow"]
    assert (timing.runs, timing.p90_ms, timing.settled) == (WINDOWS, None, False)
    assert clock.runs["slow"] == WARM_UPS + 2 * WINDOWS


def test_a_p99_needs_its_number_of_runs() -> None:
    clock = Clock()
    runs = {"x": clock.candidate("x", lambda i: 0.05 + 0.05 * (i // 2 // WINDOW % 2))}
    timing = measure(runs, 0.15 * (P99_SAMPLES + 30), clock)["x"]
    assert timing.runs >= P99_SAMPLES
    assert timing.p99_ms is not None
    assert timing.lowest_ms == pytest.approx(50)


def test_the_order_within_a_round_changes() -> None:
    seen: list[str] = []
    clock = Clock()

    def candidate(name: str) -> Callable[[], None]:
        run = clock.candidate(name, lambda i: 1.0)
        return lambda: (seen.append(name), run())[1]

    measure({name: candidate(name) for name in "abc"}, 0.0, clock)
    rounds = [tuple(seen[i : i + 6 : 2]) for i in range(3 * WARM_UPS, len(seen), 6)]
    assert len(rounds) == WINDOWS
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 1


def test_rounds_end_at_most_however_much_time_there_is() -> None:
    clock = Clock()
    run = clock.candidate("x", lambda i: 1.0)
    samples = time_rounds({"x": run}, Rounds(1e6, warm_ups=2, least=3, most=5, until_steady=False), clock=clock)
    assert (samples["x"], clock.runs["x"]) == ([1000.0] * 5, 2 + 2 * 5)


def test_without_until_steady_only_the_time_ends_the_rounds() -> None:
    clock = Clock()
    samples = time_rounds(
        {"x": clock.candidate("x", lambda i: 0.05)}, Rounds(20.0, warm_ups=0, until_steady=False), clock=clock
    )
    assert len(samples["x"]) == 200 > P90_SAMPLES


@pytest.mark.parametrize(("least", "most"), [(0, None), (4, 3)])
def test_rounds_that_contradict_themselves_are_refused(least: int, most: int | None) -> None:
    with pytest.raises(ValueError, match="expected 1 <= least <= most"):
        Rounds(1.0, least=least, most=most)


def test_a_run_that_says_its_own_time_is_not_timed() -> None:
    clock = Clock()
    rounds = Rounds(0, warm_ups=0, least=2, until_steady=False)
    samples = time_rounds({"x": lambda: 0.25}, rounds, clock=clock, sample=lambda run, _: float(str(run())))
    assert samples == {"x": [250.0, 250.0]}


def test_the_time_left_is_said_where_it_is_long() -> None:
    clock, steps = Clock(), list[str]()
    run = clock.candidate("x", lambda i: 5.0)
    time_rounds({"x": run}, Rounds(1e6, warm_ups=2, least=3, most=20), steps.append, clock)
    assert steps[:4] == ["warm-up 1 of 2", "warm-up 2 of 2, 5 s more", "round 1, 16666 min more", "round 2, 3 min more"]
    assert steps[-1] == "round 21"


def test_ratios_are_of_the_same_round() -> None:
    found = Quartiles.of_ratio([25.0, 60.0, 100.0], [100.0, 200.0, 400.0])
    assert (found.low, found.median, found.high) == pytest.approx((0.25, 0.25, 0.275))
    with pytest.raises(ValueError, match="expected as many samples"):
        Quartiles.of_ratio([1.0], [1.0, 2.0])


def test_noise_is_of_the_last_windows() -> None:
    assert noise_of([1.0]) == 0
    assert noise_of([1.0, 3.0]) == pytest.approx(1)
    late = [1.0] * WINDOW + [3.0] * WINDOW + [2.0] * WINDOW
    assert noise_of([100.0] * WINDOW + late) == noise_of(late) == pytest.approx(1)
