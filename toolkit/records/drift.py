"""Drift: runs the files of a bundle on the samples of a record, and compares their outputs with the recorded ones."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.bundle import Bundle, Progress, WeightsOrigin
from backends.errors import InvalidInput
from backends.machine import Machine
from backends.session import RuntimeFacts
from backends.tensor import Array
from toolkit.models.kind import find_kind
from toolkit.records.making import run_file, runnable, samples_of
from toolkit.records.record import KeptFile, KeptOutput, KeptSample, Record, read_record


@dataclass(frozen=True)
class OutputDrift:
    """The change of one output over all samples.

    same: share of samples, in [0, 1], whose whole output is the same bit for bit. max_abs: largest absolute difference;
    relative_l2: norm of the difference over the norm of the recorded values (None if the latter is 0 and the values
    changed). Both use the kept values that are finite in the record and now. not_finite: count of kept values that
    are finite in the record and not now, or the reverse.
    """

    same: float
    max_abs: float
    relative_l2: float | None
    not_finite: int


@dataclass(frozen=True)
class Answer:
    """One kind of answer: how many (`changed`) of how many recorded values (`of`) changed.

    Counted over the photographs; over the synthetic samples if there are no photographs.
    """

    changed: int
    of: int


@dataclass(frozen=True)
class FileDrift:
    """The drift of one file. before, now: the environments that it ran in, then and now. note: why its answers are not
    compared; "" if they are."""

    file: str
    role: str
    sha256: str
    before: RuntimeFacts
    now: RuntimeFacts
    outputs: dict[str, OutputDrift]
    answers: dict[str, Answer]
    note: str

    @property
    def passed(self) -> bool:
        """Whether no answer changed and every value is finite where it was, and only there."""
        return not any(one.changed for one in self.answers.values()) and not any(
            one.not_finite for one in self.outputs.values()
        )


@dataclass(frozen=True)
class Drift:
    """The drift of every file that both a record and a bundle have.

    record: the record's name; before, now: the machines; unlike: one line for each difference of machines or files.
    """

    record: str
    model: str
    weights: WeightsOrigin
    before: Machine
    now: Machine
    unlike: tuple[str, ...]
    files: tuple[FileDrift, ...]

    @property
    def passed(self) -> bool:
        """Whether there is at least one file and every file passed."""
        return bool(self.files) and all(file.passed for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """Return the drift as plain JSON values."""
        files = [asdict(file) | {"passed": file.passed} for file in self.files]
        machines = {"before": self.before.to_json(), "now": self.now.to_json()}
        return asdict(self) | {"passed": self.passed, "files": files} | machines


def records_at(path: Path, bundle: Bundle) -> list[tuple[Path, Record]]:
    """Return the record at `path`, or each record of this bundle's files in the folder `path`, with its path.

    Raises InvalidInput for a record of another model or of other files, and for a folder without a record of this
    bundle.
    """
    if not path.is_dir():
        record = read_record(path)
        if (reason := _another(record, bundle)) is not None:
            raise InvalidInput(f"record {path}: {reason}")
        return [(path, record)]
    found = [(file, read_record(file)) for file in sorted(path.glob("*.npz"))]
    reasons = {file.name: _another(record, bundle) for file, record in found}
    fitting = [(file, record) for file, record in found if reasons[file.name] is None]
    if not fitting:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "no .npz file is there"
        raise InvalidInput(f"record {path}: no record of {bundle.folder} in it: {told}")
    return fitting


def drift_of(record: Record, name: str, bundle: Bundle, threads: int | None, progress: Progress) -> Drift:
    """Run the files of a record on its samples, and compare the outputs. `name` is the record's name in the result.

    threads: None for the number that the record was made with. Raises InvalidInput for a record of another model or of
    other files, and for samples that cannot be made again.
    """
    if (reason := _another(record, bundle)) is not None:
        raise InvalidInput(f"record {name}: {reason}")
    here = {(a.role, a.file): a for a in runnable(bundle)}
    machine = Machine.here()
    unlike = _unlike(record.machine, machine)
    files = []
    for role in record.samples:
        kept = [file for file in record.files if file.role == role]
        there = [file for file in kept if (role, file.file) in here]
        unlike += [
            f"{file.file}: in the record, and not here, or its runtime is not" for file in kept if file not in there
        ]
        samples = samples_of(record, bundle, role, progress) if there else []
        for file in there:
            count = threads or file.threads
            now = run_file(bundle, here[role, file.file], samples, count, progress)
            files.append(_compared(bundle, record.samples[role], file, now))
    recorded = {(file.role, file.file) for file in record.files}
    unlike += [f"{file}: not in the record" for role, file in here if (role, file) not in recorded]
    return Drift(name, record.model, record.weights, record.machine, machine, tuple(unlike), tuple(files))


def _another(record: Record, bundle: Bundle) -> str | None:
    """Return why a record does not belong to this bundle's files, or None if it does."""
    if record.model != bundle.model["name"]:
        return f"of the model {record.model}, and {bundle.folder} is {bundle.model['name']}"
    hashes = {(artifact.role, artifact.file): artifact.sha256 for artifact in bundle.artifacts}
    for file in record.files:
        found = hashes.get((file.role, file.file))
        if found is not None and found != file.sha256:
            return (
                f"of another {file.file}: expected sha256 {file.sha256[:16]}..., got {found[:16]}... in "
                f"{bundle.folder}; the outputs of two different files cannot be compared: make a new record"
            )
    if not any((file.role, file.file) in hashes for file in record.files):
        return f"none of its files is in {bundle.folder}"
    return None


