"""The timing loop: runs take turns in rounds, in a new order each round, and each timed run follows a warm-up."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Idle threads of a runtime spin for some milliseconds before they sleep: without this pause in which the run itself is
# repeated, the figure of a model of 2 ms would be that of the run before it.
SETTLE_S = 0.02

# Steady means: the medians of the last WINDOWS windows of WINDOW rounds each lie within STEADY of each other.
WINDOW = 16
WINDOWS = 3
STEADY = 0.05

# Below these counts a quantile is one or two runs that happened to be slow: at least six must lie beyond it.
P90_SAMPLES = 64
P99_SAMPLES = 662

Run = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Rounds:
    """How many rounds there are. warm_ups: uncounted ones before the first.

    The rounds end at `most`, or once `time_limit_s` seconds have passed since the first warm-up and there are `least`.
    until_steady: they also end when there are P90_SAMPLES and all runs are steady. Raises ValueError for a `least`
    below 1 or above `most`.
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
    """Milliseconds of one run. p90 and p99 are None where there are too few samples for them.

    runs: how many were timed. noise: how far the medians of the last windows are apart, over their mean. settled:
    whether the noise is at most STEADY, in windows of WINDOW runs.
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
        """Summarize the samples of one run, in the order in which they were taken."""
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
    """Lower quartile, median and upper quartile."""

    low: float
    median: float
    high: float

    @classmethod
    def of_ratio(cls, samples_ms: Sequence[float], reference_ms: Sequence[float]) -> "Quartiles":
        """Divide each sample by the reference's of the same round: a machine that slows down slows both.

        Raises ValueError where the two have not as many samples.
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
    """Time every run once a round, in an order drawn anew each round, and return their milliseconds by name.

    The samples of a name stand in the order of the rounds, so that samples of two names at one index are of one round.
    sample: gives the seconds of one run; `time_after_warmup` where it is None. `progress` is told the round and, where
    it is long, the time left.
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
    """Return the seconds of one run, after uncounted ones for SETTLE_S seconds and at least one.

    The uncounted runs bring back caches and cores that another run has had.
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
    """Return how far the medians of the last WINDOWS windows are apart, over their mean.

    Of fewer samples than windows, each sample is a window.
    """
    windows = min(WINDOWS, len(samples_ms))
    window = min(WINDOW, len(samples_ms) // windows)
    last = np.array(samples_ms[-window * windows :]).reshape(windows, window)
    medians = np.median(last, axis=1)
    mean = float(medians.mean())
    return float(np.ptp(medians)) / mean if mean else 0.0


def _time_left(seconds: float) -> str:
    """Return the time left as a person reads it; nothing where it is short."""
    return f", {seconds / 60:.0f} min more" if seconds >= 90 else f", {seconds:.0f} s more" if seconds >= 3 else ""
