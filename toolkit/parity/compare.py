"""The comparison of every file of a bundle with its reference and its parent, and of end-to-end cases."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress
from backends.errors import InvalidArtifact, NotAvailable, ToolkitError, one_line
from backends.precision import find_recipe
from backends.registry import RunTarget, default_backend, open_session, run_targets
from backends.session import Session
from backends.tensor import Array, TensorSpec, probe
from toolkit.convert.operations import number_types
from toolkit.metrics.samples import FAMILIES, Sample
from toolkit.models.kind import EndToEndCase, ModelKind, find_kind, kind_of
from toolkit.parity.agreement import judged_precision
from toolkit.parity.found import FoundRows
from toolkit.parity.report import (
    Check,
    EndToEndReport,
    FileReport,
    ParityReport,
    RoleReport,
    RunReport,
    judge,
    memory_check,
)
from toolkit.parity.stream import CandidateRun, Comparison, RunningComparison, SampleCounts, compare_stream
from toolkit.parity.ties import Ties

# Limit for the files that are open at once. Files of a large model are compared one after the other, each beside its
# reference and its parent.
OPEN_LIMIT_BYTES = 4 << 30

NO_TORCH = "torch is not installed: the reference is the float32 ONNX file, and files of torch weights are left out."

REAL_ALONE = (
    "files in less than float32 are compared on the real samples alone: noise may be far from what the model was "
    "trained on"
)


def compare_bundle(
    bundle: Bundle,
    images: Sequence[Path] = (),
    threads: int = 1,
    progress: Progress = lambda step: None,
    open_limit_bytes: int = OPEN_LIMIT_BYTES,
) -> ParityReport:
    """Compare every file of a bundle, role by role, and then the kind's end-to-end cases.

    The reference of a role is its float32 torch file if there is one and torch is installed, else float32 ONNX.
    images: compared after the kind's own samples; memory does not grow with their number. Every file is judged by the
    tolerance of its kind, role and precision.
    Raises NotAvailable for an unknown kind, or a precision without a limit that the kind needs, before anything runs;
    InvalidArtifact for a file that is damaged; InvalidInput for an image that cannot be read.
    """
    kind = kind_of(bundle)
    notes = [kind.random_note] if bundle.weights.is_random else []
    if (why := kind.advisory(bundle, images)) is not None:
        notes.append(why)
    if any(kind.judged_families(bundle, a.precision, images) != FAMILIES for a in bundle.artifacts):
        notes.append(REAL_ALONE)
    with_torch = find_spec("torch") is not None
    if not with_torch and any(artifact.format == "torch" for artifact in bundle.artifacts):
        notes.append(NO_TORCH)
    chosen = [artifact for artifact in bundle.artifacts if with_torch or artifact.format != "torch"]
    for artifact in chosen:
        kind.tolerance(artifact.role, artifact.precision)
        bundle.verify(artifact)
    for whole in kind.end_to_end:
        for _, precision in variants(whole, chosen):
            kind.tolerance(whole.name, precision)
    roles = tuple(
        _compare_role(bundle, kind, [a for a in chosen if a.role == role], images, threads, progress, open_limit_bytes)
        for role in dict.fromkeys(artifact.role for artifact in chosen)
    )
    wholes = compare_end_to_end(bundle, kind, chosen, images, threads, progress)
    model, weights = bundle.model["name"], bundle.weights
    return ParityReport(model, kind.name, weights, roles, tuple(notes), wholes, bundle.mendings)


def reference_of(artifacts: Sequence[Artifact]) -> Artifact:
    """Return the reference of a role's files: the float32 torch file without a parent, else such an ONNX file.

    Raises InvalidArtifact without either.
    """
    for format in ("torch", "onnx"):
        for artifact in artifacts:
            if (artifact.format, artifact.precision, artifact.parent) == (format, "fp32", None):
                return artifact
    raise InvalidArtifact(f"{artifacts[0].role}: no float32 torch or ONNX file to compare with; export it again")


def _candidates(kind: ModelKind, artifacts: Sequence[Artifact], reference: Artifact) -> list[RunTarget]:
    """Return every file with every backend and precision that runs it, except the reference on its default backend.

    A precision without files of its own is left out where the kind has no tolerance for it.
    """
    found = []
    for target in (target for artifact in artifacts for target in run_targets(artifact)):
        if find_recipe(target.artifact.precision).base is not None:
            try:
                kind.tolerance(reference.role, target.artifact.precision)
            except NotAvailable:
                continue  # such as an embedder, which is float32 alone
        if target.artifact is not reference or not target.is_default:
            found.append(target)
    return found


def _compare_role(
    bundle: Bundle,
    kind: ModelKind,
    artifacts: Sequence[Artifact],
    images: Sequence[Path],
    threads: int,
    progress: Progress,
    open_limit_bytes: int,
) -> RoleReport:
    reference = reference_of(artifacts)
    by_file = {artifact.file: artifact for artifact in artifacts}
    seen = SampleCounts()
    reports: dict[str, FileReport] = {}
    comparable = []
    candidates = _candidates(kind, artifacts, reference)
    for candidate in candidates:
        if (reason := _unlike(candidate.artifact, reference)) is not None:
            why = "Files of one role have the same inputs and outputs."
            reports[candidate.name] = _not_compared(candidate, "signature", reason, why)
        else:
            comparable.append(candidate)
    for group in _groups(comparable, reference, by_file, open_limit_bytes):
        with ExitStack() as stack:

            def opened(artifact: Artifact, backend: str | None = None, stack: ExitStack = stack) -> Session:
                name = backend or default_backend(artifact.format).name
                progress(f"opening {artifact.file} on {name}")
                return stack.enter_context(open_session(bundle, artifact, name, threads))

            base = opened(reference)
            sessions: dict[str, Session] = {}
            for candidate in group:
                try:
                    sessions[candidate.name] = opened(candidate.artifact, candidate.backend)
                    if not candidate.is_default:
                        sessions[candidate.name].run(probe(tuple(b.spec for b in candidate.artifact.inputs)))
                except ToolkitError as error:
                    if candidate.is_default:
                        raise
                    # An error of a backend that is not the default fails only its own row.
                    sessions.pop(candidate.name, None)
                    why = "A backend that is compared runs every file whose precision it names."
                    reports[candidate.name] = _not_compared(candidate, "runs", one_line(error), why)
            running = [candidate for candidate in group if candidate.name in sessions]
            parents = {
                file: opened(by_file[file])
                for file in dict.fromkeys(_parent(c.artifact, reference, by_file) for c in running)
                if file is not None and file not in sessions
            }
            work = {c.name: _open(bundle, kind, c, sessions[c.name], reference, by_file, images) for c in running}
            samples = _told(kind.samples(bundle, reference, images), progress)
            ties = Ties.of(bundle.folder / reference.file, reference.outputs) if kind.is_imported else None
            seen = compare_stream(samples, base, parents, work, kind.may_leave_domain, kind.is_imported, ties)
            reports |= {c.name: _report(bundle, kind, c, work[c.name]) for c in running}
    return RoleReport(
        reference.role,
        reference,
        dict(seen.families),
        seen.outside_domain,
        tuple(reports[candidate.name] for candidate in candidates),
        {a.file: number_types(bundle.folder / a.file) for a in artifacts if a.format in ("onnx", "tflite")},
    )


def _open(
    bundle: Bundle,
    kind: ModelKind,
    candidate: RunTarget,
    session: Session,
    reference: Artifact,
    by_file: Mapping[str, Artifact],
    images: Sequence[Path],
) -> CandidateRun:
    role, parent = candidate.artifact.role, _parent(candidate.artifact, reference, by_file)
    families = kind.judged_families(bundle, judged_precision(bundle, candidate.artifact, candidate.is_default), images)
    found = FoundRows.of(reference)
    total = RunningComparison(reference.file, kind.judge(bundle, role), families, found)
    step = None if parent is None else RunningComparison(parent, kind.judge(bundle, role), families, found)
    return CandidateRun(session, total, parent, step)


def _report(bundle: Bundle, kind: ModelKind, candidate: RunTarget, opened: CandidateRun) -> FileReport:
    artifact = candidate.artifact
    tolerance = kind.tolerance(artifact.role, judged_precision(bundle, artifact, candidate.is_default))
    random = bundle.weights.is_random
    total = opened.total.result()
    step = None if opened.step is None else opened.step.result()
    step_passed = None if step is None else all(check.passed is not False for check in judge(step, tolerance, random))
    checks = judge(total, tolerance, random)
    if opened.remembered is not None:
        checks = (memory_check(opened.remembered), *checks)
    return FileReport(artifact, candidate.backend, total, step, checks, step_passed, tolerance.reason, candidate.name)


def _not_compared(candidate: RunTarget, number: str, reason: str, why: str) -> FileReport:
    check = Check(number, "", None, None, False, reason)
    return FileReport(candidate.artifact, candidate.backend, None, None, (check,), None, why, candidate.name)


def _unlike(artifact: Artifact, reference: Artifact) -> str | None:
    """Return a sentence about inputs or outputs that differ from the reference's, as a caller sees them; else None."""
    for side in ("inputs", "outputs"):
        specs = [{b.spec.name: b.spec for b in getattr(a, side)} for a in (artifact, reference)]
        if specs[0] != specs[1]:
            return f"{side} are {_shown(specs[0])}, expected {_shown(specs[1])} as in {reference.file}"
    return None