def _compared(bundle: Bundle, samples: Sequence[KeptSample], before: KeptFile, now: KeptFile) -> FileDrift:
    outputs = {name: _output(kept, now.outputs[name]) for name, kept in before.outputs.items()}
    photographs = [i for i, sample in enumerate(samples) if sample.family != "synthetic"]
    chosen = photographs or range(len(samples))
    whole = all(output.is_whole for output in before.outputs.values())
    answers: dict[str, Answer] = {}
    if whole:
        read = find_kind(bundle.model["kind"]).answers(bundle, before.role)
        for i in chosen:
            then, after = (read(_at(file.outputs, i), samples[i].truth) for file in (before, now))
            for name, value in then.items():
                sum_ = answers.get(name, Answer(0, 0))
                changed = int(np.count_nonzero(value != after[name]))
                answers[name] = Answer(sum_.changed + changed, sum_.of + value.size)
    note = "" if answers else ("its outputs have no answers" if whole else "too large to keep whole: values alone")
    return FileDrift(before.file, before.role, before.sha256, before.in_use, now.in_use, outputs, answers, note)


def _at(outputs: dict[str, KeptOutput], sample: int) -> dict[str, Array]:
    return {name: output.values[sample].reshape(output.shape) for name, output in outputs.items()}


def _output(before: KeptOutput, now: KeptOutput) -> OutputDrift:
    same = float(np.mean([a == b for a, b in zip(before.sha256, now.sha256, strict=True)]))
    then, after = before.values.astype(np.float64), now.values.astype(np.float64)
    finite = np.isfinite(then) & np.isfinite(after)
    difference = (after - then)[finite]
    norm, moved = float(np.linalg.norm(then[finite])), float(np.linalg.norm(difference))
    relative = moved / norm if norm else (0.0 if moved == 0 else None)
    not_finite = int(np.count_nonzero(np.isfinite(then) != np.isfinite(after)))
    return OutputDrift(same, float(np.abs(difference).max(initial=0)), relative, not_finite)


def _unlike(before: Machine, now: Machine) -> list[str]:
    """Return one line for each difference of two machines (processor, flags, versions); date, memory and load are
    left out."""
    then, here = asdict(before), asdict(now)
    keys = sorted(then.keys() - {"date", "versions", "memory_gb", "load"})
    lines = [f"{key}: {then[key]} then, {here[key]} now" for key in keys if then[key] != here[key]]
    versions = before.versions, now.versions
    return lines + [
        f"{name}: {versions[0].get(name)} then, {versions[1].get(name)} now"
        for name in sorted(versions[0].keys() | versions[1].keys())
        if versions[0].get(name) != versions[1].get(name)
    ]
