"""The benchmark of a bundle: every file and every peer is timed side by side, then alone in a fresh process."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress
from backends.machine import Machine
from backends.timing import Rounds
from toolkit.bench.peers import Peer, make_peers
from toolkit.bench.profile import profile_files
from toolkit.bench.result import Batch, BenchOptions, BenchResult, FileResult, PeerResult
from toolkit.bench.rounds import Measurement, ResumeLog, measure_rows
from toolkit.bench.rows import file_result, peer_result, same_target
from toolkit.bench.throughput import at_batch
from toolkit.bench.together import BenchTarget, target_row
from toolkit.bench.unprepared import checked_source
from toolkit.inputs import KEY
from toolkit.parity.compare import reference_of

NO_TORCH = "torch is not installed: files of torch weights are left out"
NO_ENERGY = "energy was not measured: this machine has no counters of energy that can be read"


def bench_bundle(
    bundle: Bundle, request: BenchOptions, progress: Progress = lambda step: None, keep: Path | None = None
) -> BenchResult:
    """Time every file of a bundle on every backend that runs it, role by role in interleaved rounds, and then alone.

    The reference is the torch file if there is one and torch is installed, else float32 ONNX. Files of a role that do
    not fit memory together are timed in groups, each beside the reference.
    keep: a file of measurements, which are not made again, and to which new ones are added. The caller removes it once
    the result is written.
    Raises NotAvailable if a runtime other than torch is not installed, or memory is too small for one file beside the
    reference; InvalidInput for a `source` that is not the file the bundle was imported from. If a backend that is not a
    format's default fails, a note says why; a peer or a batch that fails stands in the result with the reason.
    """
    if request.source is not None:
        with checked_source(bundle, request.source):
            pass  # a wrong file is refused before anything is measured
    machine = Machine.here()
    log = ResumeLog(keep, _measured_of(machine, bundle, request))
    notes = [f"{len(log)} of the measurements are of a run that was interrupted"] if len(log) else []
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
        batches = _batches(bundle, artifacts, references, request, Path(folder), progress, log)
        files: list[FileResult] = []
        peers: list[PeerResult] = []
        for role, chosen in roles.items():
            made: list[Peer] = []
            if request.peers:
                place = Path(folder) / f"peers-{role}"
                place.mkdir()
                made = make_peers(bundle, role, place, request.source, progress)
            own = [target for artifact in chosen for target in BenchTarget.all_of(bundle, artifact)]
            done = _time_role(own, references[role], made, request, progress, log)
            for target in own:
                if target.name in done.failed:
                    notes.append(f"{target.name}: {done.failed[target.name]}")
                else:
                    files.append(file_result(target, done, batches, request, progress, log))
            peers += [peer_result(peer, own, done, files, request, progress) for peer in made]
            if done.groups > 1:
                notes.append(f"{role}: the files do not fit memory together and were timed in {done.groups} groups")
    medians = {file.name: file.timing.median_ms for file in files}
    profile = profile_files(bundle, artifacts, medians, request.threads, progress) if request.profile else ()
    if all(file.alone.energy_mj_a_run is None for file in files):
        notes.append(NO_ENERGY)
    return BenchResult(
        machine=machine,
        model=bundle.model["name"],
        kind=bundle.model["kind"],
        weights=bundle.weights,
        threads=request.threads,
        reference={role: artifact.file for role, artifact in references.items()},
        files=tuple(files),
        peers=tuple(peers),
        profile=profile,
        notes=tuple(notes),
    )


def _measured_of(machine: Machine, bundle: Bundle, request: BenchOptions) -> dict[str, Any]:
    """Return the facts that must be equal for measurements of two runs to go into one result."""
    return {
        "machine": replace(machine, load=None).to_json(),
        "files": [
            [target.artifact.role, target.name, artifact.sha256]
            for artifact in bundle.artifacts
            for target in BenchTarget.all_of(bundle, artifact)
        ],
        "inputs": bundle.model.get(KEY),
        "threads": request.threads,
        "time_limit_s": request.time_limit_s,
        "source": request.source and str(request.source.resolve()),  # a batch that failed without a source is kept too
    }


def _time_role(
    own: Sequence[BenchTarget],
    reference: Artifact,
    peers: Sequence[Peer],
    request: BenchOptions,
    progress: Progress,
    log: ResumeLog,
) -> Measurement:
    """Time the files of a role and its peers in the same rounds. A peer that is also one of the files is timed once."""
    others = [peer.target for peer in peers if peer.target is not None and same_target(peer.target, own) is None]
    return measure_rows(
        [target_row(target, request.threads) for target in (*own, *others)],
        Rounds(request.time_limit_s),
        reference.file,
        progress,
        may_fail=[target.name for target in (*own, *others) if not target.is_default],
        log=log,
    )


def _batches(
    bundle: Bundle,
    artifacts: Sequence[Artifact],
    references: Mapping[str, Artifact],
    request: BenchOptions,
    folder: Path,
    progress: Progress,
    log: ResumeLog,
) -> dict[tuple[str, str], list[Batch]]:
    found: dict[tuple[str, str], list[Batch]] = {}
    for batch in request.batches:

        def measure(batch: int = batch) -> list[list[Any]]:
            own = folder / f"batch-{batch}"
            own.mkdir()
            limits = request.threads, request.time_limit_s
            done = at_batch(bundle, artifacts, references, batch, own, request.source, *limits, progress)
            return [[*key, msgspec.to_builtins(one)] for key, one in done.items()]

        for role, file, one in log.once(f"batch {batch}", measure):
            found.setdefault((role, file), []).append(msgspec.convert(one, Batch))
    return found
