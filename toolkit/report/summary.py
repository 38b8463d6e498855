"""The page's headline and its summary: the verdicts, the failures, the best choices, and a table of all files."""

from toolkit.convert.operations import NumberTypes
from toolkit.convert.weights import shown_shares
from toolkit.parity.report import Check
from toolkit.report.blocks import Block, Cell, Column, Facts, Heading, Paragraph, Section, Table
from toolkit.report.evidence import ComparedFile, ComparedRole, Evidence
from toolkit.report.numbers import NONE, bound, capital, error, form, has_value, megabytes, significant, wording
from toolkit.report.tradeoff import RatedFile, answer_name, rows_of


def section(evidence: Evidence) -> Section:
    """Return the summary section: for each role the verdict, failures, best choices, and a table of the files."""
    blocks: list[Block] = [Paragraph(note, "warn") for note in evidence.parity.notes]
    roles = evidence.comparisons
    for role in roles:
        rows = rows_of(evidence, role)
        if len(roles) > 1:
            blocks.append(Heading(role.name))
        if not role.files:
            blocks.append(Paragraph(f"{role.reference} stands alone: there is nothing to compare it with."))
            continue
        blocks.append(Paragraph(_verdict(role)))
        blocks += [Paragraph(line, "fail") for row in rows for line in _failures(row)]
        blocks += [Paragraph(_hollow(row, row.types), "warn") for row in rows if not row.is_as_named and row.types]
        if facts := _choices(rows, answer_name(role)):
            blocks.append(Facts(tuple(facts)))
        blocks.append(_table(role, rows))
        if unjudged := _unjudged(role):
            blocks.append(Paragraph(unjudged, "note"))
    return Section("summary", "Summary", blocks)


def headline(evidence: Evidence) -> tuple[str, bool]:
    """Return the verdict on the bundle in a few words, and whether everything passed."""
    judged = [file for role in evidence.comparisons for file in role.files]
    passed = sum(file.passed for file in judged)
    what = "comparisons" if evidence.parity.wholes else "files"
    if not judged:
        return "Nothing was compared", False
    if passed < len(judged):
        return f"{len(judged) - passed} of {len(judged)} {what} fail", False
    return (f"All {passed} {what} pass" if passed > 1 else "The one file passes"), True


def _verdict(role: ComparedRole) -> str:
    passed = sum(file.passed for file in role.files)
    samples = ", ".join(f"{count} {family}" for family, count in role.samples.items()) or "no"
    total = len(role.files)
    who = f"{passed} of {total} files stay" if total > 1 else "Its one file stays" if passed else "Its one file is not"
    return f"{who} within the limits written down for each precision, held to {role.reference} on {samples} samples."


def _failures(row: RatedFile) -> list[str]:
    return [f"{row.file} fails: {_failure(check)}" for check in row.failures]


def _failure(check: Check) -> str:
    limit, where = bound(check), f"{check.where}: " if check.where else ""
    if not limit:
        return check.note
    limit = limit if limit.startswith("at least") else f"at most {limit}"
    return f"{where}{wording(check.number)} {form(check.number)(check.value)}, where {limit} is allowed."


def _hollow(row: RatedFile, types: NumberTypes) -> str:
    return (
        f"{row.file} keeps most of its weights in another type than {row.precision} promises: "
        f"{shown_shares(types.weights)}. It is not among the smallest."
    )