def _shown(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs.values())


def _parent(artifact: Artifact, reference: Artifact, by_file: Mapping[str, Artifact]) -> str | None:
    """Return the file that an artifact was made from; None if that is the reference or not one of the files."""
    parent = artifact.parent
    return parent if parent in by_file and parent != reference.file else None


def _groups(
    candidates: Sequence[RunTarget], reference: Artifact, by_file: Mapping[str, Artifact], limit_bytes: int
) -> Iterator[list[RunTarget]]:
    """Yield groups of candidates that fit `limit_bytes` together with the files they are compared with; at least one
    candidate a group."""
    group: list[RunTarget] = []
    for candidate in candidates:
        together = [*group, candidate]
        # The reference and the parents are open once, a file on two backends twice.
        beside = {reference.file} | {p for c in together if (p := _parent(c.artifact, reference, by_file)) is not None}
        beside -= {c.artifact.file for c in together}
        if group and sum(by_file[f].bytes for f in beside) + sum(c.artifact.bytes for c in together) > limit_bytes:
            yield group
            group = []
        group.append(candidate)
    if group:
        yield group


def _told(samples: Iterable[Sample], progress: Progress) -> Iterator[Sample]:
    for number, sample in enumerate(samples, 1):
        progress(f"sample {number}: {sample.name}")
        yield sample


