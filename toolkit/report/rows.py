"""Every file of a role with what it costs, and which of them no other beats."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from toolkit.report.evidence import Evidence
from toolkit.report.numbers import has_value


@dataclass(frozen=True)
class Row:
    """One file. passed: None for the reference. median_ms and of_reference: None where nothing was timed.

    error: the largest relative L2 of its outputs. answer: the first number of the kind's judge (see answer_name), such
    as the share of bits flipped. front: no other file that passes is as good in size, time and answer, and better in
    one. beaten_by: one that is.
    """

    file: str
    role: str
    precision: str
    bytes: int
    passed: bool | None
    error: float | None
    answer: float | None
    median_ms: float | None
    of_reference: float | None
    failures: tuple[dict[str, Any], ...]
    front: bool = False
    beaten_by: str | None = None

    @property
    def label(self) -> str:
        """The file without the role that all of a plot share."""
        return self.file.removeprefix(f"{self.role}.")

    @property
    def cost(self) -> float | None:
        """What the file does to answers: `answer` where the kind has one, else the error."""
        return self.error if self.answer is None else self.answer


def answer_name(role: dict[str, Any]) -> str | None:
    """The first number of a file as a whole that may be at most something; None where the error is all there is."""
    for file in role["files"]:
        numbers = (file["total"] or {}).get("numbers", {})
        for check in file["checks"]:
            if not check["where"] and check["at_most"] is not None and check["number"] in numbers:
                return str(check["number"])
    return None


def rows_of(evidence: Evidence, role: dict[str, Any]) -> tuple[Row, ...]:
    """The reference and every file compared with it, in the manifest's order, with their place on the front."""
    answer = answer_name(role)
    timed = {(file["role"], file["file"]): file for file in (evidence.bench or {}).get("files", ())}
    judged = {file["file"]: file for file in role["files"]}
    rows = []
    for name, precision, size in _listed(evidence, role):
        file, is_reference = judged.get(name), name == role["reference"]["file"]
        if file is None and not is_reference:
            continue  # left out of the comparison, and the notes say why
        total = {} if file is None else file["total"] or {}
        errors = [output["relative_l2"] for output in total.get("outputs", {}).values()]
        bench = timed.get((role["role"], name))
        rows.append(
            Row(
                file=name,
                role=role["role"],
                precision=precision,
                bytes=size,
                passed=None if file is None else file["passed"],
                error=0.0 if is_reference else max(errors) if errors and None not in errors else None,
                answer=None if answer is None else 0.0 if is_reference else total.get("numbers", {}).get(answer),
                median_ms=bench and bench["timing"]["median_ms"],
                of_reference=bench and bench["of_reference"],
                failures=() if file is None else tuple(c for c in file["checks"] if c["passed"] is False),
            )
        )
    return with_front(rows)


def _listed(evidence: Evidence, role: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Name, precision and bytes of the files of a role; of a whole, for each format and precision its graphs'."""
    artifacts = evidence.bundle.artifacts
    if "graphs" not in role:
        return [(a.file, a.precision, a.bytes) for a in artifacts if a.role == role["role"]]
    sizes: dict[tuple[str, str], int] = {}
    for artifact in artifacts:
        if artifact.role in role["graphs"]:
            key = f"{artifact.format} {artifact.precision}", artifact.precision
            sizes[key] = sizes.get(key, 0) + artifact.bytes
    return [(name, precision, size) for (name, precision), size in sizes.items()]


def with_front(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Mark the Pareto front of size, time and cost among the files that pass and have all three."""
    rated = {row.file: point for row in rows if row.passed is not False and (point := _point(row)) is not None}
    marked = []
    for row in rows:
        own = rated.get(row.file)
        if own is None:
            marked.append(row)
            continue
        better = [file for file, point in rated.items() if dominates(point, own)]
        marked.append(replace(row, front=not better, beaten_by=better[0] if better else None))
    return tuple(marked)


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is nowhere larger and somewhere smaller."""
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _point(row: Row) -> tuple[float, float, float] | None:
    median_ms, cost = row.median_ms, row.cost
    if median_ms is None or cost is None or not has_value(median_ms) or not has_value(cost):
        return None
    return row.bytes, median_ms, cost
