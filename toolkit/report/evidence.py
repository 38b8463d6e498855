"""The data for the page: results given as files, and measurements of those that were not given."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from backends.bundle import Bundle, Progress
from backends.errors import InvalidInput, NotAvailable, ToolkitError
from backends.machine import Machine
from backends.precision import find_recipe
from backends.registry import run_targets
from toolkit.bench.bundle import bench_bundle
from toolkit.bench.profile import profile_files
from toolkit.bench.result import BenchOptions, BenchResult, FileProfile
from toolkit.bisect.result import BisectReport
from toolkit.convert.operations import NumberTypes
from toolkit.environments import need
from toolkit.metrics.error import OutputMetrics
from toolkit.parity.report import Check, FileReport, Judged, ParityReport, RunReport
from toolkit.parity.stream import Comparison

# Seconds for the rounds of one role. The result of `toolkit bench`, which takes longer, can be given instead.
TIME_LIMIT_S = 10.0


@dataclass(frozen=True)
class ComparedFile(Judged):
    """A file of a role, or a variant of an end-to-end case, as the page shows it.

    name: as in FileReport; "FORMAT PRECISION" for a variant. total, step, reason: as in FileReport; the step of a
    variant is None.
    """

    name: str
    precision: str
    total: Comparison | None
    step: Comparison | None
    checks: tuple[Check, ...]
    reason: str

    @property
    def outputs(self) -> dict[str, OutputMetrics]:
        """The errors against the reference by output; empty for a file that could not be compared."""
        return {} if self.total is None else self.total.outputs

    @property
    def numbers(self) -> dict[str, float]:
        """The judge's numbers against the reference; empty for a file that could not be compared."""
        return {} if self.total is None else self.total.numbers


@dataclass(frozen=True)
class ComparedRole:
    """A role of the parity report, or an end-to-end case, with all that was compared.

    reference: the name of the file that the others are compared with. samples: the number of samples by family.
    graphs: the roles of an end-to-end case; () for a role. number_types: as in RoleReport.
    """

    name: str
    reference: str
    samples: dict[str, int]
    files: tuple[ComparedFile, ...]
    graphs: tuple[str, ...] = ()
    number_types: Mapping[str, NumberTypes] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """All data for the page.

    bench: None if nothing was timed. missing: by section ("bench", "bisect"), a sentence why data is missing.
    images: the user's own, which were compared after the shipped photographs.
    """

    bundle: Bundle
    parity: ParityReport
    bench: BenchResult | None
    profiles: Sequence[FileProfile]
    bisections: Sequence[BisectReport]
    machine: Machine
    missing: dict[str, str]
    images: Sequence[Path] = ()

    @property
    def comparisons(self) -> list[ComparedRole]:
        """The roles of the parity report, then its end-to-end cases."""
        roles = [
            ComparedRole(
                role.role,
                role.reference.file,
                role.samples,
                tuple(map(_of_file, role.files)),
                number_types=role.number_types,
            )
            for role in self.parity.roles
        ]
        wholes = [
            ComparedRole(
                whole.name, f"{whole.reference} fp32", whole.samples, tuple(map(_of_run, whole.runs)), whole.graphs
            )
            for whole in self.parity.wholes
        ]
        return [*roles, *wholes]


def _of_file(file: FileReport) -> ComparedFile:
    return ComparedFile(file.name, file.artifact.precision, file.total, file.step, file.checks, file.reason)


def _of_run(run: RunReport) -> ComparedFile:
    return ComparedFile(f"{run.format} {run.precision}", run.precision, run.total, None, run.checks, run.reason)


def gather(
    bundle: Bundle,
    parity: ParityReport,
    images: Sequence[Path],
    threads: int,
    bench: BenchResult | None,
    bisections: Sequence[BisectReport],
    progress: Progress,
    not_timed: str | None = None,
) -> Evidence:
    """Return the data for the page. Times, profiles and bisections are measured if they are not given.

    images: those of the parity report. not_timed: why there are no times, if they were tried before. If a runtime or
    memory for the timing is missing, or bisections fail, Evidence.missing says so.
    """
    missing: dict[str, str] = {}
    if not_timed is not None:
        missing["bench"] = f"Nothing was timed: {not_timed}."
    elif bench is None:
        try:
            bench = bench_bundle(bundle, BenchOptions(threads, TIME_LIMIT_S, profile=True), progress)
        except NotAvailable as error:
            missing["bench"] = f"Nothing was timed: {error}."
    profiles = bench.profile if bench is not None else ()
    if not profiles:
        medians_ms = {file.name: file.timing.median_ms for file in (bench.files if bench is not None else ())}
        targets = [target for artifact in bundle.artifacts for target in run_targets(artifact)]
        timed = {target.name: medians_ms.get(target.name, math.inf) for target in targets}
        profiles = profile_files(bundle, bundle.artifacts, timed, threads, progress)
    if not bisections:
        bisections = _bisections(bundle, parity, threads, missing, progress)
    return Evidence(bundle, parity, bench, profiles, bisections, Machine.here(), missing, images)


