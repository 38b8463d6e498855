"""What the graphs of a bundle make together, in every format and precision, against the float32 reference."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.registry import BACKENDS
from backends.tensor import Array
from toolkit.parity.kinds import Kind, Whole
from toolkit.parity.report import RunReport, WholeReport, judge
from toolkit.parity.stream import Comparison, RunningComparison
from toolkit.parity.tolerance import tolerance_for

# In this order one of them is the reference.
_FORMATS = ("torch", "onnx", "tflite")


def variants(whole: Whole, artifacts: Sequence[Artifact]) -> list[tuple[str, str]]:
    """(format, precision) of which every graph of the whole is there, those of float32 first, torch before ONNX."""
    there = {(artifact.role, artifact.format, artifact.precision) for artifact in artifacts}
    precisions = sorted({artifact.precision for artifact in artifacts}, key=lambda name: (name != "fp32", name))
    return [
        (format, precision)
        for precision in precisions
        for format in _FORMATS
        if all((role, format, precision) in there for role in whole.graphs)
    ]


def compare_wholes(
    bundle: Bundle,
    kind: Kind,
    artifacts: Sequence[Artifact],
    images: Sequence[Path],
    threads: int,
    progress: Callable[[str], None],
) -> tuple[WholeReport, ...]:
    """Run each whole of a kind on its samples in every variant. Those with fewer than two variants are left out."""
    reports = []
    for whole in kind.wholes:
        reference, *others = variants(whole, artifacts) or [("", "")]
        if others and reference[1] == "fp32":
            reports.append(_compare(bundle, whole, reference, others, images, threads, progress))
    return tuple(reports)


def _compare(
    bundle: Bundle,
    whole: Whole,
    reference: tuple[str, str],
    others: Sequence[tuple[str, str]],
    images: Sequence[Path],
    threads: int,
    progress: Callable[[str], None],
) -> WholeReport:
    samples = list(whole.samples(bundle, images))

    # One variant after the other: each opens every graph, and a large model's are gigabytes.
    def run(variant: tuple[str, str]) -> list[dict[str, Array]]:
        format, precision = variant
        progress(f"{whole.name}: {format} {precision}")
        with whole.open(bundle, BACKENDS[format], precision, threads) as pipeline:
            return [pipeline.run(sample.feeds) for sample in samples]

    expected = run(reference)
    runs = []
    for variant in others:
        total = RunningComparison(" ".join(reference), whole.judge(bundle))
        for sample, got, wanted in zip(samples, run(variant), expected, strict=True):
            total.add(sample, got, wanted)
        runs.append(_report(bundle, whole, variant, total.result()))
    families = Counter(sample.family for sample in samples)
    return WholeReport(whole.name, whole.graphs, reference[0], dict(families), tuple(runs))


def _report(bundle: Bundle, whole: Whole, variant: tuple[str, str], total: Comparison) -> RunReport:
    tolerance = tolerance_for(bundle.model["kind"], whole.name, variant[1])
    checks = judge(total, tolerance, bundle.weights["origin"] == "random")
    return RunReport(*variant, total, checks, tolerance.reason)
