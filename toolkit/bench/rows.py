"""One file or one peer of the result: its figures from the rounds, and those of the file when it runs alone."""

from collections.abc import Mapping, Sequence

import msgspec

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress
from backends.errors import ToolkitError, one_line
from toolkit.bench.cold import measure_cold_start
from toolkit.bench.peers import Peer
from toolkit.bench.result import Batch, BenchOptions, ColdStart, FileResult, PeerResult, RuntimeFacts, Streams
from toolkit.bench.rounds import Measurement, ResumeLog, RowTiming
from toolkit.bench.throughput import throughput
from toolkit.bench.together import BenchTarget

ALONE_S = 1.0


def same_file(target: BenchTarget, artifacts: Sequence[Artifact]) -> Artifact | None:
    """Return the file of the bundle that a peer is, opened as the bundle's own files are; None where it is none."""
    for artifact in artifacts:
        if target.artifact == artifact and target.backend == BenchTarget.of(target.bundle, artifact).backend:
            return artifact
    return None


def file_result(
    bundle: Bundle,
    artifact: Artifact,
    done: Measurement,
    batches: Mapping[tuple[str, str], Sequence[Batch]],
    request: BenchOptions,
    progress: Progress,
    log: ResumeLog,
) -> FileResult:
    """Return the result of a file, after measuring it alone in a fresh process, and in streams."""
    measured = done.measured[artifact.file]
    target = BenchTarget.of(bundle, artifact)
    progress(f"{artifact.file} alone")
    alone = msgspec.convert(
        log.once(
            f"{artifact.role}/{artifact.file} alone",
            lambda: msgspec.to_builtins(measure_cold_start(target, request.threads, ALONE_S)),
        ),
        ColdStart,
    )
    progress(f"{artifact.file} in streams")
    streams = msgspec.convert(
        log.once(
            f"{artifact.role}/{artifact.file} in streams",
            lambda: msgspec.to_builtins(throughput(target, request.threads, ALONE_S)),
        ),
        tuple[Streams, ...],
    )
    timing = measured.timing
    at_batch_1 = Batch(1, 1e3 / timing.median_ms, timing.median_ms, timing.noise, "")
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
        ratio=measured.ratio,
        in_use=_in_use(measured, alone),
        alone=alone,
        streams=streams,
        runs_a_second=streams[-1].runs_a_second,
        batches=(at_batch_1, *batches.get((artifact.role, artifact.file), ())),
    )


def _in_use(measured: RowTiming, alone: ColdStart) -> RuntimeFacts:
    """Return the facts about a row's session, with the delegate as LiteRT itself named it in the fresh process."""
    facts = dict(measured.facts)
    if "delegated_parts" in facts:
        facts["delegate"] = alone.delegate if facts["delegated_parts"] else None
    return facts


def peer_result(
    peer: Peer,
    artifacts: Sequence[Artifact],
    done: Measurement,
    files: Sequence[FileResult],
    request: BenchOptions,
    progress: Progress,
) -> PeerResult:
    """Return the result of a peer, after measuring it alone; of a peer that is one of `files`, that file's figures."""
    target = peer.target
    if target is None:
        return PeerResult(peer.name, peer.role, peer.note)
    same = same_file(target, artifacts)
    if same is None and peer.name in done.failed:
        return PeerResult(peer.name, peer.role, done.failed[peer.name])
    figures: FileResult | RowTiming
    if same is not None:
        (figures,) = (file for file in files if (file.role, file.file) == (same.role, same.file))
        alone, in_use = figures.alone, figures.in_use
    else:
        figures = done.measured[peer.name]
        progress(f"{peer.name} alone")
        try:
            alone = measure_cold_start(target, request.threads, ALONE_S)
        except ToolkitError as error:
            return PeerResult(peer.name, peer.role, one_line(error))
        in_use = _in_use(figures, alone)
    return PeerResult(
        name=peer.name,
        role=peer.role,
        note=peer.note,
        sha256=target.artifact.sha256,
        bytes=target.artifact.bytes,
        tools=target.artifact.tools,
        group=figures.group,
        timing=figures.timing,
        of_reference=figures.of_reference,
        in_use=in_use,
        alone=alone,
        ratio=figures.ratio,
    )
