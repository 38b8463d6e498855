"""The results of files and peers: figures from the rounds, joined with measurements of the file alone."""

from collections.abc import Mapping, Sequence

import msgspec

from backends.bundle import Progress
from backends.errors import ToolkitError, one_line
from backends.session import RuntimeFacts
from toolkit.bench.cold import measure_cold_start
from toolkit.bench.peers import Peer
from toolkit.bench.result import Batch, BenchOptions, ColdStart, FileResult, PeerResult, Streams
from toolkit.bench.rounds import Measurement, ResumeLog, RowTiming
from toolkit.bench.throughput import throughput
from toolkit.bench.together import BenchTarget


def same_target(target: BenchTarget, own: Sequence[BenchTarget]) -> BenchTarget | None:
    """Return the target in `own` with the same artifact and backend as a peer's target; None without one."""
    for one in own:
        if (target.artifact, target.backend) == (one.artifact, one.backend):
            return one
    return None


def file_result(
    target: BenchTarget,
    done: Measurement,
    batches: Mapping[tuple[str, str], Sequence[Batch]],
    request: BenchOptions,
    progress: Progress,
    log: ResumeLog,
) -> FileResult:
    """Measure a file alone in a fresh process and in streams, and return its result.

    batches: by role and file, measured on the default backend of the format.
    """
    artifact = target.artifact
    measured = done.measured[target.name]
    progress(f"{target.name} alone")
    alone = msgspec.convert(
        log.once(
            f"{artifact.role}/{target.name} alone",
            lambda: msgspec.to_builtins(measure_cold_start(target, request.threads, request.alone_s)),
        ),
        ColdStart,
    )
    progress(f"{target.name} in streams")
    streams = msgspec.convert(
        log.once(
            f"{artifact.role}/{target.name} in streams",
            lambda: msgspec.to_builtins(throughput(target, request.threads, request.alone_s)),
        ),
        tuple[Streams, ...],
    )
    timing = measured.timing
    at_batch_1 = Batch(1, 1e3 / timing.median_ms, timing.median_ms, timing.noise, "")
    larger = batches.get((artifact.role, artifact.file), ()) if target.is_default else ()
    return FileResult(
        name=target.name,
        backend=target.backend,
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
        batches=(at_batch_1, *larger),
    )


def _in_use(measured: RowTiming, alone: ColdStart) -> RuntimeFacts:
    """Return the facts about a row's session, with the delegate's name from LiteRT's log in the fresh process."""
    facts = dict(measured.facts)
    if "delegated_parts" in facts:
        facts["delegate"] = alone.delegate if facts["delegated_parts"] else None
    return facts


def peer_result(
    peer: Peer,
    own: Sequence[BenchTarget],
    done: Measurement,
    files: Sequence[FileResult],
    request: BenchOptions,
    progress: Progress,
) -> PeerResult:
    """Measure a peer alone and return its result. A peer that is also one of `files` gets that file's figures."""
    target = peer.target
    if target is None:
        return PeerResult(peer.name, peer.role, peer.note)
    same = same_target(target, own)
    if same is None and peer.name in done.failed:
        return PeerResult(peer.name, peer.role, done.failed[peer.name])
    figures: FileResult | RowTiming
    if same is not None:
        (figures,) = (file for file in files if (file.role, file.name) == (same.artifact.role, same.name))
        alone, in_use = figures.alone, figures.in_use
    else:
        figures = done.measured[peer.name]
        progress(f"{peer.name} alone")
        try:
            alone = measure_cold_start(target, request.threads, request.alone_s)
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
