"""What a person takes from a model's outputs: answers, which are the same or not, and never nearly the same."""

import hashlib
import heapq
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import chain

import numpy as np

from backends.artifact import Artifact
from backends.bundle import Bundle, Progress
from backends.errors import InvalidInput
from backends.machine import describe
from backends.registry import default_backend, open_session
from backends.tensor import Array
from toolkit.bench.together import in_use
from toolkit.metrics.samples import Sample, signed_samples, unit_samples
from toolkit.models.kind import KINDS, ComparisonSpec
from toolkit.models.watermark.detector import WatermarkModel
from toolkit.models.watermark.message import Message, matching_bits_needed
from toolkit.parity.compare import reference_of
from toolkit.records.record import KeptFile, KeptOutput, KeptSample, Record, in_eight_bits

# Outputs of one sample, and the message hidden in it, if any -> arrays of answers by their names.
Answers = Callable[[Mapping[str, Array], Message | None], dict[str, Array]]


def answers_of(bundle: Bundle, role: str) -> Answers:
    """How the outputs of a role of this bundle are read.

    A watermark's detector: bits, the verdict on a hidden message, and the detection channel where the model has one.
    Any other graph: integers and booleans as they are; of floats named "logits", and of an imported graph's with two
    axes, the index of the largest along the last axis. Others have no answer but their numbers.
    """
    kind = bundle.model["kind"]
    if kind == "watermark":
        return _messages(WatermarkModel.of(bundle)) if role == "detector" else lambda outputs, message: {}
    return lambda outputs, message: _choices(outputs, two_axes=kind == "tensor")


def _messages(model: WatermarkModel) -> Answers:
    needed = matching_bits_needed(model.bits)

    def read(outputs: Mapping[str, Array], message: Message | None) -> dict[str, Array]:
        logits = outputs["logits"][0]
        bits = logits[1:] > 0
        found = {"bits": bits}
        if model.detection_threshold is not None:
            found["channel"] = np.array(logits[0] > model.detection_threshold)
        if message is not None and needed is not None:
            found["verdict"] = np.array(np.count_nonzero(bits == np.array(message.bits, bool)) >= needed)
        return found

    return read


def _choices(outputs: Mapping[str, Array], two_axes: bool) -> dict[str, Array]:
    found = {}
    for name, value in outputs.items():
        if value.dtype.kind != "f":
            found[name] = value
        elif value.ndim and value.shape[-1] > 1 and (name == "logits" or (two_axes and value.ndim == 2)):
            found[f"{name}, largest"] = value.argmax(axis=-1)
    return found


# A sample and its inputs by name.
Fed = tuple[KeptSample, Mapping[str, Array]]

# Of photographs, marked or not, so many of each family: those whose names hash lowest, the same ones each time.
PHOTOGRAPHS = 24

# Of an output with more values than this, so many of them are kept.
VALUES = 4096


def record_bundle(bundle: Bundle, threads: int, progress: Progress = lambda step: None) -> Record:
    """Run the samples that ship with this package through every file whose runtime is here, and keep the outputs.

    Raises NotAvailable for a kind of model that has no samples, InvalidArtifact for a file that is damaged.
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
        machine=describe(),
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
    """The files of a bundle whose runtime is installed."""
    packages = {"onnx": "onnxruntime", "tflite": "ai_edge_litert", "torch": "torch"}
    return [artifact for artifact in bundle.artifacts if find_spec(packages[artifact.format]) is not None]


def samples_of(record: Record, bundle: Bundle, role: str, progress: Progress) -> list[Fed]:
    """The samples of a record again: those it keeps, and the others made by their names.

    Raises InvalidInput for one that is not there any more, or is made otherwise now.
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
    """Inputs of the samples that a record does not keep, by their names."""
    wanted = {sample.name: sample.sha256 for sample in record.samples[role] if not sample.kept}
    reference = reference_of([artifact for artifact in runnable(bundle) if artifact.role == role])
    specs = tuple(binding.spec for binding in reference.inputs)
    made: dict[str, Mapping[str, Array]] = {}
    # What every kind takes its noise and constants from, before the kind itself, which would mark photographs first.
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
    """What one file gives for each sample, and what it ran on."""
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
    """Every synthetic sample, and of each family of photographs those whose names hash lowest. In their own order."""
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
        bits = None if sample.message is None else sample.message.bits
        found[number] = KeptSample(sample.name, sample.family, _sha256(feeds), bits, kept), feeds
    return [found[number] for number in sorted(found)]


def _samples(bundle: Bundle, reference: Artifact, progress: Progress) -> Iterator[Sample]:
    kind: ComparisonSpec = KINDS.load(bundle.model["kind"])
    for sample in kind.samples(bundle, reference, ()):
        progress(f"{reference.role}: sample {sample.name}")
        yield sample


def _sha256(feeds: Mapping[str, Array]) -> str:
    digest = hashlib.sha256()
    for name in sorted(feeds):
        digest.update(feeds[name].tobytes())
    return digest.hexdigest()


def message_of(sample: KeptSample) -> Message | None:
    """The message that is hidden in a sample, if any."""
    return None if sample.message is None else Message(sample.message)
