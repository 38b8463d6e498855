"""One pass over the samples, with some files opened at once. What is kept are sums."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from backends.errors import InvalidArtifact
from backends.tensor import Array
from toolkit.metrics.error import OutputMetrics, RunningMetrics, all_finite
from toolkit.metrics.judges import Judge
from toolkit.metrics.samples import Sample
from toolkit.models.runner import Runner

# Each file runs this many samples in turn: the threads of two runtimes that take turns at every sample are in each
# other's way, because a pool spins for a while before it sleeps.
_CHUNK = 8


@dataclass(frozen=True)
class Comparison:
    """One file against another, over all samples: errors by output, and what the kind's judge says."""

    against: str
    outputs: dict[str, OutputMetrics]
    numbers: dict[str, float]
    uncounted: dict[str, str]
    details: dict[str, Any]


class RunningComparison:
    """Sums for a Comparison."""

    def __init__(self, against: str, judge: Judge) -> None:
        self._against = against
        self._judge = judge
        self._outputs: dict[str, RunningMetrics] = {}

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        for name, value in expected.items():
            self._outputs.setdefault(name, RunningMetrics()).add(sample.name, got[name], value)
        if all_finite(got) and all_finite(expected):
            self._judge.add(sample, got, expected)

    def result(self) -> Comparison:
        outputs = {name: error.result() for name, error in self._outputs.items()}
        judge = self._judge
        return Comparison(self._against, outputs, judge.numbers(), judge.uncounted(), judge.details())


@dataclass
class CandidateRun:
    """One file of a pass: its session, what it is compared with, and what has been summed."""

    session: Runner
    total: RunningComparison
    parent: str | None
    step: RunningComparison | None


@dataclass
class SampleCounts:
    """Samples by family, and those that were left out because the reference fails or is not finite on them."""

    families: Counter[str] = field(default_factory=Counter)
    outside_domain: int = 0


def compare_stream(
    samples: Iterable[Sample],
    reference: Runner,
    parents: Mapping[str, Runner],
    opened: Mapping[str, CandidateRun],
    may_leave_domain: bool,
) -> SampleCounts:
    """Run every sample on the reference, then on each file, and add what differs to the files' sums.

    `parents` are files that others are compared with and that are not among `opened` themselves. A file's `parent`
    of None is the reference: then total and step are the same, and step is None.
    """
    seen = SampleCounts()
    remaining = iter(samples)
    while chunk := list(islice(remaining, _CHUNK)):
        outputs = [_inside(reference, sample, may_leave_domain) for sample in chunk]
        seen.outside_domain += outputs.count(None)
        chunk = [sample for sample, value in zip(chunk, outputs, strict=True) if value is not None]
        expected = [value for value in outputs if value is not None]
        seen.families.update(sample.family for sample in chunk)
        results = {
            file: [runner.run(sample.feeds) for sample in chunk]
            for file, runner in (*parents.items(), *((file, item.session) for file, item in opened.items()))
        }
        for file, item in opened.items():
            _add(item.total, chunk, results[file], expected)
            if item.step is not None and item.parent is not None:
                _add(item.step, chunk, results[file], results[item.parent])
    return seen


def _inside(reference: Runner, sample: Sample, may_leave_domain: bool) -> dict[str, Array] | None:
    """What the reference gives, or None outside its domain: where it fails, as integers over 0 do, or is not finite."""
    if not may_leave_domain or sample.family != "synthetic":
        return reference.run(sample.feeds)
    try:
        outputs = reference.run(sample.feeds)
    except InvalidArtifact:
        return None
    return outputs if all_finite(outputs) else None


def _add(
    comparison: RunningComparison,
    chunk: Sequence[Sample],
    got: Sequence[Mapping[str, Array]],
    expected: Sequence[Mapping[str, Array]],
) -> None:
    for sample, ours, theirs in zip(chunk, got, expected, strict=True):
        comparison.add(sample, ours, theirs)
