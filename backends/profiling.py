"""What a profile says, whatever runtime it comes from."""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from backends.errors import NotAvailable
from backends.sandbox import environment, how_it_ended, python_module

TIMEOUT_S = 600.0


@dataclass(frozen=True)
class OperatorTime:
    """One operator of a file: its kind in the runtime's own words, and its median milliseconds over the runs.

    name: what the runtime calls it, after a node or a value of the file; "" where it does not tell.
    """

    kind: str
    median_ms: float
    name: str = ""


@dataclass(frozen=True)
class OpTypeTotal:
    """All operators of one kind: how many there are, their milliseconds together, and their share of the whole."""

    kind: str
    count: int
    total_ms: float
    share: float


def by_op_type(times: Sequence[OperatorTime]) -> tuple[OpTypeTotal, ...]:
    """The kinds of a profile, the one that takes longest first."""
    return tuple(OpTypeTotal(*summed) for summed in summed_by([time.kind for time in times], times))


def summed_by(labels: Sequence[str], times: Sequence[OperatorTime]) -> Iterator[tuple[str, int, float, float]]:
    """(label, how many operators have it, their milliseconds, their share), the one that takes longest first."""
    totals: defaultdict[str, float] = defaultdict(float)
    counts = Counter(labels)
    for label, time in zip(labels, times, strict=True):
        totals[label] += time.median_ms
    whole = sum(totals.values()) or 1.0
    for label in sorted(totals, key=lambda label: -totals[label]):
        yield label, counts[label], totals[label], totals[label] / whole


def profile(path: Path, threads: int, runs: int) -> tuple[OperatorTime, ...]:
    """Run an ONNX or TFLite file `runs` times, in a process of its own, on arbitrary inputs.

    The operators come in the order in which they run. Their times add up to a little more than a run that nobody
    watches. Raises NotAvailable if the runtime does not tell, or is not there.
    """
    command = [*python_module("backends.profiling"), str(path), str(threads), str(runs)]
    try:
        # A process of its own: the runtimes write to stderr, and their memory goes back as a whole.
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True, env=environment())
        return tuple(OperatorTime(**entry) for entry in json.loads(done.stdout))
    except subprocess.TimeoutExpired as error:
        raise NotAvailable(f"{path.name}: no profile within {TIMEOUT_S:.0f} s") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["no output"]
        raise NotAvailable(
            f"{path.name}: cannot be profiled: that process {how_it_ended(error.returncode)}: {said[-1]}"
        ) from error


def to_json(times: Sequence[OperatorTime]) -> str:
    """One JSON list, as `profile` reads it."""
    return json.dumps([asdict(time) for time in times])


def _main(path: str, threads: str, runs: str) -> None:
    """The child process of `profile`: one JSON list on stdout."""
    if path.endswith(".onnx"):
        from backends.ort import profile as profile_file
    else:
        from backends.litert import profile as profile_file
    sys.stdout.write(to_json(profile_file(Path(path), int(threads), int(runs))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