def _choices(rows: tuple[RatedFile, ...], answer: str | None) -> list[tuple[str, str]]:
    """Return (term, text) pairs on files that pass: the smallest, the fastest, and the one with the worst answers."""
    passing = [row for row in rows if row.passed]
    facts = []
    if len(passing) < 2:
        return []
    if honest := [row for row in passing if row.is_as_named]:
        smallest = min(honest, key=lambda row: row.bytes)
        facts.append(("Smallest that passes", f"{smallest.file}, {significant(megabytes(smallest.bytes))} MB"))
    timed = [row for row in passing if row.median_ms is not None]
    if timed:
        fastest = min(timed, key=lambda row: row.median_ms or 0.0)
        facts.append(("Fastest that passes", f"{fastest.file}, {significant(fastest.median_ms)} ms a run"))
    if answer is not None and (counted := [row for row in passing if has_value(row.answer)]):
        worst = max(counted, key=lambda row: row.answer or 0.0)
        what = wording(answer)
        if worst.answer:
            facts.append((f"Most {what}", f"{worst.file}, {form(answer)(worst.answer)}"))
        else:
            facts.append((capital(what), "none, by any file that passes"))
    return facts


def _table(role: ComparedRole, rows: tuple[RatedFile, ...]) -> Table:
    answer = answer_name(role)
    timed = any(row.median_ms is not None for row in rows)
    margins = {file.name: margin(file) for file in role.files}
    columns = [Column("File"), Column("Verdict"), Column("Precision"), Column("Size, MB", True)]
    columns += [Column("Weights stored in"), Column("Multiplies in")] if role.number_types else []
    columns += [Column("Median, ms", True), Column("Speed-up", True)] if timed else []
    columns.append(Column("Error (L2)", True))
    columns += [Column(capital(wording(answer)), True)] if answer is not None else []
    columns.append(Column("Limit used", True))
    columns += [Column("Pareto front")] if timed else []
    shown = []
    for row in rows:
        tone, verdict = {True: ("pass", "pass"), False: ("fail", "fail"), None: ("muted", "reference")}[row.passed]
        size_mb, closest = megabytes(row.bytes), margins.get(row.file)
        cells = [Cell(row.file), Cell(verdict, tone=tone), Cell(row.precision), Cell(significant(size_mb), size_mb)]
        if role.number_types:
            kinds = ("", "") if row.types is None else map(shown_shares, row.types)
            cells += [Cell(kind.replace("% ", "%\N{NO-BREAK SPACE}"), tone="wrap") for kind in kinds]
        if timed:
            speed = 1 / row.of_reference if row.of_reference else None
            cells.append(Cell(significant(row.median_ms), row.median_ms))
            cells.append(Cell(f"{significant(speed)}x" if speed else NONE, speed))
        cells.append(Cell(error(row.error), row.error))
        if answer is not None:
            cells.append(Cell(form(answer)(row.answer), row.answer))
        cells.append(Cell("" if row.passed is None else share_of_limit(closest), closest))
        if timed:
            cells.append(Cell(_place(row)))
        shown.append(tuple(cells))
    caption = f"Every file of the {role.name}. Limit used: the largest of its numbers over that number's own limit."
    if timed:
        caption += " Speed-up: over the reference."
    return Table(caption, tuple(columns), tuple(shown))


def _place(row: RatedFile) -> str:
    if row.front:
        return "on it"
    return f"beaten by {row.beaten_by.removeprefix(row.role + '.')}" if row.beaten_by else ""


def share_of_limit(closest: float | None) -> str:
    """Return a share of a limit in whole percent: "0%", "<1%", "42%", or "none" without a value."""
    if not has_value(closest) or closest is None:
        return NONE
    return f"{closest:.0%}" if closest == 0 or closest >= 0.01 else "<1%"


def margin(file: ComparedFile) -> float | None:
    """Return the largest ratio of a judged value to its upper limit; None without one. Limits of 0 are left out."""
    ratios = [
        check.value / check.at_most
        for check in file.checks
        if check.passed is not None
        and check.at_most
        and check.value is not None
        and has_value(check.value)
        and not check.note
    ]
    return max(ratios) if ratios else None


def _unjudged(role: ComparedRole) -> str:
    notes: dict[str, list[str]] = {}
    for file in role.files:
        for check in file.checks:
            if check.passed is None and (what := wording(check.number)) not in notes.setdefault(check.note, []):
                notes[check.note].append(what)
    return " ".join(f"{note.capitalize()}: {', '.join(names)}." for note, names in notes.items())
