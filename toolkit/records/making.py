"""Makes records: runs every file of a bundle on samples, and keeps the outputs; makes a record's samples again."""

import hashlib
import heapq
import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import chain

import numpy as np

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress
from backends.errors import InvalidInput
from backends.machine import Machine
from backends.registry import default_backend, open_session
from backends.tensor import Array
from toolkit.bench.together import in_use
from toolkit.metrics.samples import Sample, signed_samples, unit_samples
from toolkit.models.kind import find_kind
from toolkit.parity.compare import reference_of
from toolkit.records.record import KeptFile, KeptOutput, KeptSample, Record, in_eight_bits

# A sample and its inputs by name.
Fed = tuple[KeptSample, Mapping[str, Array]]

# The number of photographs, marked or not, of each family in a record: those whose names have the lowest hashes.
PHOTOGRAPHS = 24

# The most values of one output that a record keeps for a sample.
VALUES = 4096


def record_bundle(bundle: Bundle, threads: int, progress: Progress = lambda step: None) -> Record:
    """Run every file whose runtime is installed on the samples of the model's kind. Returns the record of the outputs.

    Raises NotAvailable for a kind of model that has no samples, InvalidArtifact for a damaged file.
    """
    roles = {
        role: [artifact for artifact in runnable(bundle) if artifact.role == role]
        for role in dict.fromkeys(artifact.role for artifact in runnable(bundle))
    }
    samples = {role: _chosen(bundle, reference_of(files), progress) for role, files in roles.items()}
    files = tuple(
        run_file(bundle, artifact, samples[role], threads, progress)
        for role, artifacts in roles.items()
        for artifact in artifacts
    )
    return Record(
        model=bundle.model["name"],
        kind=bundle.model["kind"],
        weights=bundle.weights,
        machine=Machine.here(),
        samples={role: tuple(kept for kept, _ in found) for role, found in samples.items()},
        inputs={
            (role, kept.name, name): value
            for role, found in samples.items()
            for kept, feeds in found
            if kept.kept
            for name, value in feeds.items()
        },
        files=files,
    )


def runnable(bundle: Bundle) -> list[Artifact]:
    """Return the files of a bundle whose runtime is installed."""
    packages = {"onnx": "onnxruntime", "tflite": "ai_edge_litert", "torch": "torch"}
    return [artifact for artifact in bundle.artifacts if find_spec(packages[artifact.format]) is not None]


def samples_of(record: Record, bundle: Bundle, role: str, progress: Progress) -> list[Fed]:
    """Return the samples of one role of a record with their inputs, kept in the record or made again by name.

    Raises InvalidInput if a sample does not exist any more, or its inputs are not the recorded ones.
    """
    made = _made_again(record, bundle, role, progress)
    found = []
    for sample in record.samples[role]:
        feeds: Mapping[str, Array] = made.get(sample.name, {})
        if sample.kept:
            feeds = {name: value for (r, s, name), value in record.inputs.items() if (r, s) == (role, sample.name)}
        if _sha256(feeds) != sample.sha256:
            raise InvalidInput(
                f"{role}: the sample {sample.name!r} is not what was recorded: samples are made otherwise by now; "
                "record it again"
            )
        found.append((sample, feeds))
    return found


def _made_again(record: Record, bundle: Bundle, role: str, progress: Progress) -> dict[str, Mapping[str, Array]]:
    """Make the inputs of the samples that a record does not keep. Returns them by sample and input name."""
    wanted = {sample.name: sample.sha256 for sample in record.samples[role] if not sample.kept}
    reference = reference_of([artifact for artifact in runnable(bundle) if artifact.role == role])
    specs = tuple(binding.spec for binding in reference.inputs)
    made: dict[str, Mapping[str, Array]] = {}
    # Every kind takes its noise and constants from these two. The kind itself would first mark photographs, so try it
    # last.
    for sample in chain(unit_samples(specs), signed_samples(specs)):
        if wanted.get(sample.name) == _sha256(sample.feeds):
            made[sample.name] = sample.feeds
    if made.keys() != wanted.keys():
        made |= {s.name: s.feeds for s in _samples(bundle, reference, progress) if s.name in wanted}
    return made


def run_file(
    bundle: Bundle,
    artifact: Artifact,
    samples: Sequence[Fed],
    threads: int,
    progress: Progress,
) -> KeptFile:
    """Run one file on each sample. Returns its outputs and the environment in which it ran."""
    values: dict[str, list[Array]] = {}
    hashes: dict[str, list[str]] = {}
    backend = default_backend(artifact.format).name
    with open_session(bundle, artifact, backend, threads) as session:
        for number, (_, feeds) in enumerate(samples, 1):
            progress(f"{artifact.file}: sample {number} of {len(samples)}")
            for name, output in session.run(feeds).items():
                values.setdefault(name, []).append(_kept_values(name, output))
                hashes.setdefault(name, []).append(hashlib.sha256(output.tobytes()).hexdigest())
        used = in_use(session, backend)
    shapes = {binding.spec.name: binding.spec for binding in artifact.outputs}
    outputs = {
        name: KeptOutput(shapes[name].shape, shapes[name].dtype, np.stack(found), tuple(hashes[name]))
        for name, found in values.items()
    }
    return KeptFile(artifact.file, artifact.role, artifact.format, artifact.sha256, used, outputs)


def _kept_values(name: str, output: Array) -> Array:
    flat = output.reshape(-1)
    if flat.size <= VALUES:
        return flat
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return flat[np.sort(rng.choice(flat.size, VALUES, replace=False))]


def _chosen(bundle: Bundle, reference: Artifact, progress: Progress) -> list[Fed]:
    """Return every synthetic sample and, of each family of photographs, the PHOTOGRAPHS whose names have the lowest
    hashes, in the order in which the kind makes them."""
    lowest: dict[str, list[tuple[int, int]]] = {}
    found: dict[int, Fed] = {}
    for number, sample in enumerate(_samples(bundle, reference, progress)):
        kept = sample.family != "synthetic"
        if kept:
            family = lowest.setdefault(sample.family, [])
            heapq.heappush(family, (-zlib.crc32(sample.name.encode()), number))
            if len(family) > PHOTOGRAPHS:
                _, dropped = heapq.heappop(family)
                found.pop(dropped, None)
                if dropped == number:
                    continue
        feeds = {name: in_eight_bits(value) if kept else value for name, value in sample.feeds.items()}
        found[number] = KeptSample(sample.name, sample.family, _sha256(feeds), sample.truth, kept), feeds
    return [found[number] for number in sorted(found)]


def _samples(bundle: Bundle, reference: Artifact, progress: Progress) -> Iterator[Sample]:
    for sample in find_kind(bundle.model["kind"]).samples(bundle, reference, ()):
        progress(f"{reference.role}: sample {sample.name}")
        yield sample


def _sha256(feeds: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(feeds):
        digest.update(feeds[name].tobytes())
    return digest.hexdigest()
