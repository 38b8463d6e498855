"""What a profile says, whatever runtime it comes from."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from backends.errors import NotAvailable
from toolkit.processes import how_it_ended

TIMEOUT_S = 600.0


@dataclass(frozen=True)
class OperatorTime:
    """One operator of a file: its kind in the runtime's own words, and its median milliseconds over the runs."""

    kind: str
    median_ms: float


@dataclass(frozen=True)
class Kind:
    """All operators of one kind: how many there are, their milliseconds together, and their share of the whole."""

    kind: str
    count: int
    total_ms: float
    share: float


def by_kind(times: Sequence[OperatorTime]) -> tuple[Kind, ...]:
    """The kinds of a profile, the one that takes longest first."""
    totals: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for time in times:
        totals[time.kind] += time.median_ms  # type: ignore[assignment]  # Counter adds floats as well
        counts[time.kind] += 1
    whole = sum(totals.values()) or 1.0
    return tuple(Kind(kind, counts[kind], total, total / whole) for kind, total in totals.most_common())


def profile(path: Path, threads: int, runs: int) -> tuple[OperatorTime, ...]:
    """Run an ONNX or TFLite file `runs` times, in a process of its own, on arbitrary inputs.

    The operators come in the order in which they run. Their times add up to a little more than a run that nobody
    watches. Raises NotAvailable if the runtime does not tell, or is not there.
    """
    command = [sys.executable, "-m", "toolkit.profiling", str(path), "--threads", str(threads), "--runs", str(runs)]
    try:
        # A process of its own: the runtimes write to stderr, and their memory goes back as a whole.
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
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