# Order of preference for the reference of an end-to-end case.
_FORMATS = ("torch", "onnx", "tflite")


def variants(whole: EndToEndCase, artifacts: Sequence[Artifact]) -> list[tuple[str, str]]:
    """Return each (format, precision) in which the case has all of its graphs: float32 first, torch before ONNX."""
    there = {(artifact.role, artifact.format, artifact.precision) for artifact in artifacts}
    precisions = sorted({artifact.precision for artifact in artifacts}, key=lambda name: (name != "fp32", name))
    return [
        (format, precision)
        for precision in precisions
        for format in _FORMATS
        if all((role, format, precision) in there for role in whole.graphs)
    ]


def compare_end_to_end(
    bundle: Bundle,
    kind: ModelKind,
    artifacts: Sequence[Artifact],
    images: Sequence[Path],
    threads: int,
    progress: Callable[[str], None],
) -> tuple[EndToEndReport, ...]:
    """Run each end-to-end case of a kind on its samples in every variant, and compare them with the first variant.

    Cases with fewer than two variants, or without a float32 variant, are left out.
    """
    reports = []
    for whole in kind.end_to_end:
        reference, *others = variants(whole, artifacts) or [("", "")]
        if others and reference[1] == "fp32":
            reports.append(_compare_case(bundle, whole, reference, others, images, threads, progress))
    return tuple(reports)


def _compare_case(
    bundle: Bundle,
    whole: EndToEndCase,
    reference: tuple[str, str],
    others: Sequence[tuple[str, str]],
    images: Sequence[Path],
    threads: int,
    progress: Callable[[str], None],
) -> EndToEndReport:
    samples = list(whole.samples(bundle, images))

    # One variant after the other: each opens every graph, and those of a large model take gigabytes.
    def run(variant: tuple[str, str]) -> list[dict[str, Array]]:
        format, precision = variant
        progress(f"{whole.name}: {format} {precision}")
        with whole.open(bundle, default_backend(format).name, precision, threads) as pipeline:
            return [pipeline.run(sample.feeds) for sample in samples]

    expected = run(reference)
    runs = []
    for variant in others:
        total = RunningComparison(" ".join(reference), whole.judge(bundle))
        for sample, got, wanted in zip(samples, run(variant), expected, strict=True):
            total.add(sample, got, wanted)
        runs.append(_run_report(bundle, whole, variant, total.result()))
    families = Counter(sample.family for sample in samples)
    return EndToEndReport(whole.name, whole.graphs, reference[0], dict(families), tuple(runs))


def _run_report(bundle: Bundle, whole: EndToEndCase, variant: tuple[str, str], total: Comparison) -> RunReport:
    tolerance = find_kind(bundle.model["kind"]).tolerance(whole.name, variant[1])
    checks = judge(total, tolerance, bundle.weights.is_random)
    return RunReport(*variant, total, checks, tolerance.reason)
