"""The timing loop, which runs functions in turn in rounds, and the statistics of its samples."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Seconds of warm-up before each timed run. Idle threads of a runtime spin for some milliseconds before they sleep:
# without the warm-up, the threads of the run before would slow down a model of 2 ms.
SETTLE_S = 0.02

# A run is steady when the medians of its last WINDOWS windows, of WINDOW rounds each, differ by at most STEADY of their
# mean.
WINDOW = 16
WINDOWS = 3
STEADY = 0.05

# With fewer samples a quantile rests on one or two runs that happened to be slow: at least six must lie above it.
P90_SAMPLES = 64
P99_SAMPLES = 662

Run = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Rounds:
    """The number of rounds. warm_ups: rounds before the first, which are not counted.

    The rounds end after `most` rounds, or after at least `least` rounds once `time_limit_s` seconds have passed since
    the first warm-up. until_steady: they also end after at least P90_SAMPLES rounds if all runs are steady. Raises
    ValueError for a `least` below 1 or above `most`.
    """

    time_limit_s: float
    warm_ups: int = 10
    least: int = WINDOWS
    most: int | None = None
    until_steady: bool = True

    def __post_init__(self) -> None:
        if self.least < 1 or (self.most is not None and self.most < self.least):
            raise ValueError(f"expected 1 <= least <= most, got least {self.least} and most {self.most}")


@dataclass(frozen=True)
class Timing:
    """Statistics of the milliseconds of a run. p90_ms and p99_ms are None with fewer than P90_SAMPLES and P99_SAMPLES.

    runs: the number of samples. noise: the spread of the medians of the last windows, see `noise_of`. settled: whether
    the noise is at most STEADY and there are enough samples for full windows.
    """

    runs: int
    median_ms: float
    lowest_ms: float
    p90_ms: float | None
    p99_ms: float | None
    noise: float
    settled: bool

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> "Timing":
        """Return the statistics of samples that stand in the order in which they were taken."""
        noise = noise_of(samples_ms)
        return cls(
            runs=len(samples_ms),
            median_ms=float(np.median(samples_ms)),
            lowest_ms=min(samples_ms),
            p90_ms=float(np.quantile(samples_ms, 0.9)) if len(samples_ms) >= P90_SAMPLES else None,
            p99_ms=float(np.quantile(samples_ms, 0.99)) if len(samples_ms) >= P99_SAMPLES else None,
            noise=noise,
            settled=noise <= STEADY and len(samples_ms) >= WINDOW * WINDOWS,
        )


@dataclass(frozen=True)
class Quartiles:
    """Lower quartile, median and upper quartile of a ratio."""

    low: float
    median: float
    high: float

    @classmethod
    def of_ratio(cls, samples_ms: Sequence[float], reference_ms: Sequence[float]) -> "Quartiles":
        """Return the quartiles of each sample over the reference's sample of the same round.

        Within a round, a slower machine slows down both. Raises ValueError for different numbers of samples.
        """
        if len(samples_ms) != len(reference_ms):
            raise ValueError(f"expected as many samples as rounds, got {len(samples_ms)} and {len(reference_ms)}")
        low, median, high = np.quantile(np.array(samples_ms) / np.array(reference_ms), [0.25, 0.5, 0.75])
        return cls(float(low), float(median), float(high))


def time_rounds(
    runs: Mapping[str, Run],
    rounds: Rounds,
    progress: Callable[[str], None] = lambda step: None,
    clock: Clock = time.perf_counter,
    sample: Callable[[Run, Clock], float] | None = None,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Time every run once a round, in a new random order each round, and return their milliseconds by name.

    Samples stand in the order of the rounds: samples of two names at one index are of the same round. sample: returns
    the seconds of one run; None for `time_after_warmup`. progress: called with the number of the round and the time
    left, if that is at least 3 s.
    """
    sample = sample or time_after_warmup
    start = clock()
    end = start + rounds.time_limit_s
    for number in range(rounds.warm_ups):
        left_s = (rounds.warm_ups - number) * (clock() - start) / number if number else 0.0
        progress(f"warm-up {number + 1} of {rounds.warm_ups}{_time_left(left_s)}")
        for run in runs.values():
            run()
    order = np.random.default_rng(seed)
    names = list(runs)
    samples: dict[str, list[float]] = {name: [] for name in names}
    counted_from = clock()
    while names:
        count = len(samples[names[0]])
        left_s = end - clock()
        if rounds.most is not None and count:
            left_s = min(left_s, (rounds.most - count) * (clock() - counted_from) / count)
        progress(f"round {count + 1}{_time_left(left_s)}")
        late = count >= rounds.least and clock() >= end
        steady = rounds.until_steady and count >= P90_SAMPLES and count % WINDOW == 0
        if late or count == rounds.most or (steady and all(noise_of(one) <= STEADY for one in samples.values())):
            break
        for index in order.permutation(len(names)):
            samples[names[index]].append(1e3 * sample(runs[names[index]], clock))
    return samples


def time_after_warmup(run: Run, clock: Clock = time.perf_counter) -> float:
    """Return the seconds of one run after a warm-up: uncounted runs for SETTLE_S seconds, at least one.

    The warm-up refills caches and gets back cores that another run has used.
    """
    end = clock() + SETTLE_S
    while True:
        run()
        start = clock()
        if start >= end:
            break
    run()
    return clock() - start


def noise_of(samples_ms: Sequence[float]) -> float:
    """Return the range of the medians of the last WINDOWS windows over their mean; 0.0 if the mean is 0.

    Windows are shorter where there are not enough samples; of fewer samples than WINDOWS, each is a window.
    """
    windows = min(WINDOWS, len(samples_ms))
    window = min(WINDOW, len(samples_ms) // windows)
    last = np.array(samples_ms[-window * windows :]).reshape(windows, window)
    medians = np.median(last, axis=1)
    mean = float(medians.mean())
    return float(np.ptp(medians)) / mean if mean else 0.0


def _time_left(seconds: float) -> str:
    """Return the time left as text, such as ", 12 s more"; "" below 3 s."""
    return f", {seconds / 60:.0f} min more" if seconds >= 90 else f", {seconds:.0f} s more" if seconds >= 3 else ""
