"""Measured numbers held to written limits, and everything about it as JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from backends.artifact import Artifact
from toolkit.metrics.limit import Limit, Tolerance
from toolkit.parity.stream import Comparison


@dataclass(frozen=True)
class Check:
    """One number and its limit, a most or a least. where: an output's name, or "" for the whole file.

    passed: None where it was not judged, and `note` says why. value: None where there is none, which fails.
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
    """What has checks. Passed: at least one number was judged, and none failed."""

    checks: tuple[Check, ...]

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def passed(self) -> bool:
        return not self.failures and any(check.passed for check in self.checks)


@dataclass(frozen=True)
class FileReport(Judged):
    """One file on one backend: against the reference, against its own parent (None where that is the reference), and
    the verdict. name: the file, and its backend where that is not the default one of its format.
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
    """Several graphs run as one model, all of them in files of one format and precision, against the reference."""

    format: str
    precision: str
    total: Comparison
    checks: tuple[Check, ...]
    reason: str


@dataclass(frozen=True)
class EndToEndReport:
    """Everything that was run of one Whole. reference: the format of the float32 files that the others are held to."""

    name: str
    graphs: tuple[str, ...]
    reference: str
    samples: dict[str, int]
    runs: tuple[RunReport, ...]


@dataclass(frozen=True)
class RoleReport:
    """Every file of one role. samples: how many of each family; outside_domain: left out, see Kind."""

    role: str
    reference: Artifact
    samples: dict[str, int]
    outside_domain: int
    files: tuple[FileReport, ...]


@dataclass(frozen=True)
class ParityReport:
    """Every file of a bundle, and what its graphs make together. notes: what a reader of the numbers must know."""

    model: str
    kind: str
    weights: dict[str, Any]
    roles: tuple[RoleReport, ...]
    notes: tuple[str, ...]
    wholes: tuple[EndToEndReport, ...] = ()

    @property
    def passed(self) -> bool:
        """Something was compared, and all of it passed."""
        files = [file for role in self.roles for file in role.files]
        runs = [run for whole in self.wholes for run in whole.runs]
        return bool(files) and all(judged.passed for judged in (*files, *runs))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without NaN or infinity."""
        return {
            "model": self.model,
            "kind": self.kind,
            "weights": self.weights,
            "passed": self.passed,
            "notes": list(self.notes),
            "roles": [_role_json(role) for role in self.roles],
            "wholes": [asdict(whole) for whole in self.wholes],
        }


def judge(comparison: Comparison, tolerance: Tolerance, random: bool) -> tuple[Check, ...]:
    """Every limit of a tolerance, and that all values are finite, as checks. `random`: the weights are."""
    checks = []
    if not comparison.outputs:
        checks.append(Check("samples", "", None, None, False, "nothing was compared"))
    for name, error in comparison.outputs.items():
        limits = [Limit(number, 0, needs_training=False) for number in ("not_finite", "reference_not_finite")]
        if error.is_exact:
            limits.append(Limit("changed", tolerance.changed, needs_training=False))
        else:
            limits += tolerance.outputs
        checks += [_check(limit, name, getattr(error, limit.number), random, None) for limit in limits]
    for limit in tolerance.task:
        value = comparison.numbers.get(limit.number)
        checks.append(_check(limit, "", value, random, comparison.uncounted.get(limit.number)))
    return tuple(checks)


def _check(limit: Limit, where: str, value: float | None, random: bool, uncounted: str | None) -> Check:
    unjudged = uncounted or ("the weights are random" if random and limit.needs_training else None)
    if unjudged is not None:
        return Check(limit.number, where, value, limit.at_most, None, f"not judged: {unjudged}", limit.at_least)
    kept = value is not None and limit.allows(value)
    return Check(limit.number, where, value, limit.at_most, kept, "", limit.at_least)


def _role_json(role: RoleReport) -> dict[str, Any]:
    return {
        "role": role.role,
        "reference": {"file": role.reference.file, "sha256": role.reference.sha256},
        "samples": role.samples,
        "samples_outside_domain": role.outside_domain,
        "files": [_file_json(file) for file in role.files],
    }


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
