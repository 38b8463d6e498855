"""Three sections of the page: operator profiles, the machine with the timing of each file, and the manifest."""

from collections.abc import Sequence
from typing import Any

from toolkit.report.blocks import Block, Cell, Column, Facts, Paragraph, Section, Table, Tables
from toolkit.report.evidence import Evidence
from toolkit.report.numbers import count, megabytes, share, significant

# Most rows in a file's table; one more row sums up all others.
LISTED = 8


def operators_section(evidence: Evidence) -> Section:
    """Return the section with tables of operator kinds and source modules for every file that was profiled."""
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


_NAMES = {"memory_gb": "memory, GB", "cores": "cores of this process"}


def machine(evidence: Evidence) -> Section:
    """Return the section with the processor, memory and versions, and with the timing of each file."""
    facts = [
        (_NAMES.get(key, key), ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for key, value in evidence.machine.items()
        if key != "versions" and value not in (None, [])
    ]
    facts += list(evidence.machine.get("versions", {}).items())
    blocks: list[Block] = [Facts(tuple((name, str(value)) for name, value in facts))]
    if evidence.bench is not None:
        measured = evidence.bench["machine"]
        if measured != evidence.machine:
            blocks.append(Paragraph(f"Times were taken on {measured.get('date', 'another day')}, see below.", "note"))
            told = {key: value for key, value in measured.items() if key != "versions"}
            blocks.append(Facts(tuple((f"timing: {key}", str(value)) for key, value in told.items())))
        blocks.append(_timings(evidence))
    return Section("machine", "Machine and versions", blocks)


def _timings(evidence: Evidence) -> Table:
    bench = evidence.bench or {}
    columns = (
        Column("File"), Column("Runtime"), Column("Runs", True), Column("Median, ms", True), Column("Noise, %", True),
        Column("Load, ms", True), Column("First run, ms", True), Column("Peak memory, MB", True),
        Column("Runs a second", True),
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for file in bench.get("files", ()):
        timing, alone, used = file["timing"], file.get("alone", {}), file.get("in_use", {})
        peak = alone.get("peak_rss_bytes")
        numbers = (
            timing["median_ms"], None if timing.get("noise") is None else 100 * timing["noise"],
            alone.get("load_ms"), alone.get("first_run_ms"), None if peak is None else megabytes(peak),
            file.get("runs_a_second"),
        )  # fmt: skip
        runtime = f"{used.get('runtime', '')} {used.get('version', '')}".strip()
        runs = Cell(count(timing.get("runs")), timing.get("runs"))
        rows.append((Cell(file["name"]), Cell(runtime), runs, *(Cell(significant(n), n) for n in numbers)))
    return Table(f"How each file was timed, with {bench.get('threads')} threads", columns, tuple(rows))


def manifest(evidence: Evidence) -> Section:
    """Return the section with every file of the bundle and its hash, and the origin of the weights."""
    bundle = evidence.bundle
    columns = (
        Column("File"), Column("Role"), Column("Format"), Column("Precision"), Column("Bytes", True),
        Column("Made from"), Column("sha256"), Column("Tools"),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(", ".join(artifact.files)),
            Cell(artifact.role),
            Cell(artifact.format + (f", {artifact.route}" if artifact.route else "")),
            Cell(artifact.precision),
            Cell(f"{artifact.bytes:,}", artifact.bytes),
            Cell(artifact.parent or "the weights"),
            Cell(artifact.sha256, tone="code"),
            Cell(", ".join(f"{name} {version}" for name, version in artifact.tools.items())),
        )
        for artifact in bundle.artifacts
    )
    weights = bundle.weights
    facts = (
        ("model", str(bundle.model["name"])),
        ("kind", str(bundle.model["kind"])),
        ("weights", f"{weights['origin']}, from {weights['source']}"),
        ("sha256 of the weights", str(weights["sha256"])),
    )
    return Section("manifest", "Manifest", [Facts(facts), Table("Files of the bundle", columns, rows)])
