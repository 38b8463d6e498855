"""The section of the page on layers: the error that each layer introduces, and the error that it inherits."""

from collections import Counter
from collections.abc import Sequence

from toolkit.bisect.result import BisectReport, LayerReport, Unmatched
from toolkit.report.blocks import Block, Cell, Column, Figure, Heading, Paragraph, Section, Table
from toolkit.report.evidence import Evidence
from toolkit.report.numbers import error, tick
from toolkit.report.scatter import Drawing, log_axis

_WIDE, _NARROW = (1080.0, 300.0), (335.0, 300.0)
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 14.0, 34.0, 44.0
# Number of layers that the table lists, and of those that also have a number in the plot.
LISTED = 12
_NUMBERED = 3
_KINDS = 4
_LABEL = (20.0, 13.0)  # room for a number, px
_NAMED = 5


def section(evidence: Evidence) -> Section:
    """Return the section with a plot and a table for every file that was bisected."""
    blocks: list[Block] = []
    if evidence.bisections:
        blocks.append(
            Paragraph(
                "Inherited is the error of a layer's output in a run of the whole file: it holds everything that came "
                "before. Introduced is what the layer adds when it is given the reference's own inputs: a layer that "
                "stands out there is the one to look at; the table ranks them, and its first three are numbered in the "
                "plot. Both are the RMS of the error over the RMS of the reference. toolkit bisect leaves the smallest "
                "part of a file that shows its worst layer."
            )
        )
    if "bisect" in evidence.missing:
        blocks.append(Paragraph(evidence.missing["bisect"], "note"))
    for number, bisection in enumerate(evidence.bisections):
        blocks.append(Heading(f"{bisection.candidate} against {bisection.reference}"))
        blocks += _bisection(number, bisection)
    return Section("layers", "Error along the layers", blocks)


def _bisection(number: int, bisection: BisectReport) -> list[Block]:
    layers = bisection.layers
    if not layers:
        return [Paragraph("No layer could be matched between the two files.", "note")]
    ranked = sorted(range(len(layers)), key=lambda i: -layers[i].introduced)
    worst = layers[ranked[0]]
    said = (
        f"{len(layers)} {'layers' if len(layers) > 1 else 'layer'} in running order"
        f"{f', over {count} samples' if (count := len(bisection.samples)) > 1 else ''}. {worst.tensor} "
        f"({worst.onnx_op}) introduces most, {error(worst.introduced)}; the last one inherits "
        f"{error(layers[-1].inherited)}."
    )
    if len(layers) == 1:
        return [Paragraph(said), *_unmatched(bisection.unmatched)]  # a plot of one point says no more
    title = f"Error along the layers of {bisection.candidate}"
    wide, narrow = (
        _draw(f"layers-{number}-{form}", size, title, said, layers, ranked[:_NUMBERED]).markup()
        for form, size in (("wide", _WIDE), ("narrow", _NARROW))
    )
    blocks: list[Block] = [Figure(said, wide, narrow), _table(bisection, ranked[:LISTED])]
    blocks += _unmatched(bisection.unmatched)
    if bisection.repro:
        blocks.append(Paragraph(f"The smallest part that shows the worst layer: {bisection.repro}", "note"))
    return blocks


def _unmatched(unmatched: Sequence[Unmatched]) -> list[Block]:
    """Return a note for each reason why tensors were not measured, with their names."""
    by_reason: dict[str, list[str]] = {}
    for one in unmatched:
        by_reason.setdefault(one.why, []).append(one.tensor)
    notes: list[Block] = []
    for reason, names in by_reason.items():
        few = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        notes.append(Paragraph(f"Not matched, so not measured: {few}. Why: {reason}.", "note"))
    return notes


def _draw(
    key: str, size: tuple[float, float], title: str, said: str, layers: Sequence[LayerReport], worst: Sequence[int]
) -> Drawing:
    drawing = Drawing(key, *size, title, said)
    bottom, right = drawing.height - _BOTTOM, drawing.width - _RIGHT
    values = [value for layer in layers for value in (layer.inherited, layer.introduced)]
    exact = any(value <= 0 for value in values)
    y = log_axis(values, bottom - (16 if exact else 0), _TOP, tick, bottom - 4 if exact else None)
    step = (right - _LEFT) / len(layers)

    def x(index: int) -> float:
        return _LEFT + (index + 0.5) * step

    for value, label in y.ticks:
        drawing.line("grid", _LEFT, y.place(value), right, y.place(value))
        drawing.text("tick", _LEFT - 6, y.place(value) + 4, label, "end")
    drawing.line("axis", _LEFT, bottom, right, bottom)
    for index in sorted({0, len(layers) // 4, len(layers) // 2, 3 * len(layers) // 4, len(layers) - 1}):
        drawing.text("tick", x(index), bottom + 16, str(index + 1), "middle")
    drawing.path("inherited", [(x(i), y.place(layer.inherited)) for i, layer in enumerate(layers)])
    for index, layer in enumerate(layers):
        hint = f"{index + 1}. {layer.tensor}: introduced {error(layer.introduced)}"
        drawing.circle("introduced", x(index), y.place(layer.introduced), 3.5 if index in worst else 2, hint)
    labels: list[tuple[float, float]] = []
    for rank, index in enumerate(worst, 1):
        at = x(index), y.place(layers[index].introduced) - 7
        while any(abs(at[0] - left) < _LABEL[0] and abs(at[1] - top) < _LABEL[1] for left, top in labels):
            at = at[0], at[1] - _LABEL[1]  # put the number above that of a near layer
        labels.append(at)
        drawing.text("label", *at, f"#{rank}", "middle")
    drawing.line("inherited", _LEFT, 12, _LEFT + 22, 12)
    drawing.text("label", _LEFT + 28, 16, "inherited")
    drawing.circle("introduced", _LEFT + 112, 12, 3.5)
    drawing.text("label", _LEFT + 124, 16, "introduced")
    drawing.text("name", (_LEFT + right) / 2, drawing.height - 8, "layer, in running order", "middle")
    return drawing


def _operators(kinds: Sequence[str]) -> str:
    """Return the kinds of operators with their counts: a layer may have hundreds of operators."""
    counts = Counter(kinds).most_common()
    told = [kind if count == 1 else f"{count} {kind}" for kind, count in counts[:_KINDS]]
    more = len(counts) - _KINDS
    return ", ".join(told) + (f" and {more} more {'kind' if more == 1 else 'kinds'}" if more > 0 else "")


def _table(bisection: BisectReport, ranked: Sequence[int]) -> Table:
    columns = (
        Column("Tensor"), Column("Layer", True), Column("Introduced", True), Column("Inherited", True),
        Column("ONNX node"), Column("Operators in the file"), Column("Source module"), Column("Shape"),
    )  # fmt: skip
    rows = []
    for index in ranked:
        layer = bisection.layers[index]
        rows.append(
            (
                Cell(layer.tensor, tone="code"),
                Cell(str(index + 1), index + 1),
                Cell(error(layer.introduced), layer.introduced),
                Cell(error(layer.inherited), layer.inherited),
                Cell(f"{layer.onnx_node} ({layer.onnx_op})", tone="code"),
                Cell(_operators(layer.tflite_ops)),
                Cell(layer.module, tone="code"),
                Cell(" x ".join(map(str, layer.shape))),
            )
        )
    return Table(f"Layers of {bisection.candidate} that introduce most", columns, tuple(rows))
