"""Two sections of the page on errors: histograms of every output's errors, and tables of errors and limits."""

from toolkit.metrics.error import Histogram, OutputMetrics
from toolkit.parity.report import Check
from toolkit.report.blocks import Block, Cell, Column, Figure, Grid, Heading, Paragraph, Section, Table
from toolkit.report.evidence import ComparedRole, Evidence
from toolkit.report.numbers import bound, capital, decibels, error, form, share, tick, wording
from toolkit.report.scatter import Drawing

_SIZE = (280.0, 150.0)
_LEFT, _RIGHT, _TOP, _BOTTOM, _EXACT = 8.0, 8.0, 18.0, 34.0, 22.0


def histogram_section(evidence: Evidence) -> Section:
    """Return the section with a histogram for each output of each file; those of a role share their decades."""
    blocks: list[Block] = [
        Paragraph(
            "Each bar is the share of values whose error lies in that half of a decade. The bar that stands apart on "
            "the left is of values that are exactly the reference's. The further left the bars, the better the file; "
            "one heap is rounding, a second one further right is a part of the model that went wrong."
        )
    ]
    roles = [role for role in evidence.comparisons if role.files]
    for role in roles:
        if len(roles) > 1:
            blocks.append(Heading(role.name))
        outputs = [(file.name, output, measured) for file in role.files for output, measured in file.outputs.items()]
        span = _span([measured.histogram for _, _, measured in outputs])
        blocks.append(Grid(tuple(_figure(role.name, i, *one, span) for i, one in enumerate(outputs))))
    return Section("histograms", "Histograms of error", blocks)


def _span(histograms: list[Histogram]) -> tuple[int, int]:
    """Return the indices of the first and the last bin with a count. The bin above all edges is the last."""
    used = [i for h in histograms for i, count in enumerate([*h.counts, h.above]) if count]
    return (min(used), max(used)) if used else (0, 0)


def _figure(role: str, number: int, file: str, output: str, measured: OutputMetrics, span: tuple[int, int]) -> Figure:
    histogram = measured.histogram
    counts = [*histogram.counts, histogram.above]
    whole = (histogram.exact + sum(counts)) or 1
    said = (
        f"{share(histogram.exact / whole)} of {whole:,} values are exact; the largest error is "
        f"{error(measured.max_abs)}, on the sample {measured.worst_sample!r}."
    )
    drawing = Drawing(f"histogram-{role}-{number}", *_SIZE, f"Errors of {file}, output {output}", said)
    width, height = _SIZE
    bottom, most = height - _BOTTOM, max([histogram.exact, *counts, 1])
    edges = [*histogram.edges, float("inf")]

    def bar(kind: str, left: float, wide: float, count: int, hint: str) -> None:
        high = (bottom - _TOP) * count / most
        if count:
            drawing.rect(kind, left, bottom - max(high, 1), wide, max(high, 1), f"{hint}: {share(count / whole)}")

    bar("exact", _LEFT, _EXACT - 6, histogram.exact, "exactly the same")
    first, last = span
    step = (width - _RIGHT - _LEFT - _EXACT - 6) / (last - first + 1)
    start = _LEFT + _EXACT + 6
    for index in range(first, last + 1):
        left = start + (index - first) * step
        bar("bin", left, max(step - 1, 0.5), counts[index], f"errors up to {error(edges[index])}")
    drawing.text("tick", width - _RIGHT, 12, f"highest bar: {share(most / whole)}", "end")
    drawing.line("axis", _LEFT, bottom, width - _RIGHT, bottom)
    drawing.text("tick", _LEFT + (_EXACT - 6) / 2, bottom + 15, "0", "middle")
    for index in _labelled(first, last):
        at = start + (index - first + 1) * step
        drawing.line("axis", at, bottom, at, bottom + 4)
        drawing.text("tick", min(at, width - 16), bottom + 15, tick(edges[index]), "middle")
    drawing.text("name", width / 2, height - 4, f"error of {output}", "middle")
    return Figure(f"{file}: {said}", drawing.markup())


