"""Three sections of the page: operator profiles, the machine with the timing of each file, and the manifest."""

from collections.abc import Sequence
from dataclasses import asdict, astuple

from toolkit.bench.result import BenchResult
from toolkit.report.blocks import Block, Cell, Column, Facts, Paragraph, Section, Table, Tables
from toolkit.report.evidence import Evidence
from toolkit.report.numbers import count, megabytes, share, significant

# Most rows in a file's table; one more row sums up all others.
LISTED = 8


def operators_section(evidence: Evidence) -> Section:
    """Return the section with tables of operator kinds and source modules for every file that was profiled."""
    blocks: list[Block] = []
    for note in dict.fromkeys(profile.note for profile in evidence.profiles if profile.note):
        files = [profile.file for profile in evidence.profiles if profile.note == note]
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
                    _table(profile.file, title, rows)
                    for profile in evidence.profiles
                    for title, rows in (
                        ("Kind of operator", [astuple(total) for total in profile.by_kind]),
                        ("Source module", [astuple(total) for total in profile.by_module]),
                    )
                    if rows
                )
            )
        )
    return Section("operators", "Operator profile", blocks)


def _table(file: str, title: str, rows: Sequence[tuple[str, int, float, float]]) -> Table:
    columns = (Column(title), Column("Count", True), Column("ms", True), Column("Share", True, bar=True))
    shown = [_row(name or "of no one module", *figures) for name, *figures in rows[:LISTED]]
    if rest := rows[LISTED:]:
        _, counts, times_ms, shares = zip(*rest, strict=True)
        shown.append(_row(f"{len(rest)} more", sum(counts), sum(times_ms), sum(shares)))
    return Table(f"{file}: time by {title.lower()}", columns, tuple(shown))


def _row(name: str, count: float, total_ms: float, part: float) -> tuple[Cell, ...]:
    return (
        Cell(name),
        Cell(f"{count:,}", count),
        Cell(significant(total_ms), total_ms),
        Cell(share(part), part, bar=min(max(part, 0.0), 1.0)),
    )


_NAMES = {"memory_gb": "memory, GB", "cores": "cores of this process", "load": "load of the machine"}


def machine(evidence: Evidence) -> Section:
    """Return the section with the processor, memory and versions, and with the timing of each file."""
    facts = [
        (_NAMES.get(key, key), ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        for key, value in asdict(evidence.machine).items()
        if key != "versions" and value not in (None, [])
    ]
    blocks: list[Block] = [Facts((*facts, *evidence.machine.versions.items()))]
    if evidence.bench is not None:
        measured = evidence.bench.machine
        if measured != evidence.machine:
            blocks.append(Paragraph(f"Times were taken on {measured.date}, see below.", "note"))
            told = {key: value for key, value in asdict(measured).items() if key != "versions" and value is not None}
            blocks.append(Facts(tuple((f"timing: {key}", str(value)) for key, value in told.items())))
        blocks.append(_timings(evidence.bench))
    return Section("machine", "Machine and versions", blocks)


def _timings(bench: BenchResult) -> Table:
    columns = (
        Column("File"), Column("Runtime"), Column("Runs", True), Column("Median, ms", True), Column("Noise, %", True),
        Column("Load, ms", True), Column("First run, ms", True), Column("Peak memory, MB", True),
        Column("Runs a second", True),
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for file in bench.files:
        timing, alone = file.timing, file.alone
        numbers = (
            timing.median_ms, 100 * timing.noise, alone.load_ms, alone.first_run_ms,
            megabytes(alone.peak_rss_bytes), file.runs_a_second,
        )  # fmt: skip
        runtime = f"{file.in_use['runtime']} {file.in_use['version']}"
        runs = Cell(count(timing.runs), timing.runs)
        rows.append((Cell(file.name), Cell(runtime), runs, *(Cell(significant(n), n) for n in numbers)))
    return Table(f"How each file was timed, with {bench.threads} threads", columns, tuple(rows))


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
        ("weights", f"{weights.origin}, from {weights.source}"),
        ("sha256 of the weights", weights.sha256),
    )
    done = (("done at import", line) for line in bundle.mendings)
    return Section("manifest", "Manifest", [Facts((*facts, *done)), Table("Files of the bundle", columns, rows)])