def _bisections(
    bundle: Bundle, parity: ParityReport, threads: int, missing: dict[str, str], progress: Progress
) -> list[BisectReport]:
    """Bisect every file that is not float32, and float32 TFLite files that fail; others differ only by rounding.

    A file runs on the default backend of its format, but in a precision without files of its own on the backend that
    was compared.
    """
    worth = [_candidate(file) for role in parity.roles for file in role.files if _worth_bisecting(file)]
    candidates = list(dict.fromkeys(worth))  # a file that several backends run has several reports
    bisections, failed = [], []
    for candidate in candidates:
        try:
            bisections.append(_bisect(bundle, candidate, threads, progress))
        except ToolkitError as error:
            failed.append(f"{candidate.file}: {error}")
    if failed:
        missing["bisect"] = f"Not bisected: {'; '.join(failed)}."
    elif not candidates:
        missing["bisect"] = "There was nothing to bisect: float32 files that pass differ by rounding alone."
    return bisections


def _worth_bisecting(file: FileReport) -> bool:
    format, precision = file.artifact.format, file.artifact.precision
    return format != "torch" and (precision != "fp32" or (format == "tflite" and not file.passed))


@dataclass(frozen=True)
class _Candidate:
    """A file to bisect. backend, precision: None for the default backend and the file's own precision."""

    file: str
    backend: str | None = None
    precision: str | None = None


def _candidate(file: FileReport) -> _Candidate:
    has_file = find_recipe(file.artifact.precision).base is None
    return _Candidate(file.artifact.file, *(() if has_file else (file.backend, file.artifact.precision)))


def _bisect(bundle: Bundle, candidate: _Candidate, threads: int, progress: Progress) -> BisectReport:
    need("export")
    from toolkit.bisect.bundle import bisect_bundle

    # The folder with the worst layer is temporary: a report makes one file only.
    with tempfile.TemporaryDirectory() as folder:
        found = bisect_bundle(
            bundle,
            candidate.file,
            repro=Path(folder) / "repro",
            threads=threads,
            progress=lambda step: progress(f"bisecting {candidate.file}: {step}"),
            backend=candidate.backend,
            precision=candidate.precision,
        )
    return replace(found, repro=None)


def read_bench(path: Path, bundle: Bundle) -> BenchResult:
    """Return the result that `toolkit bench --json` wrote for this bundle.

    Raises InvalidInput for any other file, and if a file's hash is not that of the manifest.
    """
    try:
        result = BenchResult.read(path)
    except OSError as error:
        raise InvalidInput(f"--bench {path}: cannot read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"--bench {path}: not a result that `toolkit bench --json` wrote: {error}") from error
    known = {(artifact.role, artifact.file): artifact.sha256 for artifact in bundle.artifacts}
    for file in result.files:
        sha256 = known.get((file.role, file.file), "of no such file")
        if file.sha256 != sha256:
            raise InvalidInput(
                f"--bench {path}: measured another {file.file} than the one in {bundle.folder}: expected sha256 "
                f"{sha256}, got {file.sha256}; run `toolkit bench` again"
            )
    return result


def read_bisection(path: Path, bundle: Bundle) -> BisectReport:
    """Return the result that `toolkit bisect --json` wrote for this bundle. Raises InvalidInput for any other file."""
    try:
        result = BisectReport.read(path)
    except OSError as error:
        raise InvalidInput(f"--bisect {path}: cannot read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"--bisect {path}: not a result that `toolkit bisect --json` wrote: {error}") from error
    # A bisection of a graph pass names the file and the pass: "detector.onnx after fold_affine"; one on another backend
    # names the backend: "detector.onnx on openvino".
    file = result.candidate.partition(" after ")[0].partition(" on ")[0]
    if result.model != bundle.model["name"] or file not in [artifact.file for artifact in bundle.artifacts]:
        raise InvalidInput(
            f"--bisect {path}: expected a candidate of {bundle.model['name']} that is in {bundle.folder}, got "
            f"{result.candidate} of {result.model}"
        )
    return result
