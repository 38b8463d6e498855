"""What it ran on, and which files exactly."""

from toolkit.report.blocks import Block, Cell, Column, Facts, Paragraph, Section, Table
from toolkit.report.evidence import Evidence
from toolkit.report.numbers import count, megabytes, significant

_NAMES = {"memory_gb": "memory, GB", "cores": "cores of this process"}


def machine(evidence: Evidence) -> Section:
    """Processor, memory and versions; and how each file was timed."""
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
        rows.append((Cell(file["file"]), Cell(runtime), runs, *(Cell(significant(n), n) for n in numbers)))
    return Table(f"How each file was timed, with {bench.get('threads')} threads", columns, tuple(rows))


def manifest(evidence: Evidence) -> Section:
    """Every file of the bundle with its hash, and where the weights came from."""
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
