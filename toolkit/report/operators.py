"""Where the time of a run goes, by kind of operator and by source module."""

from collections.abc import Sequence
from typing import Any

from toolkit.report.blocks import Block, Cell, Column, Paragraph, Section, Table, Tables
from toolkit.report.evidence import Evidence
from toolkit.report.numbers import share, significant

# Rows of a file's table; the rest is one row more.
LISTED = 8


def section(evidence: Evidence) -> Section:
    """Tables with bars for every file that was profiled."""
    blocks: list[Block] = []
    for note in dict.fromkeys(str(profile["note"]) for profile in evidence.profiles if profile.get("note")):
        files = [str(profile["file"]) for profile in evidence.profiles if profile.get("note") == note]
        blocks.append(Paragraph(f"{', '.join(files)}: {note}", "note"))
    if evidence.profiles:
        blocks.append(
            Paragraph(
                "Median milliseconds of all operators of a kind, as the runtime's own profiler tells them. A bar is "
                "the kind's share of the file: the longest is where a change would pay."
            )
        )
        blocks.append(
            Tables(
                tuple(
                    _table(str(profile["file"]), key, what, rows)
                    for profile in evidence.profiles
                    for key, what in (("kind", "Kind of operator"), ("module", "Source module"))
                    if (rows := profile.get(f"by_{key}"))
                )
            )
        )
    return Section("operators", "Operator profile", blocks)


def _table(file: str, key: str, what: str, rows: Sequence[dict[str, Any]]) -> Table:
    columns = (Column(what), Column("Count", True), Column("ms", True), Column("Share", True, bar=True))
    shown = [
        _row(str(row[key]) or "of no one module", row["count"], row["total_ms"], row["share"]) for row in rows[:LISTED]
    ]
    if rest := rows[LISTED:]:
        sums = (sum(row[name] for row in rest) for name in ("count", "total_ms", "share"))
        shown.append(_row(f"{len(rest)} more", *sums))
    return Table(f"{file}: time by {what.lower()}", columns, tuple(shown))


def _row(name: str, count: float, total_ms: float, part: float) -> tuple[Cell, ...]:
    return (
        Cell(name),
        Cell(f"{count:,}", count),
        Cell(significant(total_ms), total_ms),
        Cell(share(part), part, bar=min(max(part, 0.0), 1.0)),
    )