def _labelled(first: int, last: int) -> list[int]:
    """Return the indices of at most five bins whose upper edge is a power of ten, so that labels have room."""
    decades = [i for i in range(first, last + 1) if i % 2 == 0]
    stride = -(-len(decades) // 5) or 1
    return [i for i in decades[::stride] if i < last + 1]


def limits_section(evidence: Evidence) -> Section:
    """Return the section with three tables for each role: errors, limits, and the reasons for the limits."""
    roles = [role for role in evidence.comparisons if role.files]
    blocks: list[Block] = [
        Paragraph(
            "Each file twice: against the reference, which is the whole cost, and against the file that it was made "
            "from, which is the cost of that one step. Limits were written down before anything was measured."
        )
    ]
    for role in roles:
        if len(roles) > 1:
            blocks.append(Heading(role.name))
        blocks += [_errors(role), _limits(role), _reasons(role)]
    return Section("errors", "Errors and limits", blocks)


def _errors(role: ComparedRole) -> Table:
    columns = ("File", "Against", "Output", "Relative error (L2)", "SNR, dB", "Largest error", "Mean error", "Cosine")
    rows = []
    for file in role.files:
        for comparison in (one for one in (file.total, file.step) if one is not None):
            for output, measured in comparison.outputs.items():
                rows.append(
                    (
                        Cell(file.name),
                        Cell(comparison.against),
                        Cell(output),
                        Cell(error(measured.relative_l2), measured.relative_l2),
                        _decibels(measured),
                        *(Cell(error(value), value) for value in (measured.max_abs, measured.mean_abs)),
                        Cell(f"{measured.cosine:.6f}", measured.cosine),
                    )
                )
    numeric = tuple(Column(name, index > 2) for index, name in enumerate(columns))
    return Table(f"Errors of the {role.name}'s files", numeric, tuple(rows))


def _decibels(measured: OutputMetrics) -> Cell:
    value = measured.signal_to_noise_db
    if value is None and measured.max_abs == 0 and not measured.not_finite:
        return Cell("same", float("1e9"))  # sorts above all other values
    return Cell(decibels(value), value)


def _limits(role: ComparedRole) -> Table:
    """Return a table with a row for each file and a column for each number: its value and its limit."""
    names = list(dict.fromkeys((check.where, check.number) for file in role.files for check in file.checks))
    several = len({where for where, _ in names if where}) > 1
    titles = [capital(f"{where}: {wording(name)}" if where and several else wording(name)) for where, name in names]
    columns = (Column("File"), *(Column(title, True) for title in titles))
    rows = []
    for file in role.files:
        checks = {(check.where, check.number): check for check in file.checks}
        rows.append((Cell(file.name), *(_limit(checks.get(name)) for name in names)))
    return Table(
        f"Every limit of the {role.name}'s files: the value, and the most or the least that it may be",
        columns,
        tuple(rows),
    )


def _limit(check: Check | None) -> Cell:
    if check is None:
        return Cell("")
    limit = bound(check)
    if not limit:
        return Cell(check.note, tone="fail")
    shown = form(check.number)
    text = f"{shown(check.value)} of {limit}"
    return Cell(text, check.value, {True: "", False: "fail", None: "muted"}[check.passed])


def _reasons(role: ComparedRole) -> Table:
    """Return a table of the reasons for the limits, each once with its precisions."""
    told: dict[str, list[str]] = {}
    for file in role.files:
        precisions = told.setdefault(file.reason, [])
        if file.precision not in precisions:
            precisions.append(file.precision)
    rows = tuple((Cell(", ".join(precisions)), Cell(reason)) for reason, precisions in told.items())
    return Table(f"Why the limits of the {role.name}'s files are these", (Column("Precision"), Column("Reason")), rows)
