"""A row of the result: what the rounds gave a file or a peer, and what it takes when it runs alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress
from backends.errors import ToolkitError, one_line
from backends.registry import default_backend
from toolkit.bench.cold import measure_cold_start
from toolkit.bench.peers import Peer
from toolkit.bench.result import Batch, BenchOptions, FileResult, PeerResult, Streams
from toolkit.bench.rounds import ResumeLog
from toolkit.bench.throughput import throughput
from toolkit.bench.together import BenchTarget, TargetTiming, Together

ALONE_S = 1.0


def candidate_of(bundle: Bundle, artifact: Artifact) -> BenchTarget:
    """A file of the bundle, for the backend that files of its format are for."""
    return BenchTarget(artifact.file, bundle, artifact, default_backend(artifact.format).name)


def same_file(candidate: BenchTarget, artifacts: Sequence[Artifact]) -> Artifact | None:
    """The file of the bundle that a peer is, opened as the bundle's own files are."""
    for artifact in artifacts:
        if candidate.artifact == artifact and candidate.backend == default_backend(artifact.format).name:
            return artifact
    return None


def file_result(
    bundle: Bundle,
    artifact: Artifact,
    done: Together,
    batches: Mapping[tuple[str, str], Sequence[Batch]],
    request: BenchOptions,
    progress: Progress,
    kept: ResumeLog,
) -> FileResult:
    """The rounds of a file, then what is measured here: alone in a fresh process, and in streams."""
    measured = done.measured[artifact.file]
    candidate = candidate_of(bundle, artifact)
    progress(f"{artifact.file} alone")
    figures = kept.once(
        f"{artifact.role}/{artifact.file} alone", lambda: measure_cold_start(candidate, request.threads, ALONE_S)
    )
    progress(f"{artifact.file} in streams")
    found = kept.once(
        f"{artifact.role}/{artifact.file} in streams",
        lambda: [asdict(one) for one in throughput(candidate, request.threads, ALONE_S)],
    )
    streams = tuple(Streams(**one) for one in found)
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


def _in_use(measured: TargetTiming, figures: dict[str, Any]) -> dict[str, Any]:
    """With the delegate that took parts of the file as LiteRT named it; None where it named none."""
    described = dict(measured.in_use)
    if "delegated_parts" in described:
        described["delegate"] = figures["delegate"] if described["delegated_parts"] else None
    return described


def peer_result(
    peer: Peer,
    artifacts: Sequence[Artifact],
    done: Together,
    files: Sequence[FileResult],
    request: BenchOptions,
    progress: Progress,
) -> PeerResult:
    """Likewise of a peer. Of one that is a file of the bundle, that file's figures, which stand in `files`."""
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
    if (artifact := same_file(candidate, artifacts)) is not None:
        (same,) = (file for file in files if (file.role, file.file) == (artifact.role, artifact.file))
        fields = ("group", "timing", "of_reference", "in_use", "alone")
        return PeerResult(**made, **{field: getattr(same, field) for field in fields})
    if peer.name in done.failed:
        return _without_figures(peer, done.failed[peer.name])
    measured = done.measured[peer.name]
    progress(f"{peer.name} alone")
    try:
        figures = measure_cold_start(candidate, request.threads, ALONE_S)
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
