"""The error of every file against the reference and against its parent, and the limits with their reasons."""

from typing import Any

from toolkit.report.blocks import Block, Cell, Column, Heading, Paragraph, Section, Table
from toolkit.report.evidence import Evidence
from toolkit.report.numbers import decibels, error
from toolkit.report.wording import bound, capital, form, wording


def section(evidence: Evidence) -> Section:
    """Errors, limits and their reasons, as three tables a role."""
    roles = [role for role in evidence.comparisons if role["files"]]
    blocks: list[Block] = [
        Paragraph(
            "Each file twice: against the reference, which is the whole cost, and against the file that it was made "
            "from, which is the cost of that one step. Limits were written down before anything was measured."
        )
    ]
    for role in roles:
        if len(roles) > 1:
            blocks.append(Heading(role["role"]))
        blocks += [_errors(role), _limits(role), _reasons(role)]
    return Section("errors", "Errors and limits", blocks)


def _errors(role: dict[str, Any]) -> Table:
    columns = ("File", "Against", "Output", "Relative error (L2)", "SNR, dB", "Largest error", "Mean error", "Cosine")
    rows = []
    for file in role["files"]:
        for comparison in (file["total"], file["step"]):
            for output, measured in (comparison or {}).get("outputs", {}).items():
                rows.append(
                    (
                        Cell(file["file"]),
                        Cell(comparison["against"]),
                        Cell(output),
                        *(Cell(error(measured[n]), measured[n]) for n in ("relative_l2",)),
                        _decibels(measured),
                        *(Cell(error(measured[n]), measured[n]) for n in ("max_abs", "mean_abs")),
                        Cell(f"{measured['cosine']:.6f}", measured["cosine"]),
                    )
                )
    numeric = tuple(Column(name, index > 2) for index, name in enumerate(columns))
    return Table(f"Errors of the {role['role']}'s files", numeric, tuple(rows))


def _decibels(measured: dict[str, Any]) -> Cell:
    value = measured["signal_to_noise_db"]
    if value is None and measured["max_abs"] == 0 and not measured["not_finite"]:
        return Cell("same", float("1e9"))  # above every other when sorted
    return Cell(decibels(value), value)


def _limits(role: dict[str, Any]) -> Table:
    """A row a file and a column a number: its value, and the most or the least that it may be."""
    names = list(dict.fromkeys((c["where"], c["number"]) for file in role["files"] for c in file["checks"]))
    several = len({where for where, _ in names if where}) > 1
    titles = [capital(f"{where}: {wording(name)}" if where and several else wording(name)) for where, name in names]
    columns = (Column("File"), *(Column(title, True) for title in titles))
    rows = []
    for file in role["files"]:
        checks = {(check["where"], check["number"]): check for check in file["checks"]}
        rows.append((Cell(file["file"]), *(_limit(checks.get(name)) for name in names)))
    return Table(
        f"Every limit of the {role['role']}'s files: the value, and the most or the least that it may be",
        columns,
        tuple(rows),
    )


def _limit(check: dict[str, Any] | None) -> Cell:
    if check is None:
        return Cell("")
    limit = bound(check)
    if not limit:
        return Cell(check["note"], tone="fail")
    shown = form(check["number"])
    text = f"{shown(check['value'])} of {limit}"
    return Cell(text, check["value"], {True: "", False: "fail", None: "muted"}[check["passed"]])


def _reasons(role: dict[str, Any]) -> Table:
    """Once for each, with the precisions that it is the reason of."""
    told: dict[str, list[str]] = {}
    for file in role["files"]:
        precisions = told.setdefault(file["reason"], [])
        if file["precision"] not in precisions:
            precisions.append(file["precision"])
    rows = tuple((Cell(", ".join(precisions)), Cell(reason)) for reason, precisions in told.items())
    return Table(
        f"Why the limits of the {role['role']}'s files are these", (Column("Precision"), Column("Reason")), rows
    )
