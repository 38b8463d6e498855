"""Every file of a bundle, timed side by side, and what each takes when it runs alone."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import graphs.spec  # noqa: F401  registers the architectures that torch files are made of
from backends.artifact import Artifact
from backends.bundle import Bundle
from backends.errors import ToolkitError, one_line
from backends.registry import BACKENDS
from toolkit.bench.batches import at_batch
from toolkit.bench.candidate import Candidate
from toolkit.bench.cold import alone
from toolkit.bench.machine import describe
from toolkit.bench.peers import Peer, make_peers
from toolkit.bench.profile import profile_files
from toolkit.bench.result import Batch, BenchResult, FileResult, PeerResult
from toolkit.bench.streams import throughput
from toolkit.bench.together import Measured, Together, measure_together
from toolkit.bench.unprepared import check_source
from toolkit.parity.compare import reference_of

Progress = Callable[[str], None]

ALONE_S = 1.0
NO_TORCH = "torch is not installed: files of torch weights are left out"
NO_ENERGY = "this machine does not tell what energy it uses"


@dataclass(frozen=True)
class Request:
    """What to measure. time_limit_s: for the rounds of one role. peers: beside what somebody would run instead.

    batches: also throughput at these batches. profile: also operator by operator. source: of an imported graph, the
    file that was imported, which its peers and its batches need.
    """

    threads: int
    time_limit_s: float
    peers: bool = False
    batches: tuple[int, ...] = ()
    profile: bool = False
    source: Path | None = None


def bench_bundle(bundle: Bundle, request: Request, progress: Progress = lambda step: None) -> BenchResult:
    """Time every file of a bundle, role by role, interleaved; then each alone in a fresh process.

    The reference is torch where the bundle has it and it is installed, else float32 ONNX. Files of a role that do not
    fit memory together are timed in groups, each beside the reference.
    Raises NotAvailable for another runtime that is not installed, or too little memory for one file beside the
    reference; InvalidInput for a `source` that is not what the bundle was imported from. A peer or a batch that fails
    is in the result, with the reason.
    """
    if request.source is not None:
        check_source(bundle, request.source)
    notes = []
    artifacts = bundle.artifacts
    if find_spec("torch") is None and any(artifact.format == "torch" for artifact in artifacts):
        artifacts = tuple(artifact for artifact in artifacts if artifact.format != "torch")
        notes.append(NO_TORCH)
    roles = {
        role: [artifact for artifact in artifacts if artifact.role == role]
        for role in dict.fromkeys(artifact.role for artifact in artifacts)
    }
    references = {role: reference_of(files) for role, files in roles.items()}
    with tempfile.TemporaryDirectory() as folder:
        batches = _batches(bundle, artifacts, references, request, Path(folder), progress)
        files: list[FileResult] = []
        peers: list[PeerResult] = []
        for role, chosen in roles.items():
            made: list[Peer] = []
            if request.peers:
                own = Path(folder) / f"peers-{role}"
                own.mkdir()
                made = make_peers(bundle, role, own, request.source, progress)
            done = _together(bundle, chosen, references[role], made, request, progress)
            files += [_file(bundle, artifact, done, batches, request, progress) for artifact in chosen]
            peers += [_peer(peer, chosen, done, files, request, progress) for peer in made]
            if done.groups > 1:
                notes.append(f"{role}: the files do not fit memory together and were timed in {done.groups} groups")
    medians = {file.file: file.timing.median_ms for file in files}
    profile = profile_files(bundle, artifacts, medians, request.threads, progress) if request.profile else ()
    if all(file.alone["energy_mj_a_run"] is None for file in files):
        notes.append(NO_ENERGY)
    return BenchResult(
        machine=describe(),
        model=bundle.model["name"],
        kind=bundle.model["kind"],
        weights=bundle.weights,
        threads=request.threads,
        reference={role: artifact.file for role, artifact in references.items()},
        files=tuple(files),
        peers=tuple(peers),
        profile=tuple(asdict(one) for one in profile),
        notes=tuple(notes),
    )


def _together(
    bundle: Bundle,
    artifacts: Sequence[Artifact],
    reference: Artifact,
    peers: Sequence[Peer],
    request: Request,
    progress: Progress,
) -> Together:
    """The files of a role and its peers in the same rounds; but a peer that is one of the files runs once."""
    files = {artifact.file: _candidate(bundle, artifact) for artifact in artifacts}
    others = [
        peer.candidate for peer in peers if peer.candidate is not None and _same_file(peer.candidate, artifacts) is None
    ]
    return measure_together(
        [*files.values(), *others],
        files[reference.file],
        request.threads,
        request.time_limit_s,
        progress,
        may_fail=[candidate.name for candidate in others],
    )


def _candidate(bundle: Bundle, artifact: Artifact) -> Candidate:
    return Candidate(artifact.file, bundle, artifact, BACKENDS[artifact.format])


def _same_file(candidate: Candidate, artifacts: Sequence[Artifact]) -> Artifact | None:
    """The file of the bundle that a peer is, opened as the bundle's own files are."""
    for artifact in artifacts:
        if candidate.artifact == artifact and candidate.backend == BACKENDS[artifact.format]:
            return artifact
    return None


