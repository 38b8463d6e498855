"""The comparison of opened files on a stream of samples, of which only sums are kept."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from backends.errors import InvalidArtifact
from backends.tensor import Array
from toolkit.metrics.error import OutputMetrics, RunningMetrics, all_finite
from toolkit.metrics.judges import Judge
from toolkit.metrics.samples import FAMILIES, Sample
from toolkit.models.runner import Runner
from toolkit.parity.found import FoundRows
from toolkit.parity.ties import Ties

# Each file runs this many samples before the next file does. If two runtimes took turns at every sample, the threads of
# one would slow down the other, because a pool spins for a while before it sleeps.
_CHUNK = 8


@dataclass(frozen=True)
class Comparison:
    """The comparison of one file with the file `against`, over all samples.

    outputs: errors by output. numbers, uncounted, details: of the kind's judge, see Judge.
    """

    against: str
    outputs: dict[str, OutputMetrics]
    numbers: dict[str, float]
    uncounted: dict[str, str]
    details: dict[str, Any]


class RunningComparison:
    """The sums for a Comparison: call `add` for each sample, then `result`."""

    def __init__(
        self, against: str, judge: Judge, families: Collection[str] = FAMILIES, found: FoundRows | None = None
    ) -> None:
        """families: of the samples that count; all others are left out. found: the outputs that have as many rows as
        the graph finds; None if all outputs have fixed sizes."""
        self._against = against
        self._families = families
        self._judge = judge
        self._found = found
        self._outputs: dict[str, RunningMetrics] = {}

    def add(self, sample: Sample, got: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
        """Add the outputs of one sample, if it counts. The judge does not see samples with NaN or infinity on either
        side."""
        if sample.family not in self._families:
            return
        if self._found is not None:
            got, expected = self._found.paired(got, expected)
        for name, value in expected.items():
            self._outputs.setdefault(name, RunningMetrics()).add(sample.name, got[name], value)
        if all_finite(got) and all_finite(expected):
            self._judge.add(sample, got, expected)

    def result(self) -> Comparison:
        """Return the comparison over all samples, without outputs for which neither side found anything."""
        outputs = {name: error.result() for name, error in self._outputs.items() if not error.is_empty}
        judge = self._judge
        return Comparison(self._against, outputs, judge.numbers(), judge.uncounted(), judge.details())


@dataclass
class CandidateRun:
    """One opened file: its session, its parent's file name, and the sums against the reference and the parent.

    remembered: the output that was another one when the first sample ran once more, after all others; None if all were
    the same bit for bit.
    """

    session: Runner
    total: RunningComparison
    parent: str | None
    step: RunningComparison | None
    remembered: str | None = None


@dataclass
class SampleCounts:
    """Number of samples by family, and of samples left out because the reference fails or is not finite on them."""

    families: Counter[str] = field(default_factory=Counter)
    outside_domain: int = 0


def compare_stream(
    samples: Iterable[Sample],
    reference: Runner,
    parents: Mapping[str, Runner],
    opened: Mapping[str, CandidateRun],
    may_leave_domain: bool,
    repeat_first: bool = False,
    ties: Ties | None = None,
) -> SampleCounts:
    """Run every sample on the reference and on each file, and add the results to the files' sums.

    parents: files that others are compared with and that are not in `opened`. A file without a `parent` was made from
    the reference: its step would equal its total, and is None. may_leave_domain: leave out synthetic samples on which
    the reference fails or is not finite. repeat_first: run the first sample once more at the end, and note the files
    that then give another output. ties: of the reference, whose indices count as equal where their scores are.
    Returns the counts of samples.
    """
    seen = SampleCounts()
    first: tuple[Sample, dict[str, dict[str, Array]]] | None = None
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
        if first is None and chunk:
            first = chunk[0], {file: results[file][0] for file in opened}
        if ties is not None:
            for i, sample in enumerate(chunk):
                settled = ties.settle(sample.feeds, expected[i], [results[file][i] for file in results])
                for file, outputs_of_file in zip(results, settled, strict=True):
                    results[file][i] = outputs_of_file
        for file, item in opened.items():
            _add(item.total, chunk, results[file], expected)
            if item.step is not None and item.parent is not None:
                _add(item.step, chunk, results[file], results[item.parent])
    if repeat_first and first is not None:
        sample, outputs_before = first
        for file, item in opened.items():
            again = item.session.run(sample.feeds)
            changed = (name for name, value in outputs_before[file].items() if again[name].tobytes() != value.tobytes())
            item.remembered = next(changed, None)
    return seen


def _inside(reference: Runner, sample: Sample, may_leave_domain: bool) -> dict[str, Array] | None:
    """Return the reference's outputs; None if it fails (as an integer division by 0 does) or is not finite."""
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
