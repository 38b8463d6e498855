"""Candidates timed in the same rounds, in groups that fit memory."""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from backends.errors import ToolkitError, one_line
from toolkit.bench.candidate import Candidate
from toolkit.bench.feeds import timing_feeds
from toolkit.bench.kept import Kept
from toolkit.bench.memory import check_pair, groups
from toolkit.bench.request import Progress
from toolkit.bench.rounds import Run, Timing, measure
from toolkit.bench.runtime import in_use


@dataclass(frozen=True)
class Measured:
    """One candidate. of_reference: its median over the reference's of the same group's rounds."""

    group: int
    timing: Timing
    of_reference: float
    in_use: dict[str, Any]


@dataclass
class Together:
    """What was measured, by name, and why what is not there could not be."""

    measured: dict[str, Measured] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    groups: int = 0


def measure_together(
    candidates: Sequence[Candidate],
    reference: Candidate,
    threads: int,
    time_limit_s: float,
    progress: Progress = lambda step: None,
    may_fail: Collection[str] = (),
    kept: Kept | None = None,
) -> Together:
    """Time candidates that all compute the same, interleaved; time_limit_s is shared by the groups.

    The reference is in every group, and its own figures are of the first. The names of `may_fail` are left out if they
    do not open or do not run. What `kept` has of a group is not measured again. Raises what opening any other raises;
    NotAvailable for one that does not fit memory even alone with the reference.
    """
    kept, found = Kept() if kept is None else kept, Together()
    for candidate in candidates:
        try:
            check_pair(candidate, reference)
        except ToolkitError as error:
            if candidate.name not in may_fail:
                raise
            found.failed[candidate.name] = one_line(error)
    chosen = [candidate for candidate in candidates if candidate.name not in found.failed]
    parts = list(groups(chosen, reference))
    found.groups = len(parts)
    for number, group in enumerate(parts, 1):
        names = ", ".join(f"{candidate.name} {candidate.artifact.sha256}" for candidate in group)
        part = partial(_group, group, threads, time_limit_s / len(parts), progress, may_fail)
        done = kept.once(f"{reference.artifact.role} in rounds: {names}", part)
        found.failed |= done["failed"]
        timings = {name: Timing(**timing) for name, timing in done["timings"].items()}
        base = timings[reference.name].median_ms
        for name, timing in timings.items():
            if name not in found.measured:
                found.measured[name] = Measured(number, timing, timing.median_ms / base, done["in_use"][name])
    return found


def _group(
    group: Sequence[Candidate], threads: int, time_limit_s: float, progress: Progress, may_fail: Collection[str]
) -> dict[str, Any]:
    """{"timings": a Timing's fields by name, "in_use": likewise, "failed": the reason by name}, as JSON values."""
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        runs: dict[str, Run] = {}
        described = {}
        for candidate in group:
            progress(f"opening {candidate.name}")
            try:
                session = stack.enter_context(candidate.open(threads))
                run = partial(session.run, timing_feeds(candidate.artifact))
                run()
            except ToolkitError as error:
                if candidate.name not in may_fail:
                    raise
                failed[candidate.name] = one_line(error)
                continue
            runs[candidate.name], described[candidate.name] = run, in_use(session, candidate.backend)
        timings = measure(runs, time_limit_s, progress)
    return {"timings": {name: asdict(one) for name, one in timings.items()}, "in_use": described, "failed": failed}