def _file(
    bundle: Bundle,
    artifact: Artifact,
    done: Together,
    batches: Mapping[tuple[str, str], Sequence[Batch]],
    request: Request,
    progress: Progress,
) -> FileResult:
    measured = done.measured[artifact.file]
    candidate = _candidate(bundle, artifact)
    progress(f"{artifact.file} alone")
    figures = alone(candidate, request.threads, ALONE_S)
    progress(f"{artifact.file} in streams")
    streams = throughput(candidate, request.threads, ALONE_S)
    timing = measured.timing
    own = Batch(1, 1e3 / timing.median_ms, timing.median_ms, timing.noise, "")
    return FileResult(
        file=artifact.file,
        role=artifact.role,
        precision=artifact.precision,
        route=artifact.route,
        sha256=artifact.sha256,
        bytes=artifact.bytes,
        group=measured.group,
        timing=timing,
        of_reference=measured.of_reference,
        in_use=_in_use(measured, figures),
        alone=figures,
        streams=streams,
        runs_a_second=streams[-1].runs_a_second,
        batches=(own, *batches.get((artifact.role, artifact.file), ())),
    )


def _in_use(measured: Measured, figures: dict[str, Any]) -> dict[str, Any]:
    """With the delegate that took parts of the file as LiteRT named it; None where it named none."""
    described = dict(measured.in_use)
    if "delegated_parts" in described:
        described["delegate"] = figures["delegate"] if described["delegated_parts"] else None
    return described


def _peer(
    peer: Peer,
    artifacts: Sequence[Artifact],
    done: Together,
    files: Sequence[FileResult],
    request: Request,
    progress: Progress,
) -> PeerResult:
    candidate = peer.candidate
    if candidate is None:
        return _without_figures(peer, peer.note)
    made: dict[str, Any] = {
        "name": peer.name,
        "role": peer.role,
        "note": peer.note,
        "sha256": candidate.artifact.sha256,
        "bytes": candidate.artifact.bytes,
        "tools": candidate.artifact.tools,
    }
    if (artifact := _same_file(candidate, artifacts)) is not None:
        (same,) = (file for file in files if (file.role, file.file) == (artifact.role, artifact.file))
        fields = ("group", "timing", "of_reference", "in_use", "alone")
        return PeerResult(**made, **{field: getattr(same, field) for field in fields})
    if peer.name in done.failed:
        return _without_figures(peer, done.failed[peer.name])
    measured = done.measured[peer.name]
    progress(f"{peer.name} alone")
    try:
        figures = alone(candidate, request.threads, ALONE_S)
    except ToolkitError as error:
        return _without_figures(peer, one_line(error))
    return PeerResult(
        **made,
        group=measured.group,
        timing=measured.timing,
        of_reference=measured.of_reference,
        in_use=_in_use(measured, figures),
        alone=figures,
    )


def _without_figures(peer: Peer, note: str) -> PeerResult:
    return PeerResult(peer.name, peer.role, note, *([None] * 8))


def _batches(
    bundle: Bundle,
    artifacts: Sequence[Artifact],
    references: Mapping[str, Artifact],
    request: Request,
    folder: Path,
    progress: Progress,
) -> dict[tuple[str, str], list[Batch]]:
    found: dict[tuple[str, str], list[Batch]] = {}
    for batch in request.batches:
        own = folder / f"batch-{batch}"
        own.mkdir()
        limits = request.threads, request.time_limit_s
        for key, one in at_batch(bundle, artifacts, references, batch, own, request.source, *limits, progress).items():
            found.setdefault(key, []).append(one)
    return found
