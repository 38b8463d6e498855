"""The section of the page on size, speed and answers: the rated files of a role, their Pareto front, and its plots."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from backends.precision import find_recipe
from toolkit.bench.result import BenchResult, Figures, FileResult, PeerResult
from toolkit.convert.operations import NumberTypes
from toolkit.convert.weights import is_as_named
from toolkit.parity.report import Check
from toolkit.report.blocks import Block, Cell, Column, Figure, Heading, Pair, Paragraph, Section, Table
from toolkit.report.evidence import ComparedRole, Evidence
from toolkit.report.numbers import (
    Shown,
    capital,
    form,
    has_value,
    megabytes,
    share,
    share_tick,
    significant,
    tick,
    wording,
)
from toolkit.report.scatter import PEER, Point, scatter


@dataclass(frozen=True)
class RatedFile:
    """A file of a role, or a variant of an end-to-end case, with its size, time, error and verdict.

    passed: None for the reference. error: the largest relative L2 of its outputs. answer: the first number of the
    kind's judge (see answer_name), such as the share of bits flipped. median_ms, of_reference: None if the file was not
    timed. failures: the failed checks. front: whether neither the reference nor a file that passes is at least as good
    in size, time and cost, and better in one of them. beaten_by: the first file that is. types: the number types of the
    file; None for a variant of an end-to-end case, and a format of which they are not read.
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
    failures: tuple[Check, ...]
    front: bool = False
    beaten_by: str | None = None
    types: NumberTypes | None = None

    @property
    def label(self) -> str:
        """The file's name without the role, which is the same for all files of a plot."""
        return self.file.removeprefix(f"{self.role}.")

    @property
    def is_as_named(self) -> bool:
        """Whether half or more of the weights are in the type that the precision promises, as far as this is known."""
        return self.types is None or is_as_named(find_recipe(self.precision), self.types.weights)

    @property
    def cost(self) -> float | None:
        """The change of the answers: `answer` if the kind has such a number, else `error`."""
        return self.error if self.answer is None else self.answer


def answer_name(role: ComparedRole) -> str | None:
    """Return the first of the judge's numbers that has an upper limit; None if there is none."""
    for file in role.files:
        for check in file.checks:
            if not check.where and check.at_most is not None and check.number in file.numbers:
                return check.number
    return None


def rows_of(evidence: Evidence, role: ComparedRole) -> tuple[RatedFile, ...]:
    """Return the reference and every file compared with it, in the manifest's order, with the Pareto front marked."""
    answer = answer_name(role)
    timed = {(file.role, file.name): file for file in (evidence.bench.files if evidence.bench is not None else ())}
    judged = {file.name: file for file in role.files}
    rows = []
    for name, precision, size in _listed(evidence, role):
        file, is_reference = judged.get(name), name == role.reference
        if file is None and not is_reference:
            continue  # left out of the comparison; the notes say why
        errors = [output.relative_l2 for output in (file.outputs if file is not None else {}).values()]
        known = [value for value in errors if value is not None]
        bench = timed.get((role.name, name))
        rows.append(
            RatedFile(
                file=name,
                role=role.name,
                precision=precision,
                bytes=size,
                passed=None if file is None else file.passed,
                error=0.0 if is_reference else max(known) if known and len(known) == len(errors) else None,
                answer=None if answer is None else 0.0 if is_reference or file is None else file.numbers.get(answer),
                median_ms=None if bench is None else bench.timing.median_ms,
                of_reference=None if bench is None else bench.of_reference,
                failures=() if file is None else file.failures,
                types=role.number_types.get(name.partition(" on ")[0]),
            )
        )
    return with_front(rows)


def _listed(evidence: Evidence, role: ComparedRole) -> list[tuple[str, str, int]]:
    """Return name, precision and bytes of each file of a role; for an end-to-end case, of each format and precision."""
    artifacts = evidence.bundle.artifacts
    if not role.graphs:
        listed = []
        for artifact in (a for a in artifacts if a.role == role.name):
            listed.append((artifact.file, artifact.precision, artifact.bytes))
            others = [file for file in role.files if file.name.startswith(f"{artifact.file} on ")]
            listed += [(file.name, file.precision, artifact.bytes) for file in others]
        return listed
    sizes: dict[tuple[str, str], int] = {}
    for artifact in artifacts:
        if artifact.role in role.graphs:
            key = f"{artifact.format} {artifact.precision}", artifact.precision
            sizes[key] = sizes.get(key, 0) + artifact.bytes
    return [(name, precision, size) for (name, precision), size in sizes.items()]


def with_front(rows: Sequence[RatedFile]) -> tuple[RatedFile, ...]:
    """Return the files with the Pareto front of size, time and cost marked. Failed or untimed files are not on it."""
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
    """Return whether no value of `one` is larger, and at least one is smaller, than in `other`."""
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _point(row: RatedFile) -> tuple[float, float, float] | None:
    median_ms, cost = row.median_ms, row.cost
    if median_ms is None or cost is None or not has_value(median_ms) or not has_value(cost):
        return None
    return row.bytes, median_ms, cost


