"""The parity report: checks of measured numbers against limits, for files and end-to-end cases, and its JSON form."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from backends.artifact import Artifact
from backends.bundle import WeightsOrigin
from toolkit.convert.operations import NumberTypes
from toolkit.metrics.error import FLOOR
from toolkit.metrics.limit import Limit, Tolerance
from toolkit.metrics.task import is_enough
from toolkit.parity.stream import Comparison

# Rounding moves an integer to the next one, however small the difference was before it.
_NEXT = Limit("max_abs", 1, needs_training=False)
# The numbers of an output's error that are relative to its size. They say nothing if all of the error is rounding.
_RELATIVE = ("relative_l2", "of_range")


@dataclass(frozen=True)
class Check:
    """A number and its limit, `at_most` or `at_least`. where: the output's name, or "" for a number of the whole file.

    passed: None if the number was not judged; `note` says why, and why a number over its limit passes. value: None if
    the number has no value, which fails.
    """

    number: str
    where: str
    value: float | None
    at_most: float | None
    passed: bool | None
    note: str
    at_least: float | None = None

    def __str__(self) -> str:
        what = f"{self.where}: {self.number}" if self.where else self.number
        value = "has no value" if self.value is None else f"{self.value:.6g}"
        if self.at_least is not None:
            return f"{what} {value}, expected at least {self.at_least:g}"
        if self.at_most is not None:
            return f"{what} {value}, expected at most {self.at_most:g}"
        return f"{what}: {self.note}"


class Judged:
    """Base of reports with checks. A report passes if at least one number was judged and none failed."""

    checks: tuple[Check, ...]

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that were judged and failed."""
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def passed(self) -> bool:
        """Whether at least one check passed and none failed."""
        return not self.failures and any(check.passed for check in self.checks)


@dataclass(frozen=True)
class FileReport(Judged):
    """The comparison of one file on one backend, and the verdict.

    total: against the reference; None if the file could not be compared. step: against its parent; None if the parent
    is the reference or there is none. step_passed: whether `step` is within the same limits; no part of the verdict.
    reason: why the limits are these. name: as in RunTarget; the artifact's precision is the one in which it ran.
    """

    artifact: Artifact
    backend: str
    total: Comparison | None
    step: Comparison | None
    checks: tuple[Check, ...]
    step_passed: bool | None
    reason: str
    name: str


@dataclass(frozen=True)
class RunReport(Judged):
    """The comparison of an EndToEndCase, with all graphs in one format and precision, against the reference."""

    format: str
    precision: str
    total: Comparison
    checks: tuple[Check, ...]
    reason: str


@dataclass(frozen=True)
class EndToEndReport:
    """All runs of one EndToEndCase. reference: the format of the float32 files with which the runs are compared.

    graphs: the roles of the case. samples: the number of samples by family.
    """

    name: str
    graphs: tuple[str, ...]
    reference: str
    samples: dict[str, int]
    runs: tuple[RunReport, ...]


@dataclass(frozen=True)
class RoleReport:
    """The comparisons of all files of one role. samples: the number of samples by family.

    outside_domain: the number of samples that were left out, see ModelKind.may_leave_domain.
    number_types: those of the reference and of every other ONNX and TFLite file, by name.
    """

    role: str
    reference: Artifact
    samples: dict[str, int]
    outside_domain: int
    files: tuple[FileReport, ...]
    number_types: Mapping[str, NumberTypes] = field(default_factory=dict)


