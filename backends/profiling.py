"""Profiles: the time of each operator of a file, as the runtime's own profiler measures it."""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.errors import NotAvailable, one_line
from backends.sandbox import SandboxDied, SandboxProcess

TIMEOUT_S = 600.0


@dataclass(frozen=True)
class OperatorTime:
    """One operator of a file: the runtime's name for its type, and its median milliseconds over the runs; their mean
    where the runtime tells means alone.

    name: the runtime's name for the operator, taken from a node or a value of the file; "" without a name.
    """

    kind: str
    median_ms: float
    name: str = ""


@dataclass(frozen=True)
class OpTypeTotal:
    """All operators of one type: their number, the sum of their milliseconds, and its share in [0, 1] of all time."""

    kind: str
    count: int
    total_ms: float
    share: float


# Called with a file, a number of threads, a number of runs, and the precision in which the file runs; returns the
# operators in running order.
Profiler = Callable[[Path, int, int, str], tuple[OperatorTime, ...]]


def by_op_type(times: Sequence[OperatorTime]) -> tuple[OpTypeTotal, ...]:
    """Return the totals of a profile by operator type, the largest time first."""
    return tuple(OpTypeTotal(*summed) for summed in summed_by([time.kind for time in times], times))


def summed_by(labels: Sequence[str], times: Sequence[OperatorTime]) -> Iterator[tuple[str, int, float, float]]:
    """Yield (label, number of operators, sum of milliseconds, share of all time), the largest time first.

    labels: one for each operator of `times`.
    """
    totals: defaultdict[str, float] = defaultdict(float)
    counts = Counter(labels)
    for label, time in zip(labels, times, strict=True):
        totals[label] += time.median_ms
    whole = sum(totals.values()) or 1.0
    for label in sorted(totals, key=lambda label: -totals[label]):
        yield label, counts[label], totals[label], totals[label] / whole


def profile(
    path: Path, profiler: Profiler | None, threads: int, runs: int, precision: str = "fp32"
) -> tuple[OperatorTime, ...]:
    """Run a file `runs` times under a backend's profiler, in a child process, on arbitrary inputs.

    precision: the precision in which the file runs; only a precision without files of its own makes a difference.
    Returns the operators in running order. Their times add up to a little more than a run without the profiler.
    Raises NotAvailable if the backend has no profiler, or its profiler fails.
    """
    if profiler is None:
        raise NotAvailable(f"{path.name}: cannot be profiled: its backend has no profiler")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        try:
            # A child process keeps the runtimes' stderr apart, and frees all of their memory when it ends.
            with SandboxProcess(log, TIMEOUT_S) as sandbox:
                return sandbox.call(profiler, path, threads, runs, precision)
        except SandboxDied as died:
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
            raise NotAvailable(f"{path.name}: cannot be profiled: that process {died}: {said[-1]}") from died
        except Exception as error:  # the runtimes' errors have no common base class
            raise NotAvailable(f"{path.name}: cannot be profiled: {one_line(error)}") from error
