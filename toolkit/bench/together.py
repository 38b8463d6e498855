"""What is timed: a file of a bundle, or what somebody would run instead, and the runtime that opens it."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress
from backends.errors import NotAvailable, ToolkitError, one_line
from backends.machine import free_bytes
from backends.registry import BACKENDS, open_session
from backends.session import Session
from backends.tensor import Array
from toolkit.bench.rounds import ResumeLog, Run, Timing, measure
from toolkit.metrics.samples import signed_samples


@dataclass(frozen=True)
class BenchTarget:
    """An artifact of a bundle on a backend, under the name that a table shows."""

    name: str
    bundle: Bundle
    artifact: Artifact
    backend: str

    def open(self, threads: int) -> Session:
        """Check the file against its hash and open it. Raises NotAvailable and InvalidArtifact."""
        return open_session(self.bundle, self.artifact, self.backend, threads)


def timing_feeds(artifact: Artifact) -> dict[str, Array]:
    """Uniform noise in [0, 1), seeded, for floats; 0 and 1 for integers. Zeros could take shortcuts."""
    return dict(next(signed_samples(tuple(binding.spec for binding in artifact.inputs))).feeds)


# Open files may take this share of the memory that is free; a runtime keeps a packed copy of weights beside the file.
_SHARE = 0.4

# One file beside its reference may take this one: without the pair there is no ratio.
_PAIR_SHARE = 0.8


def fits(nbytes: int) -> bool:
    """Whether files of this size together may be open."""
    return nbytes <= _SHARE * free_bytes()


def check_pair(candidate: BenchTarget, reference: BenchTarget) -> None:
    """Raise NotAvailable where a candidate does not fit beside the reference, even with nothing else open."""
    free, need = free_bytes(), _together([candidate], reference)
    if need > _PAIR_SHARE * free:
        raise NotAvailable(
            f"{candidate.name}: it and {reference.name} have {need / 1e9:.1f} GB; expected at most "
            f"{_PAIR_SHARE:.0%} of the {free / 1e9:.1f} GB of memory that is free"
        )


def groups(candidates: Sequence[BenchTarget], reference: BenchTarget) -> Iterator[list[BenchTarget]]:
    """The candidates in groups that fit memory with the reference, which is first in each; at least one beside it."""
    others = [candidate for candidate in candidates if candidate.name != reference.name]
    group: list[BenchTarget] = []
    for candidate in others:
        if group and not fits(_together([*group, candidate], reference)):
            yield [reference, *group]
            group = []
        group.append(candidate)
    yield [reference, *group]


def _together(candidates: Sequence[BenchTarget], reference: BenchTarget) -> int:
    return sum({candidate.name: candidate.artifact.bytes for candidate in (reference, *candidates)}.values())


def in_use(session: Session, backend: str) -> dict[str, Any]:
    """The runtime of an opened session, its version and threads, and the facts that the runtime itself tells."""
    package = BACKENDS.load(backend).package
    return {"runtime": package, "version": version(package), "threads": session.threads, **session.describe()}


@dataclass(frozen=True)
class TargetTiming:
    """One candidate. of_reference: its median over the reference's of the same group's rounds."""

    group: int
    timing: Timing
    of_reference: float
    in_use: dict[str, Any]


@dataclass
class Together:
    """What was measured, by name, and why what is not there could not be."""

    measured: dict[str, TargetTiming] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    groups: int = 0


def measure_together(
    candidates: Sequence[BenchTarget],
    reference: BenchTarget,
    threads: int,
    time_limit_s: float,
    progress: Progress = lambda step: None,
    may_fail: Collection[str] = (),
    kept: ResumeLog | None = None,
) -> Together:
    """Time candidates that all compute the same, interleaved; time_limit_s is shared by the groups.

    The reference is in every group, and its own figures are of the first. The names of `may_fail` are left out if they
    do not open or do not run. What `kept` has of a group is not measured again. Raises what opening any other raises;
    NotAvailable for one that does not fit memory even alone with the reference.
    """
    kept, found = ResumeLog() if kept is None else kept, Together()
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
                found.measured[name] = TargetTiming(number, timing, timing.median_ms / base, done["in_use"][name])
    return found


def _group(
    group: Sequence[BenchTarget], threads: int, time_limit_s: float, progress: Progress, may_fail: Collection[str]
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
