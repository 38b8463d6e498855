"""Interleaved timing: every candidate once a round, in a new order each round, until the figures stand still."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.errors import InvalidInput

WARM_UPS = 10

WINDOW = 16

WINDOWS = 3

AGREE = 0.05

# Idle threads of a runtime spin for some milliseconds before they sleep: on a model of 2 ms, that is what its
# neighbour's figure would be of.
SETTLE_S = 0.02

# Below these counts a quantile is one or two runs that happened to be slow: at least six must lie beyond it.
P90_SAMPLES = 64

P99_SAMPLES = 662

Run = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one candidate. p90 and p99 are None where there are too few runs for them.

    noise: how far the medians of the last windows are apart, over their mean. settled: at most AGREE, in windows of
    WINDOW runs.
    """

    runs: int
    median_ms: float
    lowest_ms: float
    p90_ms: float | None
    p99_ms: float | None
    noise: float
    settled: bool


def measure(
    candidates: Mapping[str, Run],
    time_limit_s: float,
    progress: Callable[[str], None] = lambda step: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time every candidate until the last WINDOWS windows of all agree within AGREE, or the time is up.

    Whatever the limit, there are WARM_UPS and then a round for each window. Each timed run is one of `settled`.
    """
    start = clock()
    end = start + time_limit_s
    for number in range(WARM_UPS):
        left = (WARM_UPS - number) * (clock() - start) / number if number else 0.0
        progress(f"warm-up {number + 1} of {WARM_UPS}{_more(left)}")
        for run in candidates.values():
            run()
    order = np.random.default_rng(0)
    names = list(candidates)
    times: dict[str, list[float]] = {name: [] for name in names}
    while True:
        rounds = len(times[names[0]])
        progress(f"round {rounds + 1}{_more(end - clock())}")
        late = rounds >= WINDOWS and clock() >= end
        still = rounds >= P90_SAMPLES and rounds % WINDOW == 0 and all(_noise(v) <= AGREE for v in times.values())
        if late or still:
            return {name: _timing(values) for name, values in times.items()}
        for index in order.permutation(len(names)):
            times[names[index]].append(1e3 * time_after_warmup(candidates[names[index]], clock))


def time_after_warmup(run: Run, clock: Callable[[], float] = time.perf_counter) -> float:
    """The seconds of one run, after as many as SETTLE_S takes, and one at least: another has had caches and cores."""
    end = clock() + SETTLE_S
    while True:
        run()
        start = clock()
        if start >= end:
            break
    run()
    return clock() - start


def _more(left_s: float) -> str:
    """What a person who waits wants to know; nothing where it is soon."""
    return f", {left_s / 60:.0f} min more" if left_s >= 90 else f", {left_s:.0f} s more" if left_s >= 3 else ""


def _noise(values: list[float]) -> float:
    window = min(WINDOW, len(values) // WINDOWS)
    last = np.array(values[-window * WINDOWS :]).reshape(WINDOWS, window)
    medians = np.median(last, axis=1)
    mean = float(medians.mean())
    return float(np.ptp(medians)) / mean if mean else 0.0


def _timing(values: list[float]) -> Timing:
    noise = _noise(values)
    return Timing(
        runs=len(values),
        median_ms=float(np.median(values)),
        lowest_ms=min(values),
        p90_ms=float(np.quantile(values, 0.9)) if len(values) >= P90_SAMPLES else None,
        p99_ms=float(np.quantile(values, 0.99)) if len(values) >= P99_SAMPLES else None,
        noise=noise,
        settled=noise <= AGREE and len(values) >= WINDOW * WINDOWS,
    )


class ResumeLog:
    """Measurements by name, a line of JSON each; with no path, none are kept.

    of: what all of them are of, as JSON. A file of anything else is begun anew: other versions, files or options give
    other figures. Raises InvalidInput where the file cannot be read or written.
    """

    def __init__(self, path: Path | None = None, of: object = None) -> None:
        self.path = path
        self._found: dict[str, Any] = {}
        if path is None:
            return
        head = json.dumps(of, sort_keys=True)
        try:
            lines = path.read_bytes().split(b"\n") if path.is_file() else []
            if lines[:1] != [head.encode()]:
                path.write_text(head + "\n", encoding="utf-8")
                return
            # What follows the last line break was being written when the process ended.
            self._found = dict(map(json.loads, lines[1:-1]))
            path.write_bytes(b"\n".join(lines[:-1]) + b"\n")
        except (OSError, ValueError, TypeError) as error:
            raise InvalidInput(f"{path}: cannot go on with what is kept there: {error}; remove it") from error

    def __len__(self) -> int:
        return len(self._found)

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """What was measured under this name, or else what `measure` gives, as JSON holds it; kept from here on."""
        if name not in self._found:
            made = json.dumps(measure())
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(f"[{json.dumps(name)}, {made}]\n")
            self._found[name] = json.loads(made)
        return self._found[name]

    def close(self) -> None:
        """All is measured, and stands in a result: the file goes."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