@dataclass(frozen=True)
class ParityReport:
    """The comparisons of all files of a bundle, and of the kind's end-to-end cases (`wholes`).

    notes: sentences that a reader of the numbers must know. mendings: as in Bundle.
    """

    model: str
    kind: str
    weights: WeightsOrigin
    roles: tuple[RoleReport, ...]
    notes: tuple[str, ...]
    wholes: tuple[EndToEndReport, ...] = ()
    mendings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether at least one file was compared, and every file and end-to-end run passed."""
        files = [file for role in self.roles for file in role.files]
        runs = [run for whole in self.wholes for run in whole.runs]
        return bool(files) and all(judged.passed for judged in (*files, *runs))

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "model": self.model,
            "kind": self.kind,
            "weights": asdict(self.weights),
            "passed": self.passed,
            "notes": list(self.notes),
            "mendings": list(self.mendings),
            "roles": [_role_json(role) for role in self.roles],
            "wholes": [asdict(whole) for whole in self.wholes],
        }


def judge(comparison: Comparison, tolerance: Tolerance, random: bool) -> tuple[Check, ...]:
    """Return a check for every limit of a tolerance, and for the number of values that are not finite.

    random: whether the weights are random; limits that need training are then not judged. A comparison without outputs
    gets a failed check.
    """
    checks = []
    if not comparison.outputs:
        checks.append(Check("samples", "", None, None, False, "nothing was compared"))
    decided = tolerance.decided if not comparison.uncounted and is_enough(comparison.details) else frozenset()
    for name, error in comparison.outputs.items():
        finite = [Limit(number, 0, needs_training=False) for number in ("not_finite", "reference_not_finite")]
        if error.is_exact and name in tolerance.rounded:
            limits = (_NEXT,) if _NEXT.allows(error.max_abs) else tolerance.outputs
        elif error.is_exact:
            limits = (Limit("changed", tolerance.changed, needs_training=False),)
        else:
            limits = tolerance.outputs
        checks += [_check(limit, name, getattr(error, limit.number), random, None) for limit in finite]
        why = "the answers are judged instead" if name in decided else None
        for limit in limits:
            check = _check(limit, name, getattr(error, limit.number), random, why)
            if check.passed is False and limit.number in _RELATIVE and error.is_rounding:
                check = replace(check, passed=True, note=f"no value differs by more than {FLOOR:g}, which is rounding")
            checks.append(check)
    for limit in tolerance.task:
        value = comparison.numbers.get(limit.number)
        checks.append(_check(limit, "", value, random, comparison.uncounted.get(limit.number)))
    return tuple(checks)


def memory_check(output: str) -> Check:
    """Return the failed check of a file that keeps memory between runs: `output` changed for the same inputs."""
    return Check(
        "memory",
        output,
        None,
        None,
        False,
        "the same inputs gave another output after other inputs: the file keeps memory between runs",
    )


def _check(limit: Limit, where: str, value: float | None, random: bool, uncounted: str | None) -> Check:
    unjudged = uncounted or ("the weights are random" if random and limit.needs_training else None)
    if unjudged is not None:
        return Check(limit.number, where, value, limit.at_most, None, f"not judged: {unjudged}", limit.at_least)
    kept = value is not None and limit.allows(value)
    return Check(limit.number, where, value, limit.at_most, kept, "", limit.at_least)


def _role_json(role: RoleReport) -> dict[str, Any]:
    return {
        "role": role.role,
        "reference": {
            "file": role.reference.file,
            "sha256": role.reference.sha256,
            **_types_json(role.number_types.get(role.reference.file)),
        },
        "samples": role.samples,
        "samples_outside_domain": role.outside_domain,
        "files": [_file_json(file) | _types_json(role.number_types.get(file.artifact.file)) for file in role.files],
    }


def _types_json(types: NumberTypes | None) -> dict[str, Any]:
    return {} if types is None else {"weights": dict(types.weights), "operations": dict(types.operations)}


def _file_json(file: FileReport) -> dict[str, Any]:
    artifact = file.artifact
    described = {key: getattr(artifact, key) for key in ("file", "format", "precision", "route", "bytes", "sha256")}
    return {
        **described,
        "name": file.name,
        "backend": file.backend,
        "parent": artifact.parent,
        "passed": file.passed,
        "step_passed": file.step_passed,
        "reason": file.reason,
        "checks": [asdict(check) for check in file.checks],
        "total": file.total and asdict(file.total),
        "step": file.step and asdict(file.step),
    }