# With fewer files, a plot says no more than two lines of the summary.
_FEWEST = 3
_WIDE, _NARROW = (520.0, 340.0), (335.0, 300.0)
_TIME = "Median of a run, ms"
_PEERS = " Small grey rings are what one would run instead, by its size: what it does to answers was not measured."


def section(evidence: Evidence) -> Section:
    """Return the section with two plots for every role of enough files: time against size, and time against cost."""
    title = "Size, speed and answers"
    if evidence.bench is None:
        return Section("tradeoff", title, [Paragraph(evidence.missing["bench"], "note")])
    blocks: list[Block] = []
    drawn = [(role, found) for role in evidence.comparisons if len(found := _rated(evidence, role)) >= _FEWEST]
    if not drawn:
        blocks.append(Paragraph("No role has enough timed files for a plot; the summary has their figures.", "note"))
    for role, rows in drawn:
        if len(drawn) > 1:
            blocks.append(Heading(role.name))
        blocks += _role(role, rows, _others(evidence.bench, role))
    if peers := evidence.bench.peers:
        blocks.append(_peers(peers))
    if note := _restless(evidence.bench.files):
        blocks.append(Paragraph(note, "note"))
    return Section("tradeoff", title, blocks)


def _rated(evidence: Evidence, role: ComparedRole) -> list[RatedFile]:
    return [row for row in rows_of(evidence, role) if has_value(row.median_ms) and has_value(row.cost)]


def _others(bench: BenchResult, role: ComparedRole) -> list[Point]:
    """Return a mark for every peer of a role that was timed and is not one of the files."""
    files = [file.timing for file in bench.files]
    peers = [peer for peer in bench.peers if peer.role == role.name and peer.timing not in files]
    return [_peer(figures, peer.note) for peer in peers if (figures := peer.figures) is not None]


def _restless(files: Sequence[FileResult]) -> str | None:
    noise = [file.timing.noise for file in files if not file.timing.settled]
    if not noise:
        return None
    return (
        f"{len(noise)} of {len(files)} files did not stand still while they were timed: the medians of their last "
        f"windows lie up to {max(noise):.0%} apart. Take these times as rough; toolkit bench --json waits longer, and "
        "--bench brings its file here."
    )


def _peers(peers: Sequence[PeerResult]) -> Table:
    columns = (Column("Instead"), Column("Role"), Column("Size, MB", True), Column("Median, ms", True), Column("Note"))
    rows = []
    for peer in peers:
        median_ms = None if peer.timing is None else peer.timing.median_ms
        size_mb = None if peer.bytes is None else megabytes(peer.bytes)
        figures = Cell(significant(size_mb), size_mb), Cell(significant(median_ms), median_ms)
        rows.append((Cell(peer.name), Cell(peer.role), *figures, Cell(peer.note)))
    return Table("What one would run instead, timed in the same rounds", columns, tuple(rows))


def _role(role: ComparedRole, rows: list[RatedFile], peers: Sequence[Point]) -> list[Block]:
    answer = answer_name(role)
    cost = wording(answer or "relative_l2")
    front = [row.label for row in rows if row.front]
    said = f"On the Pareto front of size, time and {cost}: {', '.join(front)}." if front else "No file passes."
    shown = form(answer or "relative_l2")

    def draw(
        name: str,
        axis: str,
        of: Callable[[RatedFile], float],
        label: Callable[[float], str],
        meaning: str,
        beside: Sequence[Point] = (),
    ) -> Figure:
        points = [Point(row.label, of(row), row.median_ms or 0.0, _kind(row), _tells(row, cost, shown)) for row in rows]
        points += beside
        titles = f"{capital(role.name)}: median time of a run against {axis}", meaning
        wide, narrow = (
            scatter(f"tradeoff-{role.name}-{name}-{form}", size, titles, (axis, _TIME), points, label, tick).markup()
            for form, size in (("wide", _WIDE), ("narrow", _NARROW))
        )
        return Figure(meaning, wide, narrow)

    return [
        Paragraph(
            f"{said} Their marks are filled: no other file that passes is as small, as fast and as near, and better in "
            f"one of the three. Hollow marks are beaten, crossed ones fail.{_PEERS if peers else ''}"
        ),
        Pair(
            (
                draw(
                    "size",
                    "Size, MB",
                    lambda row: megabytes(row.bytes),
                    tick,
                    "Time against size: lower and further left is better. The line joins the best of these two.",
                    peers,
                ),
                draw(
                    "cost",
                    capital(cost),
                    lambda row: row.cost or 0.0,
                    share_tick if shown is share else tick,
                    f"Time against {cost}: at 0 a file changes nothing. The line joins the best of these two.",
                ),
            )
        ),
    ]


def _peer(peer: Figures, note: str) -> Point:
    size_mb, median_ms = megabytes(peer.bytes), peer.timing.median_ms
    tells = f"{significant(size_mb)} MB, {significant(median_ms)} ms; {note}"
    return Point(peer.name, size_mb, median_ms, PEER, tells)


def _kind(row: RatedFile) -> str:
    return "failed" if row.passed is False else "best" if row.front else "beaten"


def _tells(row: RatedFile, cost: str, shown: Shown) -> str:
    return f"{significant(megabytes(row.bytes))} MB, {significant(row.median_ms)} ms, {cost} {shown(row.cost)}"
